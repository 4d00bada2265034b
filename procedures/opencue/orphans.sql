-- The procs that name a show, job, layer or host that the farm does not know, or none at all. They
-- are in no total of that kind (without a host: in no subscription), and no recompute can put them
-- there.
-- cores in core units. reason: which of the four, in words.
-- Locks and writes nothing; reads every proc of the farm.
CREATE OR REPLACE FUNCTION retally.orphans()
RETURNS TABLE (proc_id text, show_id text, cores bigint, gpus bigint, reason text)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        p.pk_proc::text,
        p.pk_show::text,
        p.int_cores_reserved::bigint,
        p.int_gpus_reserved::bigint,
        concat_ws(
            ', ',
            CASE WHEN s.pk_show IS NULL THEN 'no show ' || coalesce(p.pk_show::text, 'null') END,
            CASE WHEN j.pk_job IS NULL THEN 'no job ' || coalesce(p.pk_job::text, 'null') END,
            CASE WHEN l.pk_layer IS NULL THEN 'no layer ' || coalesce(p.pk_layer::text, 'null') END,
            CASE WHEN h.pk_host IS NULL THEN 'no host ' || coalesce(p.pk_host::text, 'null') END
        )
    FROM public.proc AS p
    LEFT JOIN public.show AS s ON p.pk_show::text = s.pk_show::text
    LEFT JOIN public.job AS j ON p.pk_job::text = j.pk_job::text
    LEFT JOIN public.layer AS l ON p.pk_layer::text = l.pk_layer::text
    LEFT JOIN public.host AS h ON p.pk_host::text = h.pk_host::text
    WHERE s.pk_show IS NULL OR j.pk_job IS NULL OR l.pk_layer IS NULL OR h.pk_host IS NULL
    ORDER BY p.pk_proc
$$;
COMMENT ON FUNCTION retally.orphans() IS
'The procs that name a show, job, layer or host that the farm does not know.';
