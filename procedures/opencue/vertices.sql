-- What admission goes by: every vertex of a show at which bookings are capped, its caps, and what
-- the procs say is booked there, of one snapshot. vertex: subscription (key pk_alloc), folder or
-- job, the jobs last; folder_id: the job's. Finished jobs are there while they have procs.
-- p_show_id: pk_show. Caps and sums in core units and GPUs, caps as the farm has them; max_gpus of
-- a subscription is -1. A job or folder without a row for its total has no cap. name: what people
-- call the allocation, folder or job.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.vertices(p_show_id text)
RETURNS TABLE (
    vertex text, key text, name text, folder_id text, max_cores bigint, max_gpus bigint,
    cores numeric, gpus numeric
)
LANGUAGE plpgsql STABLE
-- as booked()
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '64MB'
SET random_page_cost = 1.1
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_read text[] := retally.read_for(ARRAY[p_show_id]);
BEGIN
    RETURN QUERY
    WITH sums AS MATERIALIZED (
        SELECT b.*
        FROM retally.booked_in(
            v_read, ARRAY['subscription', 'folder', 'job'], NULL, 'procs'
        ) AS b
        WHERE b.show_id IS NULL OR b.show_id = p_show_id
    ),

    caps AS (
        SELECT
            'subscription' AS vertex,
            s.pk_alloc::text AS key,
            a.str_name::text AS name,
            NULL::text AS folder_id,
            s.int_burst::bigint AS max_cores,
            -1::bigint AS max_gpus
        FROM public.subscription AS s
        INNER JOIN public.alloc AS a ON s.pk_alloc::text = a.pk_alloc::text
        WHERE s.pk_show::text = p_show_id
        UNION ALL
        SELECT
            'folder',
            f.pk_folder::text,
            f.str_name::text,
            NULL,
            coalesce(r.int_max_cores, -1),
            coalesce(r.int_max_gpus, -1)
        FROM public.folder AS f
        LEFT JOIN public.folder_resource AS r ON f.pk_folder::text = r.pk_folder::text
        WHERE f.pk_show::text = p_show_id
        UNION ALL
        SELECT
            'job',
            j.pk_job::text,
            j.str_name::text,
            j.pk_folder::text,
            coalesce(r.int_max_cores, -1),
            coalesce(r.int_max_gpus, -1)
        FROM public.job AS j
        LEFT JOIN public.job_resource AS r ON j.pk_job::text = r.pk_job::text
        WHERE
            j.pk_show::text = p_show_id
            AND (
                j.str_state <> 'FINISHED'
                OR j.pk_job::text IN (SELECT b.key FROM sums AS b WHERE b.total = 'job')
            )
    )

    SELECT
        c.vertex,
        c.key,
        c.name,
        c.folder_id,
        c.max_cores,
        c.max_gpus,
        coalesce(b.cores, 0),
        coalesce(b.gpus, 0)
    FROM caps AS c
    LEFT JOIN sums AS b ON c.vertex = b.total AND c.key = b.key
    ORDER BY c.vertex = 'job';
END
$$;
COMMENT ON FUNCTION retally.vertices(text) IS
'Every vertex of a show at which bookings are capped, its caps, and what is booked there.';
