-- What adrift() has found in these totals of these shows, one finding per show and total, quiet
-- ones too, in the order of the booking path. core_units, gpus: drift as absolute sums.
-- rows_failed: rows that are missing; problems names these, and what procs name and the farm does
-- not know.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.findings_of(
    p_rows retally.comparison[], p_show_ids text[], p_totals text[]
)
RETURNS SETOF retally.finding
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    WITH sizes AS (
        SELECT
            c.*,
            c.kind = 'row' AS is_row,
            abs(c.was_cores - c.cores)
            + abs(coalesce(c.was_local_cores, 0) - c.local_cores) AS core_units,
            abs(c.was_gpus - c.gpus)
            + abs(coalesce(c.was_local_gpus, 0) - c.local_gpus) AS gpu_units
        FROM unnest(p_rows) AS c
    ),

    found AS (
        SELECT
            z.show_id,
            z.total,
            -- in no order, since sorting many keys takes longer than finding them
            array_agg(z.key) FILTER (WHERE z.is_row) AS keys,
            count(*) FILTER (WHERE z.is_row) AS adrift,
            count(*) FILTER (WHERE z.kind = 'missing') AS failed,
            sum(z.core_units) FILTER (WHERE z.is_row) AS core_units,
            sum(z.gpu_units) FILTER (WHERE z.is_row) AS gpu_units,
            array_agg(retally.problem(z.kind, z.total, z.key, z.cores, z.gpus))
            FILTER (WHERE NOT z.is_row) AS problems
        FROM sizes AS z
        GROUP BY z.show_id, z.total
    )

    SELECT
        s.show_id,
        t.total,
        coalesce(f.keys, '{}'),
        coalesce(f.adrift, 0),
        coalesce(f.failed, 0),
        coalesce(f.core_units, 0),
        coalesce(f.gpu_units, 0),
        CASE
            WHEN cardinality(n.problems) > 20
                THEN n.problems[1:20] || format('%s: and %s more like these', t.total, cardinality(n.problems) - 20)
            ELSE n.problems
        END
    FROM unnest(p_show_ids) AS s (show_id)
    CROSS JOIN unnest(retally.totals()) WITH ORDINALITY AS t (total, place)
    LEFT JOIN found AS f ON s.show_id = f.show_id AND t.total = f.total
    CROSS JOIN LATERAL (
        SELECT ARRAY(SELECT p.problem FROM unnest(f.problems) AS p (problem) ORDER BY p.problem)
    ) AS n (problems)
    WHERE t.total = ANY (p_totals)
    ORDER BY s.show_id, t.place;
END
$$;
COMMENT ON FUNCTION retally.findings_of(retally.comparison[], text[], text[]) IS
'What was found adrift, one finding per show and total.';
