-- Makes this transaction the only writer of the totals of those scopes that have no other; answers
-- with these. p_wait: as in hold_scope(), for all of them together.
-- Locks: transaction-scoped advisory locks, in the order of the scopes. Raises RT003.
CREATE OR REPLACE FUNCTION retally.hold_scopes(p_scopes text[], p_wait boolean)
RETURNS text[]
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_deadline timestamptz := clock_timestamp()
    + CASE WHEN p_wait THEN retally.lock_budget() ELSE interval '50 milliseconds' END;
    v_scope text;
    v_held text[] := '{}';
BEGIN
    PERFORM retally.require_read_committed('totals cannot be rebuilt');
    FOR v_scope IN
        SELECT DISTINCT s.scope
        FROM unnest(p_scopes) AS s (scope)
        ORDER BY s.scope
    LOOP
        IF pg_try_advisory_xact_lock(retally.scope_lock(v_scope)) THEN
            v_held := v_held || v_scope;
        ELSIF clock_timestamp() < v_deadline THEN
            BEGIN
                PERFORM retally.hold_scope(v_scope, p_wait);
                v_held := v_held || v_scope;
            EXCEPTION
                WHEN SQLSTATE 'RT005' THEN NULL;
            END;
        END IF;
    END LOOP;
    RETURN v_held;
END
$$;
COMMENT ON FUNCTION retally.hold_scopes(text[], boolean) IS
'Makes this transaction the only writer of those scopes that have no other; answers with these.';
