-- The procs that can bear on these totals of these shows: the access paths, apart from the rules.
-- p_show_ids: null for all procs of the farm, in one scan. p_keys: only those behind these rows of
-- the one total; null: all. cores are core units. A proc's show, job and layer have no foreign key
-- and may disagree; so there come also strays, which sit on the shows' layers or jobs.
-- p_source: procs; journal, just what these shows' procs have booked and released since the last
-- fold; owed, the procs less the journal of all shows: what totals are to hold until it is folded.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.procs_of(
    p_show_ids text[], p_totals text[], p_keys text[], p_source text
)
RETURNS TABLE (
    show_id text, host_id text, layer_id text, job_id text,
    local boolean, cores bigint, gpus bigint
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    -- the columns are procs()'s
    SELECT p.* -- noqa: AM04
    FROM retally.procs() AS p
    WHERE
        p_source <> 'journal'
        AND (p_show_ids IS NULL OR p.show_id = any(p_show_ids))
        AND (p_keys IS NULL OR 'subscription' = any(p_totals))
    UNION ALL
    -- strays on the shows' layers
    SELECT p.*
    FROM public.job AS j
    INNER JOIN public.layer_resource AS r ON j.pk_job::text = r.pk_job::text
    INNER JOIN retally.procs() AS p ON r.pk_layer::text = p.layer_id
    WHERE
        p_source <> 'journal'
        AND p_keys IS NULL
        AND p_show_ids IS NOT NULL
        AND 'layer' = any(p_totals)
        AND j.pk_show::text = any(p_show_ids)
        AND (p.show_id IS NULL OR p.show_id <> all(p_show_ids))
    UNION ALL
    -- strays on the shows' jobs, save those that the branch above has already brought
    SELECT p.*
    FROM retally.procs() AS p
    WHERE
        p_source <> 'journal'
        AND p_keys IS NULL
        AND p_show_ids IS NOT NULL
        AND p_totals && ARRAY['job', 'folder', 'point']
        AND (p.show_id IS NULL OR p.show_id <> all(p_show_ids))
        AND p.job_id IN (
            SELECT j.pk_job::text
            FROM public.job AS j
            WHERE j.pk_show::text = any(p_show_ids)
            UNION ALL
            SELECT j.pk_job::text
            FROM public.folder AS f
            INNER JOIN public.job AS j ON f.pk_folder::text = j.pk_folder::text
            WHERE f.pk_show::text = any(p_show_ids)
        )
        AND NOT (
            'layer' = any(p_totals)
            AND EXISTS (
                SELECT
                FROM public.layer_resource AS r
                INNER JOIN public.job AS j ON r.pk_job::text = j.pk_job::text
                WHERE r.pk_layer::text = p.layer_id AND j.pk_show::text = any(p_show_ids)
            )
        )
    UNION ALL
    SELECT p.*
    FROM retally.procs() AS p
    WHERE
        p_source <> 'journal'
        AND p_totals = ARRAY['layer']
        AND p_keys IS NOT NULL
        AND p.layer_id IN (SELECT k.key FROM unnest(p_keys) AS k (key))
    UNION ALL
    SELECT p.*
    FROM retally.procs() AS p
    WHERE
        p_source <> 'journal'
        AND p_totals = ARRAY['job']
        AND p_keys IS NOT NULL
        AND p.job_id IN (SELECT k.key FROM unnest(p_keys) AS k (key))
    UNION ALL
    SELECT p.*
    FROM retally.procs() AS p
    WHERE
        p_source <> 'journal'
        AND p_totals = ARRAY['folder']
        AND p_keys IS NOT NULL
        AND p.job_id IN (
            SELECT j.pk_job::text
            FROM public.job AS j
            WHERE j.pk_folder::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        )
    UNION ALL
    SELECT p.*
    FROM retally.procs() AS p
    WHERE
        p_source <> 'journal'
        AND p_totals = ARRAY['point']
        AND p_keys IS NOT NULL
        AND p.job_id IN (
            SELECT j.pk_job::text
            FROM public.job AS j
            WHERE
                j.pk_show::text = any(p_show_ids)
                AND j.pk_dept::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        )
    UNION ALL
    SELECT
        e.scope,
        e.host_id,
        e.layer_id,
        e.job_id,
        e.local,
        CASE p_source WHEN 'owed' THEN -e.cores ELSE e.cores END,
        CASE p_source WHEN 'owed' THEN -e.gpus ELSE e.gpus END
    FROM retally.journal AS e
    INNER JOIN retally.scope_flag AS f ON e.scope = f.scope AND f.journaled
    WHERE p_source <> 'procs' AND (p_source = 'owed' OR e.scope = any(p_show_ids))
$$;
COMMENT ON FUNCTION retally.procs_of(text[], text[], text[], text) IS
'The procs that can bear on these totals of these shows.';
