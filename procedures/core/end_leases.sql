-- Ends leases that p_holder holds under these tokens; bookings under them are refused from the
-- commit on, and whoever takes the scope next waits for those that were let in before.
-- Locks and writes: the rows of retally.lease.
CREATE OR REPLACE FUNCTION retally.end_leases(p_holder text, p_scopes text[], p_tokens bigint[])
RETURNS void
LANGUAGE sql VOLATILE
AS $$
    UPDATE retally.lease AS l
    SET holder = NULL, expires_at = 'epoch'
    FROM unnest(p_scopes, p_tokens) AS h (scope, token)
    WHERE l.scope = h.scope AND l.token = h.token AND l.holder = p_holder
$$;
COMMENT ON FUNCTION retally.end_leases(text, text[], bigint[]) IS
'Ends leases of a dispatcher.';
