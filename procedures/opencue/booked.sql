-- What the show's procs say, by total and key; every row of it belongs to this show.
-- p_show: name or id. Keys and units as of booked_in(); local_… only for jobs.
-- Locks and writes nothing.
-- Raises RT001, RT002.
CREATE OR REPLACE FUNCTION retally.booked(p_show text)
RETURNS TABLE (
    total text, key text, cores numeric, gpus numeric, local_cores numeric, local_gpus numeric
)
LANGUAGE plpgsql STABLE
-- nothing but the system's own operators, whoever may create in the schema public
SET search_path = pg_catalog, pg_temp
-- compiling the plan costs more than running it
SET jit = off
SET work_mem = '64MB'
-- hashing the keys is several times faster than sorting them
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
BEGIN
    RETURN QUERY
    SELECT
        b.total,
        b.key,
        b.cores,
        b.gpus,
        b.local_cores,
        b.local_gpus
    FROM retally.booked_in(ARRAY[v_show_id], retally.totals(), NULL) AS b
    WHERE retally.home(b.show_id, b.total, b.key) = v_show_id;
END
$$;
COMMENT ON FUNCTION retally.booked(text) IS 'What the show''s procs say, by total and key.';
