-- Folds the journal of these shows into the totals, all five: each entry exactly once, in the
-- transaction that removes it. All entries are folded or, where rows stay busy, none.
-- p_wait: look at busy rows again and again for the lock budget; otherwise for 50 ms. One row per
-- show and total.
-- rows_failed: rows that are missing, or cannot take the sum; the next full pass names them. Beside
-- it what the latest pass has left is kept of a fold, which looks for nothing.
-- Locks: the shows' writer locks, then all rows or none. Writes: the totals, retally.journal, and
-- as note_passes(). Raises RT003, RT005.
CREATE OR REPLACE FUNCTION retally.fold(
    p_show_ids text[], p_wait boolean, p_tick text DEFAULT 'by hand',
    p_worker text DEFAULT current_user
)
RETURNS TABLE (
    show_id text, total text, rows_adrift bigint, rows_changed bigint, rows_deferred bigint,
    rows_failed bigint, core_units numeric, gpus numeric, seconds double precision, problems text[]
)
LANGUAGE plpgsql VOLATILE
-- the farm's triggers call their helpers unqualified
SET search_path = public, pg_temp
SET jit = off
SET work_mem = '64MB'
-- what every pass reads is in memory
SET random_page_cost = 1.1
-- hashing the keys is several times faster than sorting them
SET enable_mergejoin = off
-- the plans have to follow the number of entries
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_started timestamptz := clock_timestamp();
    v_totals text[] := retally.totals();
    v_show_ids text[] := ARRAY(
        SELECT DISTINCT f.scope
        FROM retally.scope_flag AS f
        WHERE f.scope = ANY (p_show_ids) AND f.journaled
        ORDER BY f.scope
    );
    v_deadline timestamptz := v_started
    + CASE WHEN p_wait THEN retally.lock_budget() ELSE interval '50 milliseconds' END;
    v_sums record;
    v_written retally.delta[];
BEGIN
    IF cardinality(v_show_ids) = 0 THEN
        RETURN;
    END IF;
    PERFORM retally.hold_scope(s.show_id, p_wait)
    FROM unnest(v_show_ids) AS s (show_id);
    LOOP
        BEGIN
            SELECT
                -- neighbours in the index, one after the other
                coalesce(
                    array_agg(o.delta ORDER BY (o.delta).key COLLATE "C")
                    FILTER (WHERE NOT o.lost),
                    '{}'
                ) AS deltas,
                coalesce(array_agg(o.delta) FILTER (WHERE o.lost), '{}') AS lost
            INTO v_sums
            FROM retally.take_out(v_show_ids) AS o;
            EXIT WHEN retally.hold_deltas(v_sums.deltas);
            RAISE EXCEPTION USING ERRCODE = 'RT000', MESSAGE = 'let go';
        EXCEPTION
            -- the entries are back, and no row is held: who holds none can be part of no cycle
            WHEN SQLSTATE 'RT000' THEN NULL;
        END;
        IF clock_timestamp() > v_deadline THEN
            RAISE EXCEPTION 'rows of totals that the journal adds to are locked by others'
                USING ERRCODE = 'RT005', HINT = 'Try again in a moment.';
        END IF;
        PERFORM pg_sleep(0.005);
    END LOOP;
    v_written := ARRAY(SELECT a FROM retally.add_what_fits(v_sums.deltas) AS a);

    RETURN QUERY
    WITH kept AS MATERIALIZED (
        SELECT
            s.show_id,
            t.total,
            count(w.key) AS changed,
            count(d.key) - count(w.key) AS failed,
            coalesce(
                (
                    array_agg(retally.problem('unfolded', d.total, d.key, d.cores, d.gpus))
                    FILTER (WHERE d.key IS NOT NULL AND w.key IS NULL)
                )[1:20],
                '{}'
            ) AS problems
        FROM unnest(v_show_ids) AS s (show_id)
        CROSS JOIN unnest(v_totals) AS t (total)
        LEFT JOIN unnest(v_sums.deltas || v_sums.lost) AS d
            ON s.show_id = d.scope AND t.total = d.total
        LEFT JOIN unnest(v_written) AS w
            ON d.scope = w.scope AND d.total = w.total AND d.key = w.key
        GROUP BY s.show_id, t.total
    ),

    noted AS (
        SELECT
            retally.keep_passes(
                ARRAY(
                    SELECT
                        ROW(
                            k.show_id, p_tick, k.total, 'folded', p_worker, clock_timestamp(),
                            extract(EPOCH FROM clock_timestamp() - v_started),
                            coalesce(p.rows_adrift, 0), k.changed, coalesce(p.rows_adrift, 0),
                            greatest(k.failed, p.rows_failed), coalesce(p.core_units, 0),
                            coalesce(p.gpus, 0),
                            (
                                coalesce(p.problems, '{}') || ARRAY(
                                    SELECT n.problem
                                    FROM unnest(k.problems) AS n (problem)
                                    WHERE n.problem <> ALL (coalesce(p.problems, '{}'))
                                )
                            )[1:20],
                            NULL, NULL, NULL
                        )::retally.pass
                    FROM kept AS k
                    LEFT JOIN LATERAL retally.latest_left(k.show_id, k.total) AS p ON TRUE
                )
            )
    )

    SELECT
        k.show_id,
        k.total,
        0::bigint,
        k.changed,
        0::bigint,
        k.failed,
        0::numeric,
        0::numeric,
        extract(EPOCH FROM clock_timestamp() - v_started)::double precision,
        k.problems
    FROM kept AS k
    CROSS JOIN noted AS n
    ORDER BY k.show_id, array_position(v_totals, k.total);
END
$$;
COMMENT ON FUNCTION retally.fold(text[], boolean, text, text) IS
'Folds the journal of these shows into the totals, each entry exactly once.';
