-- Rebuilds these totals of those of these shows that nobody else is writing, all in one go: for
-- managed shows. One row per show and total.
-- The sums are read once, after the shows' writer locks, and written into the rows that still hold
-- what was found: whoever keeps the totals changes row and procs alike, so that these lack as much
-- as they did. Who books through retally changes the procs alone; such a row is true as of the
-- finding. All other rows are left for mend(): rows_deferred, in a pass that is to follow.
-- p_wait: wait for the shows, as in hold_scopes(). No row is waited for.
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
        FROM retally.adrift(v_held, p_totals) AS a
        RIGHT JOIN unnest(p_totals) AS t (total) ON a.total = t.total
        GROUP BY t.total
        ORDER BY array_position(ARRAY['layer', 'job', 'folder', 'point', 'subscription'], t.total)
    LOOP
        v_found := v_found || ARRAY(
            SELECT f
            FROM retally.findings_of(v_part.rows_adrift, v_held, ARRAY[v_part.total]) AS f
        );
        CONTINUE WHEN cardinality(v_part.rows_adrift) = 0;
        v_left := v_left || retally.write_found(v_part.total, v_part.rows_adrift);
    END LOOP;

    WITH rows_left AS (
        SELECT
            l.show_id,
            l.total,
            count(*) AS number
        FROM unnest(v_left) AS l
        GROUP BY l.show_id, l.total
    )

    SELECT
        coalesce(
            array_agg(
                ROW(
                    f.show_id, p_tick, f.total, 'rebuilt', p_worker, clock_timestamp(),
                    extract(EPOCH FROM clock_timestamp() - v_started), f.rows_adrift,
                    f.rows_adrift - coalesce(l.number, 0), coalesce(l.number, 0), f.rows_failed,
                    f.core_units, f.gpus, f.problems, NULL, NULL, NULL
                )::retally.pass
                ORDER BY f.show_id, array_position(retally.totals(), f.total)
            ),
            '{}'
        ) AS passes,
        coalesce(
            array_agg(ROW(f.show_id, f.total, '{}', '{}')::retally.seizure)
            FILTER (WHERE l.number IS NULL),
            '{}'
        ) AS seizures
    INTO v_outcome
    FROM unnest(v_found) AS f
    LEFT JOIN rows_left AS l ON f.show_id = l.show_id AND f.total = l.total;

    PERFORM retally.keep_passes(v_outcome.passes, v_outcome.seizures);
    RETURN QUERY
    SELECT p.*
    FROM unnest(v_outcome.passes) AS p;
END
$$;
COMMENT ON FUNCTION retally.rebuild(text[], text[], boolean, text, text) IS
'Rebuilds these totals of those of these shows that nobody else is writing.';
