-- The row of vertices() of one job, whatever its state, with the job's show and whether that is
-- managed. No row when there is no such job.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.job_vertex(p_job text)
RETURNS TABLE (
    show_id text, show_name text, managed boolean, name text, folder_id text, max_cores bigint,
    max_gpus bigint, cores numeric, gpus numeric
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    RETURN QUERY
    SELECT
        j.pk_show::text,
        s.str_name::text,
        retally.is_managed(j.pk_show::text),
        j.str_name::text,
        j.pk_folder::text,
        coalesce(r.int_max_cores, -1)::bigint,
        coalesce(r.int_max_gpus, -1)::bigint,
        coalesce(b.cores, 0),
        coalesce(b.gpus, 0)
    FROM public.job AS j
    INNER JOIN public.show AS s ON j.pk_show::text = s.pk_show::text
    LEFT JOIN public.job_resource AS r ON j.pk_job::text = r.pk_job::text
    LEFT JOIN retally.booked_in(NULL, ARRAY['job'], ARRAY[p_job], 'procs') AS b
        ON j.pk_job::text = b.key
    WHERE j.pk_job::text = p_job;
END
$$;
COMMENT ON FUNCTION retally.job_vertex(text) IS
'The row of vertices() of one job, with its show.';
