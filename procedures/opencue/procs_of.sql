-- The procs that can bear on these totals of these shows: the access paths, apart from the rules.
-- p_keys: only those behind these rows of the one total; null: all. cores are core units. own: the
-- proc names one of these shows. A proc's show, job and layer have no foreign key and may disagree;
-- so there come also strays, which sit on the shows' layers or jobs.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.procs_of(
    p_show_ids text[], p_totals text[], p_keys text[]
)
RETURNS TABLE (
    own boolean, show_id text, host_id text, layer_id text, job_id text,
    local boolean, cores bigint, gpus bigint
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    WITH chosen AS (
        SELECT
            p.*,
            TRUE AS retally_own -- p.* has whatever columns the farm will have
        FROM public.proc AS p
        WHERE
            p.pk_show::text = any(p_show_ids)
            AND (p_keys IS NULL OR 'subscription' = any(p_totals))
        UNION ALL
        -- strays on the shows' layers
        SELECT
            p.*,
            FALSE
        FROM public.proc AS p
        WHERE
            p_keys IS NULL
            AND 'layer' = any(p_totals)
            AND (p.pk_show IS NULL OR p.pk_show::text <> all(p_show_ids))
            AND p.pk_layer::text IN (
                SELECT r.pk_layer::text
                FROM public.layer_resource AS r
                INNER JOIN public.job AS j ON r.pk_job::text = j.pk_job::text
                WHERE j.pk_show::text = any(p_show_ids)
            )
        UNION ALL
        -- strays on the shows' jobs, save those that the branch above has already brought
        SELECT
            p.*,
            FALSE
        FROM public.proc AS p
        WHERE
            p_keys IS NULL
            AND p_totals && ARRAY['job', 'folder', 'point']
            AND (p.pk_show IS NULL OR p.pk_show::text <> all(p_show_ids))
            AND p.pk_job::text IN (
                SELECT j.pk_job::text
                FROM public.job AS j
                INNER JOIN public.folder AS f ON j.pk_folder::text = f.pk_folder::text
                WHERE
                    j.pk_show::text = any(p_show_ids)
                    OR f.pk_show::text = any(p_show_ids)
            )
            AND NOT (
                'layer' = any(p_totals)
                AND EXISTS (
                    SELECT
                    FROM public.layer_resource AS r
                    INNER JOIN public.job AS j ON r.pk_job::text = j.pk_job::text
                    WHERE r.pk_layer::text = p.pk_layer::text AND j.pk_show::text = any(p_show_ids)
                )
            )
        UNION ALL
        SELECT
            p.*,
            FALSE
        FROM public.proc AS p
        WHERE
            p_totals = ARRAY['layer']
            AND p.pk_layer::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        UNION ALL
        SELECT
            p.*,
            FALSE
        FROM public.proc AS p
        WHERE
            p_totals = ARRAY['job']
            AND p.pk_job::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        UNION ALL
        SELECT
            p.*,
            FALSE
        FROM public.proc AS p
        WHERE
            p_totals = ARRAY['folder']
            AND p.pk_job::text IN (
                SELECT j.pk_job::text
                FROM public.job AS j
                WHERE j.pk_folder::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
            )
        UNION ALL
        SELECT
            p.*,
            FALSE
        FROM public.proc AS p
        WHERE
            p_totals = ARRAY['point']
            AND p.pk_job::text IN (
                SELECT j.pk_job::text
                FROM public.job AS j
                WHERE
                    j.pk_show::text = any(p_show_ids)
                    AND j.pk_dept::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
            )
    )

    SELECT
        c.retally_own,
        c.pk_show::text,
        c.pk_host::text,
        c.pk_layer::text,
        c.pk_job::text,
        c.b_local::boolean,
        c.int_cores_reserved::bigint,
        c.int_gpus_reserved::bigint
    FROM chosen AS c
$$;
COMMENT ON FUNCTION retally.procs_of(text[], text[], text[]) IS
'The procs that can bear on these totals of these shows.';
