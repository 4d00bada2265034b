-- How much the procs of each of these shows book for a layer or job that the farm does not know.
-- p_total: layer or job. p_key: what the procs name; null for those that name none.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.orphans_in(p_show_ids text[], p_total text, p_key text)
RETURNS TABLE (show_id text, cores numeric, gpus numeric)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        p.pk_show::text,
        sum(p.int_cores_reserved),
        sum(p.int_gpus_reserved)
    FROM public.proc AS p
    WHERE
        p.pk_show::text = any(p_show_ids)
        AND CASE p_total WHEN 'layer' THEN p.pk_layer::text ELSE p.pk_job::text END
        IS NOT DISTINCT FROM p_key
    GROUP BY p.pk_show
$$;
COMMENT ON FUNCTION retally.orphans_in(text[], text, text) IS
'How much the procs of shows book for a layer or job that the farm does not know.';
