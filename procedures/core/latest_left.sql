-- What the latest pass over a total of a scope has left, by whatever tick: rows adrift (of who
-- writes those that were busy) and by how much, rows that cannot be made exact, and why. No row
-- where no pass is known. core_units, gpus: null where no row is adrift.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.latest_left(p_scope text, p_total text)
RETURNS TABLE (
    rows_adrift bigint, rows_failed bigint, core_units numeric, gpus numeric, problems text[]
)
LANGUAGE sql STABLE
AS $$
    WITH latest AS (
        SELECT
            p.*,
            CASE
                WHEN p.action IN ('rebuilt', 'folded', 'repaired') THEN p.rows_deferred
                ELSE p.rows_adrift
            END AS rows_left
        FROM retally.pass AS p
        WHERE p.scope = p_scope AND p.total = p_total
        ORDER BY p.finished_at DESC
        LIMIT 1
    )

    SELECT
        l.rows_left,
        l.rows_failed,
        CASE WHEN l.rows_left > 0 THEN l.core_units_adrift END,
        CASE WHEN l.rows_left > 0 THEN l.gpus_adrift END,
        l.problems
    FROM latest AS l
$$;
COMMENT ON FUNCTION retally.latest_left(text, text) IS
'What the latest pass over a total of a scope has left.';
