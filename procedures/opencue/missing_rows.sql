-- The rows of totals that are not there, while procs are booked that belong into them. OpenCue
-- makes them with the job, layer or folder; an admin makes subscriptions and points.
-- cores in core units: what the procs hold.
-- Locks and writes nothing; reads every proc.
CREATE OR REPLACE FUNCTION retally.missing_rows()
RETURNS TABLE (
    show_id text, total text, key text, name text, cores numeric, gpus numeric, show_name text
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
BEGIN
    RETURN QUERY
    SELECT
        c.show_id,
        c.total,
        c.key,
        retally.row_name(c.total, c.key),
        c.cores + c.local_cores,
        c.gpus + c.local_gpus,
        n.name
    FROM retally.compared(NULL, retally.totals(), 'procs') AS c
    LEFT JOIN retally.shows() AS n ON c.show_id = n.show_id
    WHERE c.kind = 'missing'
    ORDER BY c.show_id, array_position(retally.totals(), c.total), c.key;
END
$$;
COMMENT ON FUNCTION retally.missing_rows() IS
'The rows of totals that are not there, while procs are booked that belong into them.';
