-- The hosts whose idle amounts are not what they have less what their procs hold, one row per slot
-- that differs: cores (core units), mem_kb, gpus, gpu_mem_kb. idle is what the row says, expected
-- what it should say. A booking or release in flight is in both or in neither.
-- Locks and writes nothing; reads every proc.
CREATE OR REPLACE FUNCTION retally.host_drift()
RETURNS TABLE (host text, name text, slot text, idle bigint, expected bigint)
LANGUAGE plpgsql STABLE
-- nothing but the system's own operators, whoever may create in the schema public
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
    RETURN QUERY
    WITH held AS (
        SELECT
            p.pk_host::text AS host,
            sum(p.int_cores_reserved) AS cores,
            sum(p.int_mem_reserved) AS mem_kb,
            sum(p.int_gpus_reserved) AS gpus,
            sum(p.int_gpu_mem_reserved) AS gpu_mem_kb
        FROM public.proc AS p
        GROUP BY p.pk_host
    )

    SELECT
        h.pk_host::text,
        h.str_name::text,
        s.slot,
        s.idle,
        s.expected::bigint
    FROM public.host AS h
    LEFT JOIN held AS d ON h.pk_host::text = d.host
    CROSS JOIN LATERAL (
        VALUES
        ('cores', h.int_cores_idle, h.int_cores - coalesce(d.cores, 0)),
        ('mem_kb', h.int_mem_idle, h.int_mem - coalesce(d.mem_kb, 0)),
        ('gpus', h.int_gpus_idle, h.int_gpus - coalesce(d.gpus, 0)),
        ('gpu_mem_kb', h.int_gpu_mem_idle, h.int_gpu_mem - coalesce(d.gpu_mem_kb, 0))
    ) AS s (slot, idle, expected)
    WHERE s.idle <> s.expected
    ORDER BY h.str_name, h.pk_host, s.slot;
END
$$;
COMMENT ON FUNCTION retally.host_drift() IS
'The hosts whose idle amounts are not what they have less what their procs hold.';
