-- What the procs say, by total and key: the rule of each total, written here and nowhere else.
-- p_show_ids: pk_show of each show. p_totals: which totals. p_keys: only these rows of the one
-- total; or null. show_id: the show whose procs these are, not always the one whose row it is.
-- Keys: subscription pk_alloc, layer pk_layer, job pk_job, folder pk_folder, point pk_dept.
-- Cores in core units; numeric, since a sum of bigints fits no smaller type.
-- The procs are read once, grouped by the finest keys, and rolled up from there.
CREATE OR REPLACE FUNCTION retally.booked_in(
    p_show_ids text[], p_totals text[], p_keys text[]
)
RETURNS TABLE (
    show_id text, total text, key text,
    cores numeric, gpus numeric, local_cores numeric, local_gpus numeric
)
LANGUAGE sql STABLE
AS $$
    WITH procs AS MATERIALIZED (
        SELECT * FROM retally.procs_of(p_show_ids, p_totals, p_keys)
    ),

    by_layer AS MATERIALIZED (
        SELECT
            p.layer_id,
            p.job_id,
            p.show_id,
            p.local,
            sum(p.cores) AS cores,
            sum(p.gpus) AS gpus
        FROM procs AS p
        WHERE p_totals && ARRAY['layer', 'job', 'folder', 'point']
        GROUP BY p.layer_id, p.job_id, p.show_id, p.local
    ),

    by_job AS MATERIALIZED (
        SELECT
            b.job_id,
            min(b.show_id) AS show_id,
            coalesce(sum(b.cores) FILTER (WHERE NOT b.local), 0) AS cores,
            coalesce(sum(b.gpus) FILTER (WHERE NOT b.local), 0) AS gpus,
            coalesce(sum(b.cores) FILTER (WHERE b.local), 0) AS local_cores,
            coalesce(sum(b.gpus) FILTER (WHERE b.local), 0) AS local_gpus
        FROM by_layer AS b
        WHERE p_totals && ARRAY['job', 'folder', 'point']
        GROUP BY b.job_id
    ),

    farm_by_job AS MATERIALIZED (
        SELECT
            b.show_id,
            b.cores,
            b.gpus,
            j.pk_show::text AS job_show_id,
            j.pk_folder::text AS folder_id,
            j.pk_dept::text AS dept_id
        FROM by_job AS b
        INNER JOIN public.job AS j ON b.job_id = j.pk_job::text
        WHERE p_totals && ARRAY['folder', 'point'] AND (b.cores <> 0 OR b.gpus <> 0)
    ),

    farm_by_host AS (
        SELECT
            p.show_id,
            p.host_id,
            sum(p.cores) AS cores,
            sum(p.gpus) AS gpus
        FROM procs AS p
        WHERE p.own AND NOT p.local AND 'subscription' = any(p_totals)
        GROUP BY p.show_id, p.host_id
    ),

    sums AS (
        SELECT
            b.show_id,
            'subscription' AS total,
            h.pk_alloc::text AS key,
            sum(b.cores) AS cores,
            sum(b.gpus) AS gpus,
            NULL::numeric AS local_cores,
            NULL::numeric AS local_gpus
        FROM farm_by_host AS b
        INNER JOIN public.host AS h ON b.host_id = h.pk_host::text
        GROUP BY b.show_id, h.pk_alloc
        UNION ALL
        SELECT
            min(b.show_id),
            'layer',
            b.layer_id,
            sum(b.cores),
            sum(b.gpus),
            NULL,
            NULL
        FROM by_layer AS b
        WHERE 'layer' = any(p_totals)
        GROUP BY b.layer_id
        UNION ALL
        SELECT
            b.show_id,
            'job',
            b.job_id,
            b.cores,
            b.gpus,
            b.local_cores,
            b.local_gpus
        FROM by_job AS b
        WHERE 'job' = any(p_totals)
        UNION ALL
        SELECT
            min(b.show_id),
            'folder',
            b.folder_id,
            sum(b.cores),
            sum(b.gpus),
            NULL,
            NULL
        FROM farm_by_job AS b
        WHERE 'folder' = any(p_totals)
        GROUP BY b.folder_id
        UNION ALL
        SELECT
            b.job_show_id,
            'point',
            b.dept_id,
            sum(b.cores),
            sum(b.gpus),
            NULL,
            NULL
        FROM farm_by_job AS b
        WHERE b.job_show_id = any(p_show_ids) AND 'point' = any(p_totals)
        GROUP BY b.job_show_id, b.dept_id
    )

    SELECT
        s.show_id,
        s.total,
        s.key,
        s.cores,
        s.gpus,
        s.local_cores,
        s.local_gpus
    FROM sums AS s
    WHERE p_keys IS NULL OR s.key IN (SELECT k.key FROM unnest(p_keys) AS k (key))
$$;
COMMENT ON FUNCTION retally.booked_in(text[], text[], text[]) IS
'What the procs say, by total and key.';
