-- What the procs of the shows say, by total and key: each total's rule, here and nowhere else.
-- p_keys: only these rows of the one total; or null. Cores in core units; numeric, since a sum of
-- bigints fits no smaller type. Keys: pk_alloc, pk_layer, pk_job, pk_folder, pk_dept; show_id goes
-- with pk_alloc and pk_dept. May hold rows that are not these shows': compared() sorts them out.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.booked_in(
    p_show_ids text[], p_totals text[], p_keys text[]
)
RETURNS TABLE (
    show_id text, total text, key text,
    cores numeric, gpus numeric, local_cores numeric, local_gpus numeric
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    -- the procs are read once, into one hash table for each key they are summed by; a key that
    -- these totals do not need is null for all and costs nothing
    WITH procs AS (
        SELECT
            p.local,
            p.cores,
            p.gpus,
            CASE WHEN 'layer' = any(p_totals) THEN p.layer_id END AS layer_id,
            CASE WHEN p_totals && ARRAY['job', 'folder', 'point'] THEN p.job_id END AS job_id,
            CASE WHEN 'subscription' = any(p_totals) AND p.own THEN p.show_id END AS show_id,
            CASE WHEN 'subscription' = any(p_totals) AND p.own THEN p.host_id END AS host_id
        FROM retally.procs_of(p_show_ids, p_totals, p_keys) AS p
    ),

    shares AS MATERIALIZED (
        SELECT
            p.layer_id,
            p.job_id,
            p.show_id,
            p.host_id,
            CASE
                WHEN grouping(p.layer_id) = 0 THEN 'layer'
                WHEN grouping(p.job_id) = 0 THEN 'job'
                ELSE 'host'
            END AS grouped_by,
            sum(p.cores) AS cores,
            sum(p.gpus) AS gpus,
            coalesce(sum(p.cores) FILTER (WHERE p.local), 0) AS local_cores,
            coalesce(sum(p.gpus) FILTER (WHERE p.local), 0) AS local_gpus,
            bool_and(p.local) AS all_local
        FROM procs AS p
        GROUP BY GROUPING SETS ((p.layer_id), (p.job_id), (p.show_id, p.host_id))
    ),

    jobs AS MATERIALIZED (
        SELECT
            j.pk_show::text AS show_id,
            j.pk_folder::text AS folder_id,
            j.pk_dept::text AS dept_id,
            s.cores - s.local_cores AS cores,
            s.gpus - s.local_gpus AS gpus
        FROM shares AS s
        INNER JOIN public.job AS j ON s.job_id = j.pk_job::text
        WHERE
            s.grouped_by = 'job'
            AND p_totals && ARRAY['folder', 'point']
            AND NOT s.all_local
    ),

    sums AS (
        SELECT
            s.show_id,
            'subscription' AS total,
            h.pk_alloc::text AS key,
            sum(s.cores - s.local_cores) AS cores,
            sum(s.gpus - s.local_gpus) AS gpus,
            NULL::numeric AS local_cores,
            NULL::numeric AS local_gpus
        FROM shares AS s
        INNER JOIN public.host AS h ON s.host_id = h.pk_host::text
        WHERE s.grouped_by = 'host' AND 'subscription' = any(p_totals) AND NOT s.all_local
        GROUP BY s.show_id, h.pk_alloc
        UNION ALL
        SELECT
            NULL,
            'layer',
            s.layer_id,
            s.cores,
            s.gpus,
            NULL,
            NULL
        FROM shares AS s
        WHERE s.grouped_by = 'layer' AND 'layer' = any(p_totals)
        UNION ALL
        SELECT
            NULL,
            'job',
            s.job_id,
            s.cores - s.local_cores,
            s.gpus - s.local_gpus,
            s.local_cores,
            s.local_gpus
        FROM shares AS s
        WHERE s.grouped_by = 'job' AND 'job' = any(p_totals)
        UNION ALL
        SELECT
            NULL,
            'folder',
            j.folder_id,
            sum(j.cores),
            sum(j.gpus),
            NULL,
            NULL
        FROM jobs AS j
        WHERE 'folder' = any(p_totals)
        GROUP BY j.folder_id
        UNION ALL
        SELECT
            j.show_id,
            'point',
            j.dept_id,
            sum(j.cores),
            sum(j.gpus),
            NULL,
            NULL
        FROM jobs AS j
        WHERE j.show_id = any(p_show_ids) AND 'point' = any(p_totals)
        GROUP BY j.show_id, j.dept_id
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
