-- Waits for one busy row of a total; p_limit is the lock_timeout.
-- One row can cost several waits (its queue, then each holder), each up to p_limit.
-- Answers held, busy (a wait took too long) or gone.
-- Locks: the row, FOR NO KEY UPDATE. Writes nothing.
CREATE OR REPLACE FUNCTION retally.hold_row(
    p_show_id text, p_total text, p_key text, p_limit interval
)
RETURNS text
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text;
    v_held boolean;
BEGIN
    IF p_limit < interval '1 millisecond' THEN
        RETURN 'busy';
    END IF;
    v_before := retally.set_lock_timeout(p_limit);
    SELECT bool_and(l.held)
    INTO v_held
    FROM retally.lock_rows(p_show_id, p_total, ARRAY[p_key], TRUE) AS l;
    PERFORM set_config('lock_timeout', v_before, TRUE);
    RETURN CASE WHEN v_held THEN 'held' ELSE 'gone' END;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN 'busy';
END
$$;
COMMENT ON FUNCTION retally.hold_row(text, text, text, interval) IS
'Waits for one busy row of a total.';
