-- Where stored (was_…) and booked differ, one row per key; the base of every pass and of drift().
-- Cores in core units; 0 booked where no proc says anything. kind: row (a total to correct),
-- missing (the farm knows the thing, its row is not there), orphan (procs of this show name a
-- layer or job that the farm does not know).
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.compared(p_show_ids text[], p_totals text[])
RETURNS TABLE (
    show_id text, total text, key text, kind text,
    was_cores numeric, was_gpus numeric, was_local_cores numeric, was_local_gpus numeric,
    cores numeric, gpus numeric, local_cores numeric, local_gpus numeric
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    WITH pairs AS (
        SELECT
            s.show_id,
            b.show_id AS told_show_id,
            coalesce(s.total, b.total) AS total,
            coalesce(s.key, b.key) AS key,
            s.cores AS was_cores,
            s.gpus AS was_gpus,
            s.local_cores AS was_local_cores,
            s.local_gpus AS was_local_gpus,
            coalesce(b.cores, 0) AS cores,
            coalesce(b.gpus, 0) AS gpus,
            coalesce(b.local_cores, 0) AS local_cores,
            coalesce(b.local_gpus, 0) AS local_gpus
        FROM retally.stored_in(p_show_ids, p_totals) AS s
        FULL JOIN retally.booked_in(p_show_ids, p_totals, NULL) AS b
            ON
                s.key = b.key
                AND s.total = b.total
                -- the other totals have keys that are unique in the farm
                AND CASE WHEN s.total IN ('subscription', 'point') THEN s.show_id ELSE '' END
                = coalesce(b.show_id, '')
        WHERE
            s.total IS NULL
            OR s.cores <> coalesce(b.cores, 0)
            OR s.gpus <> coalesce(b.gpus, 0)
            OR s.local_cores <> coalesce(b.local_cores, 0)
            OR s.local_gpus <> coalesce(b.local_gpus, 0)
    ),

    homes AS MATERIALIZED (
        SELECT
            p.*,
            coalesce(p.show_id, retally.home(p.told_show_id, p.total, p.key)) AS home
        FROM pairs AS p
    )

    SELECT
        h.home,
        h.total,
        h.key,
        CASE WHEN h.show_id IS NULL THEN 'missing' ELSE 'row' END,
        h.was_cores,
        h.was_gpus,
        h.was_local_cores,
        h.was_local_gpus,
        h.cores,
        h.gpus,
        h.local_cores,
        h.local_gpus
    FROM homes AS h
    WHERE h.home = any(p_show_ids)
    UNION ALL
    SELECT
        o.show_id,
        o.total,
        o.key,
        'orphan',
        NULL,
        NULL,
        NULL,
        NULL,
        o.cores,
        o.gpus,
        0,
        0
    FROM (
        SELECT
            coalesce(array_agg(h.total), '{}') AS totals,
            coalesce(array_agg(h.key), '{}') AS keys
        FROM homes AS h
        WHERE h.home IS NULL
    ) AS lost
    CROSS JOIN LATERAL retally.orphans_in(p_show_ids, lost.totals, lost.keys) AS o
$$;
COMMENT ON FUNCTION retally.compared(text[], text[]) IS
'Where stored and booked differ, one row per key.';
