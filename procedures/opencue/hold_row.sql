-- Waits for one busy row of a total, no longer than until p_deadline.
-- Answers held, busy (the wait took too long) or gone.
-- Locks: the row, FOR NO KEY UPDATE. Writes nothing.
CREATE OR REPLACE FUNCTION retally.hold_row(
    p_show_id text, p_total text, p_key text, p_deadline timestamptz
)
RETURNS text
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_left interval := p_deadline - clock_timestamp();
    v_before text;
    v_held boolean;
BEGIN
    IF v_left < interval '1 millisecond' THEN
        RETURN 'busy';
    END IF;
    v_before := retally.set_lock_timeout(v_left);
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
COMMENT ON FUNCTION retally.hold_row(text, text, text, timestamptz) IS
'Waits for one busy row of a total, no longer than until a deadline.';
