-- Where stored (was_…) and booked differ, one row per key; the base of every pass and of drift().
-- Cores in core units; 0 booked where no proc says anything. kind: row (a total to correct),
-- missing (the farm knows the thing, its row is not there), orphan (procs of this show name a
-- layer or job that the farm does not know).
-- p_show_ids: null for all shows, which reads every proc just once; see read_for(). p_source:
-- procs, or owed (see procs_of()).
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.compared(
    p_show_ids text[], p_totals text[], p_source text
)
RETURNS SETOF retally.comparison
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    WITH pairs AS (
        SELECT
            s.show_id,
            s.job_id,
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
        FROM retally.stored_in(p_show_ids, p_totals, FALSE) AS s
        FULL JOIN retally.booked_in(p_show_ids, p_totals, NULL, p_source) AS b
            ON
                s.key = b.key
                AND s.total = b.total
                -- the other totals have keys that are unique in the farm
                AND CASE WHEN s.total IN ('subscription', 'point') THEN s.show_id ELSE '' END
                = coalesce(b.show_id, '')
        -- where procs hold nothing, no row is missed
        WHERE
            coalesce(s.cores, 0) <> coalesce(b.cores, 0)
            OR coalesce(s.gpus, 0) <> coalesce(b.gpus, 0)
            OR coalesce(s.local_cores, 0) <> coalesce(b.local_cores, 0)
            OR coalesce(s.local_gpus, 0) <> coalesce(b.local_gpus, 0)
    ),

    homes AS MATERIALIZED (
        SELECT
            p.*,
            coalesce(p.show_id, j.pk_show, h.show_id) AS home,
            -- a row that is there and was not matched is one of the zeros
            CASE WHEN h.has_row THEN 0 END AS zero
        FROM pairs AS p
        LEFT JOIN public.job AS j ON p.show_id IS NULL AND p.job_id = j.pk_job::text
        LEFT JOIN LATERAL (
            SELECT h.*
            FROM retally.home(p.told_show_id, p.total, p.key) AS h
            WHERE p.was_cores IS NULL
            -- asked inside, since a condition of the join is looked at after the answer
            OFFSET 0 -- noqa: AM09
        ) AS h ON TRUE
    )

    SELECT
        h.home,
        h.total,
        h.key,
        CASE WHEN coalesce(h.was_cores, h.zero) IS NULL THEN 'missing' ELSE 'row' END,
        coalesce(h.was_cores, h.zero),
        coalesce(h.was_gpus, h.zero),
        CASE WHEN h.total = 'job' THEN coalesce(h.was_local_cores, h.zero) END,
        CASE WHEN h.total = 'job' THEN coalesce(h.was_local_gpus, h.zero) END,
        h.cores,
        h.gpus,
        h.local_cores,
        h.local_gpus
    FROM homes AS h
    WHERE h.home IS NOT NULL AND (p_show_ids IS NULL OR h.home = any(p_show_ids))
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
COMMENT ON FUNCTION retally.compared(text[], text[], text) IS
'Where stored and booked differ, one row per key.';
