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
-- what every pass reads is in memory
SET random_page_cost = 1.1
-- hashing the keys is several times faster than sorting them
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
    v_read text[] := retally.read_for(ARRAY[v_show_id]);
BEGIN
    RETURN QUERY
    SELECT
        b.total,
        b.key,
        b.cores,
        b.gpus,
        b.local_cores,
        b.local_gpus
    FROM retally.booked_in(v_read, retally.totals(), NULL, 'procs') AS b
    CROSS JOIN LATERAL retally.home(b.show_id, b.total, b.key) AS h
    WHERE h.show_id = v_show_id;
END
$$;
COMMENT ON FUNCTION retally.booked(text) IS 'What the show''s procs say, by total and key.';
