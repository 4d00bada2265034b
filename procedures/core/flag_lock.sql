-- The key of the advisory lock on a scope's flag: bookings share it, a flip has it alone.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.flag_lock(p_scope text)
RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT hashtextextended('retally flips ' || p_scope, 0)
$$;
COMMENT ON FUNCTION retally.flag_lock(text) IS
'The key of the advisory lock on a scope''s flag.';
