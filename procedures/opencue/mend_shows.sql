-- Rebuilds what was found, by hand: one row per show, what mend() says of its totals added up.
-- Shows in which nothing is adrift are kept as passes in one go.
-- Parameters, locks, writes and errors as of mend().
CREATE OR REPLACE FUNCTION retally.mend_shows(p_findings retally.finding[], p_wait boolean)
RETURNS TABLE (
    show_id text, rows_adrift bigint, rows_changed bigint, rows_deferred bigint,
    rows_failed bigint, core_units numeric, gpus numeric, problems text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_adrift text[] := ARRAY(
        SELECT DISTINCT f.show_id FROM unnest(p_findings) AS f WHERE f.rows_adrift > 0
    );
    v_quiet retally.finding[] := ARRAY(
        SELECT f FROM unnest(p_findings) AS f WHERE f.show_id <> ALL (v_adrift)
    );
BEGIN
    PERFORM retally.keep_quiet(v_quiet);
    RETURN QUERY
    WITH passes AS MATERIALIZED (
        SELECT
            m.show_id,
            m.rows_adrift,
            m.rows_changed,
            m.rows_deferred,
            m.rows_failed,
            m.core_units,
            m.gpus,
            m.problems
        FROM
            retally.mend(
                ARRAY(SELECT f FROM unnest(p_findings) AS f WHERE f.show_id = ANY (v_adrift)),
                p_wait
            ) AS m
        UNION ALL
        SELECT
            q.show_id,
            0,
            0,
            0,
            q.rows_failed,
            0,
            0,
            q.problems
        FROM unnest(v_quiet) AS q
    )

    SELECT
        p.show_id,
        sum(p.rows_adrift)::bigint,
        sum(p.rows_changed)::bigint,
        sum(p.rows_deferred)::bigint,
        sum(p.rows_failed)::bigint,
        sum(p.core_units),
        sum(p.gpus),
        ARRAY(
            SELECT e.problem
            FROM passes AS o
            CROSS JOIN LATERAL unnest(o.problems) AS e (problem)
            WHERE o.show_id = p.show_id
        )
    FROM passes AS p
    GROUP BY p.show_id;
END
$$;
COMMENT ON FUNCTION retally.mend_shows(retally.finding[], boolean) IS
'What mend() says of its findings, added up to one row per show.';
