-- Waits for the bookings of this scope that are in flight, and keeps new ones waiting until this
-- transaction ends. p_name: what people call the scope. With empty hands it waits for
-- setting.longest_flip; who has written may hold what they wait for: just the lock budget then.
-- Locks: the scope's flag, alone, until the transaction ends. Writes nothing.
-- Raises RT005 when bookings stayed in flight.
CREATE OR REPLACE FUNCTION retally.hold_flag(p_scope text, p_name text)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text;
BEGIN
    v_before := retally.set_lock_timeout(
        CASE
            WHEN pg_current_xact_id_if_assigned() IS NULL
                THEN (SELECT s.longest_flip FROM retally.setting AS s)
            ELSE retally.lock_budget()
        END
    );
    BEGIN
        PERFORM pg_advisory_xact_lock(retally.flag_lock(p_scope));
    EXCEPTION
        WHEN lock_not_available THEN
            RAISE EXCEPTION 'bookings of "%" are in flight for too long', p_name
                USING ERRCODE = 'RT005',
                    HINT = 'Look for a long transaction that has booked, and try again.';
    END;
    PERFORM set_config('lock_timeout', v_before, TRUE);
END
$$;
COMMENT ON FUNCTION retally.hold_flag(text, text) IS
'Waits for the bookings of this scope in flight, and keeps new ones waiting.';
