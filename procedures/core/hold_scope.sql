-- Makes this transaction the only writer of the scope's totals, until it ends.
-- p_wait: give the present writer as long as the lock budget; otherwise 50 ms, which lets two
-- ticks of a show pass each other.
-- Locks: a transaction-scoped advisory lock, so it holds through a transaction pooler.
-- Raises RT003 outside READ COMMITTED, RT005 when another writer holds the scope.
CREATE OR REPLACE FUNCTION retally.hold_scope(p_scope text, p_wait boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_lock bigint := retally.scope_lock(p_scope);
    v_before text;
BEGIN
    PERFORM retally.require_read_committed('totals cannot be rebuilt');
    IF pg_try_advisory_xact_lock(v_lock) THEN
        RETURN;
    END IF;
    BEGIN
        v_before := retally.set_lock_timeout(
            CASE WHEN p_wait THEN retally.lock_budget() ELSE interval '50 milliseconds' END
        );
        PERFORM pg_advisory_xact_lock(v_lock);
        PERFORM set_config('lock_timeout', v_before, TRUE);
        RETURN;
    EXCEPTION
        WHEN lock_not_available THEN NULL;
    END;
    RAISE EXCEPTION 'another session is rebuilding the totals of %', p_scope
        USING ERRCODE = 'RT005', HINT = 'Try again in a moment.';
END
$$;
COMMENT ON FUNCTION retally.hold_scope(text, boolean) IS
'Makes this transaction the only writer of the scope''s totals.';
