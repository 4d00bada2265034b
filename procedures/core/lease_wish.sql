-- How long the wish of a dispatcher that was refused a scope counts, unless it asks again.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.lease_wish()
RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT interval '3 seconds'
$$;
COMMENT ON FUNCTION retally.lease_wish() IS
'How long the wish of a dispatcher that was refused a scope counts.';
