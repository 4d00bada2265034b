-- Ends the lease of a scope whoever holds it, and his token with it. For who holds the scope's flag
-- alone: flips, end_lease().
-- Locks and writes: a row of retally.lease. Raises RT005 when that stayed locked.
CREATE OR REPLACE FUNCTION retally.drop_lease(p_scope text)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text := retally.set_lock_timeout(retally.lock_budget());
BEGIN
    UPDATE retally.lease AS l
    SET token = l.token + 1, holder = NULL, expires_at = 'epoch', wanted_by = NULL,
        wanted_at = NULL
    WHERE l.scope = p_scope;
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'another session has the lease of % locked', p_scope
            USING ERRCODE = 'RT005', HINT = 'Let it commit or roll back, and try again.';
END
$$;
COMMENT ON FUNCTION retally.drop_lease(text) IS 'Ends the lease of a scope whoever holds it.';
