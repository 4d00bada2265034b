-- Passes added up to one row per show, in the order in which they are given.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.added_up(p_passes retally.pass[])
RETURNS TABLE (
    show_id text, rows_adrift bigint, rows_changed bigint, rows_deferred bigint,
    rows_failed bigint, core_units numeric, gpus numeric, problems text[]
)
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN QUERY
    SELECT
        p.scope,
        sum(p.rows_adrift)::bigint,
        sum(p.rows_changed)::bigint,
        sum(p.rows_deferred)::bigint,
        sum(p.rows_failed)::bigint,
        sum(p.core_units_adrift),
        sum(p.gpus_adrift),
        ARRAY(
            SELECT e.problem
            FROM unnest(p_passes) AS o
            CROSS JOIN LATERAL unnest(o.problems) AS e (problem)
            WHERE o.scope = p.scope
        )
    FROM unnest(p_passes) WITH ORDINALITY AS p
    GROUP BY p.scope
    ORDER BY min(p.ordinality);
END
$$;
COMMENT ON FUNCTION retally.added_up(retally.pass[]) IS 'Passes added up to one row per show.';
