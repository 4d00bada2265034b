-- What the rows of the totals hold, in the shape of booked_in(); show_id: whose row it is.
-- p_show_ids: pk_show of each show; null: of all, and job_id takes the place of show_id for layers
-- and jobs, since looking up the shows of all is a waste where only few are adrift.
-- p_totals: which totals. p_zeros: also the layers and jobs that hold nothing, which most do; one
-- of these that should hold something is found by its procs.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.stored_in(p_show_ids text[], p_totals text[], p_zeros boolean)
RETURNS TABLE (
    show_id text, job_id text, total text, key text,
    cores numeric, gpus numeric, local_cores numeric, local_gpus numeric
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        s.pk_show::text AS show_id,
        NULL::text AS job_id,
        'subscription' AS total,
        s.pk_alloc::text AS key,
        s.int_cores::numeric AS cores,
        s.int_gpus::numeric AS gpus,
        NULL::numeric AS local_cores,
        NULL::numeric AS local_gpus
    FROM public.subscription AS s
    WHERE
        (p_show_ids IS NULL OR s.pk_show::text = any(p_show_ids))
        AND 'subscription' = any(p_totals)
    UNION ALL
    SELECT
        j.pk_show::text,
        r.pk_job::text,
        'layer',
        r.pk_layer::text,
        r.int_cores::numeric,
        r.int_gpus::numeric,
        NULL,
        NULL
    FROM public.layer_resource AS r
    LEFT JOIN public.job AS j ON p_show_ids IS NOT NULL AND r.pk_job::text = j.pk_job::text
    WHERE
        (p_show_ids IS NULL OR j.pk_show::text = any(p_show_ids))
        AND 'layer' = any(p_totals)
        AND (p_zeros OR r.int_cores <> 0 OR r.int_gpus <> 0)
    UNION ALL
    SELECT
        j.pk_show::text,
        r.pk_job::text,
        'job',
        r.pk_job::text,
        r.int_cores::numeric,
        r.int_gpus::numeric,
        r.int_local_cores::numeric,
        r.int_local_gpus::numeric
    FROM public.job_resource AS r
    LEFT JOIN public.job AS j ON p_show_ids IS NOT NULL AND r.pk_job::text = j.pk_job::text
    WHERE
        (p_show_ids IS NULL OR j.pk_show::text = any(p_show_ids))
        AND 'job' = any(p_totals)
        AND (
            p_zeros
            OR r.int_cores <> 0
            OR r.int_gpus <> 0
            OR r.int_local_cores <> 0
            OR r.int_local_gpus <> 0
        )
    UNION ALL
    SELECT
        f.pk_show::text,
        NULL,
        'folder',
        r.pk_folder::text,
        r.int_cores::numeric,
        r.int_gpus::numeric,
        NULL,
        NULL
    FROM public.folder_resource AS r
    INNER JOIN public.folder AS f ON r.pk_folder::text = f.pk_folder::text
    WHERE
        (p_show_ids IS NULL OR f.pk_show::text = any(p_show_ids))
        AND 'folder' = any(p_totals)
    UNION ALL
    SELECT
        t.pk_show::text,
        NULL,
        'point',
        t.pk_dept::text,
        t.int_cores::numeric,
        t.int_gpus::numeric,
        NULL,
        NULL
    FROM public.point AS t
    WHERE
        (p_show_ids IS NULL OR t.pk_show::text = any(p_show_ids))
        AND 'point' = any(p_totals)
$$;
COMMENT ON FUNCTION retally.stored_in(text[], text[], boolean) IS
'What the rows of the shows'' totals hold, in the shape of booked_in().';
