-- Where the show's totals are not what its procs say: drift_in() for one show, in the order of
-- the booking path. p_show: name or id.
-- Locks and writes nothing.
-- Raises RT001, RT002.
CREATE OR REPLACE FUNCTION retally.drift(p_show text)
RETURNS TABLE (total text, key text, slot text, stored numeric, booked numeric)
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
        d.total,
        d.key,
        d.slot,
        d.stored,
        d.booked
    FROM retally.drift_in(v_read, retally.totals()) AS d
    WHERE d.show_id = v_show_id
    ORDER BY array_position(retally.totals(), d.total), d.key, d.slot;
END
$$;
COMMENT ON FUNCTION retally.drift(text) IS
'Where the show''s totals are not what its procs say: one row per slot that differs.';
