-- The five totals, in the order in which a booking updates them; every pass keeps to it.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.totals()
RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT ARRAY['subscription', 'layer', 'job', 'folder', 'point']
$$;
COMMENT ON FUNCTION retally.totals() IS 'The five totals, in the order of the booking path.';
