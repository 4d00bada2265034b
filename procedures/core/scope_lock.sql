-- The key of the advisory lock that the one writer of a scope's totals holds.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.scope_lock(p_scope text)
RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT hashtextextended('retally writes ' || p_scope, 0)
$$;
COMMENT ON FUNCTION retally.scope_lock(text) IS
'The key of the advisory lock that the one writer of a scope''s totals holds.';
