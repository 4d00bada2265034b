-- Waits in the queue of one busy row of a total; only for a transaction that holds no other row,
-- since whoever waits with a lock in hand can be part of a cycle.
-- p_limit bounds each of the waits that a row can cost: its queue, then each holder.
-- Answers whether the row was had, or is gone, in time.
-- Locks: the row, FOR NO KEY UPDATE. Writes nothing.
CREATE OR REPLACE FUNCTION retally.wait_for_row(
    p_show_id text, p_total text, p_key text, p_limit interval
)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text;
BEGIN
    IF p_limit < interval '1 millisecond' THEN
        RETURN FALSE;
    END IF;
    v_before := retally.set_lock_timeout(p_limit);
    PERFORM retally.lock_keys(p_show_id, p_total, ARRAY[p_key], TRUE);
    PERFORM set_config('lock_timeout', v_before, TRUE);
    RETURN TRUE;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN FALSE;
END
$$;
COMMENT ON FUNCTION retally.wait_for_row(text, text, text, interval) IS
'Waits in the queue of one busy row of a total.';
