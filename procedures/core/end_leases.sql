-- Ends leases that p_holder holds under these tokens; bookings under them are refused from the
-- commit on, and whoever takes the scope next waits for those that were let in before. One that
-- another session has locked runs out by itself.
-- Locks and writes: the rows of retally.lease. Waits for nobody.
CREATE OR REPLACE FUNCTION retally.end_leases(p_holder text, p_scopes text[], p_tokens bigint[])
RETURNS void
LANGUAGE sql VOLATILE
AS $$
    WITH free AS (
        SELECT l.scope
        FROM unnest(p_scopes, p_tokens) AS h (scope, token)
        INNER JOIN retally.lease AS l ON h.scope = l.scope AND h.token = l.token
        WHERE l.holder = p_holder
        FOR NO KEY UPDATE OF l SKIP LOCKED
    )

    UPDATE retally.lease AS l
    SET holder = NULL, expires_at = 'epoch'
    FROM free AS f
    WHERE l.scope = f.scope
$$;
COMMENT ON FUNCTION retally.end_leases(text, text[], bigint[]) IS
'Ends leases of a dispatcher.';
