-- Makes this transaction the only one that switches the journal on or off, until it ends.
-- Locks: a transaction-scoped advisory lock; waits for it for setting.longest_flip.
-- Raises RT003 outside READ COMMITTED, RT005 when another transaction stayed at it.
CREATE OR REPLACE FUNCTION retally.hold_journal()
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text;
BEGIN
    PERFORM retally.require_read_committed('the journal cannot be switched');
    v_before := retally.set_lock_timeout((SELECT s.longest_flip FROM retally.setting AS s));
    PERFORM pg_advisory_xact_lock(hashtextextended('retally journal', 0));
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'another session is switching the journal'
            USING ERRCODE = 'RT005', HINT = 'Try again in a moment.';
END
$$;
COMMENT ON FUNCTION retally.hold_journal() IS
'Makes this transaction the only one that switches the journal on or off.';
