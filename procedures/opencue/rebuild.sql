-- Rebuilds these totals of those of these shows that nobody else is writing, all in one go: for
-- managed shows. One row per show and total.
-- The sums are read once, after the shows' writer locks: a row that still holds what was found has
-- had no booking since, which would have changed it along with its procs. A row that was written
-- meanwhile is summed again under its lock. No row is waited for: rows_deferred are left for
-- mend(), which can wait for them with empty hands.
-- p_wait: wait for the shows, as in hold_scopes().
-- Locks: the shows' writer locks, then the rows adrift; those last that many bookings share.
-- Writes: the totals, and as keep_passes(). Raises RT003, RT004.
CREATE OR REPLACE FUNCTION retally.rebuild(
    p_show_ids text[], p_totals text[], p_wait boolean, p_tick text DEFAULT 'by hand',
    p_worker text DEFAULT current_user
)
RETURNS SETOF retally.pass
LANGUAGE plpgsql VOLATILE
-- the farm's triggers call their helpers unqualified
SET search_path = public, pg_temp
SET jit = off
SET work_mem = '64MB'
-- what every pass reads is in memory
SET random_page_cost = 1.1
-- hashing the keys is several times faster than sorting them
SET enable_mergejoin = off
-- the plans have to follow the number of keys
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_started timestamptz := clock_timestamp();
    v_held text[] := retally.hold_scopes(p_show_ids, p_wait);
    v_part record;
    v_left retally.comparison[] := '{}';
    v_found retally.finding[] := '{}';
    v_outcome record;
BEGIN
    FOR v_part IN
        SELECT
            t.total,
            coalesce(array_agg(a) FILTER (WHERE a.total IS NOT NULL), '{}') AS rows_adrift
        FROM unnest(p_totals) AS t (total)
        LEFT JOIN retally.adrift(v_held, p_totals) AS a ON t.total = a.total
        GROUP BY t.total
        -- few rows, many bookings
        ORDER BY count(a.total) DESC
    LOOP
        v_found := v_found || ARRAY(
            SELECT f
            FROM retally.findings_of(v_part.rows_adrift, v_held, ARRAY[v_part.total]) AS f
        );
        CONTINUE WHEN cardinality(v_part.rows_adrift) = 0;
        v_left := v_left || retally.write_found(v_part.total, v_part.rows_adrift);
    END LOOP;

    WITH mended AS MATERIALIZED (
        SELECT
            (m.finding).show_id,
            (m.finding).total,
            (m.finding).rows_adrift - m.rows_changed AS rows_left,
            m.busy,
            m.problems
        FROM retally.mend_rows(
            ARRAY(
                SELECT f
                FROM retally.findings_of(v_left, v_held, p_totals) AS f
                WHERE f.rows_adrift > 0
            ),
            FALSE, clock_timestamp(), TRUE, FALSE
        ) AS m
        WHERE cardinality(v_left) > 0
    )

    SELECT
        coalesce(
            array_agg(
                ROW(
                    f.show_id, p_tick, f.total, 'rebuilt', p_worker, clock_timestamp(),
                    extract(EPOCH FROM clock_timestamp() - v_started), f.rows_adrift,
                    f.rows_adrift - coalesce(m.rows_left, 0), coalesce(cardinality(m.busy), 0),
                    f.rows_failed + coalesce(cardinality(m.problems), 0), f.core_units, f.gpus,
                    f.problems || m.problems, NULL, NULL, NULL
                )::retally.pass
                ORDER BY f.show_id, array_position(retally.totals(), f.total)
            ),
            '{}'
        ) AS passes,
        coalesce(
            array_agg(ROW(f.show_id, f.total, '{}', '{}')::retally.seizure)
            FILTER (WHERE coalesce(m.busy, '{}') = '{}'),
            '{}'
        ) AS seizures
    INTO v_outcome
    FROM unnest(v_found) AS f
    LEFT JOIN mended AS m ON f.show_id = m.show_id AND f.total = m.total;

    PERFORM retally.keep_passes(v_outcome.passes, v_outcome.seizures);
    RETURN QUERY
    SELECT p.*
    FROM unnest(v_outcome.passes) AS p;
END
$$;
COMMENT ON FUNCTION retally.rebuild(text[], text[], boolean, text, text) IS
'Rebuilds these totals of those of these shows that nobody else is writing.';
