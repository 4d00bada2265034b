-- How much the procs of each of these shows book for layers or jobs that the farm does not know.
-- p_show_ids: null for all. p_totals, p_keys: pairs of layer or job, and what procs name; a null
-- key: those that name none.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.orphans_in(p_show_ids text[], p_totals text[], p_keys text[])
RETURNS TABLE (show_id text, total text, key text, cores numeric, gpus numeric)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    WITH named AS (
        SELECT
            p.pk_show::text AS show_id,
            p.int_cores_reserved AS cores,
            p.int_gpus_reserved AS gpus,
            v.total,
            v.key
        FROM public.proc AS p
        CROSS JOIN
            LATERAL (
                VALUES ('layer', p.pk_layer::text), ('job', p.pk_job::text)
            ) AS v (total, key)
        WHERE
            -- without orphans no proc is read
            cardinality(p_keys) > 0
            AND (p_show_ids IS NULL OR p.pk_show::text = any(p_show_ids))
    )

    SELECT
        n.show_id,
        n.total,
        n.key,
        sum(n.cores),
        sum(n.gpus)
    FROM named AS n
    INNER JOIN unnest(p_totals, p_keys) AS o (total, key)
        ON
            n.total = o.total
            AND coalesce(n.key, '') = coalesce(o.key, '')
            AND (n.key IS NULL) = (o.key IS NULL)
    GROUP BY n.show_id, n.total, n.key
$$;
COMMENT ON FUNCTION retally.orphans_in(text[], text[], text[]) IS
'How much procs of shows book for layers or jobs that the farm does not know.';
