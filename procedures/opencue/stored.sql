-- What the rows of the show's totals hold, in the shape of booked().
-- p_show: name or id.
-- Locks and writes nothing.
-- Raises RT001, RT002.
CREATE OR REPLACE FUNCTION retally.stored(p_show text)
RETURNS TABLE (
    total text, key text, cores numeric, gpus numeric, local_cores numeric, local_gpus numeric
)
LANGUAGE plpgsql STABLE
-- nothing but the system's own operators, whoever may create in the schema public
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
BEGIN
    RETURN QUERY
    SELECT
        s.total,
        s.key,
        s.cores,
        s.gpus,
        s.local_cores,
        s.local_gpus
    FROM retally.stored_in(ARRAY[v_show_id], retally.totals(), TRUE) AS s;
END
$$;
COMMENT ON FUNCTION retally.stored(text) IS 'What the rows of the show''s totals hold.';
