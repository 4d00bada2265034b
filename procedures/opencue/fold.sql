-- Folds the journal of these shows into the totals, all five: each entry exactly once, in the
-- transaction that removes it. All entries are folded or, where rows stay busy, none.
-- p_wait: wait for busy rows for the lock budget; otherwise 50 ms. One row per show and total.
-- rows_failed: rows that are missing, or cannot take the sum; the next full pass names them.
-- Locks: the shows' writer locks, then the rows, in the order of the booking path. Writes: the
-- totals, retally.journal, and as note_passes(). Raises RT003, RT005.
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
    v_before text;
    v_deltas retally.delta[];
    v_written retally.delta[];
BEGIN
    IF cardinality(v_show_ids) = 0 THEN
        RETURN;
    END IF;
    PERFORM retally.hold_scope(s.show_id, p_wait)
    FROM unnest(v_show_ids) AS s (show_id);
    BEGIN
        v_before := retally.set_lock_timeout(
            CASE WHEN p_wait THEN retally.lock_budget() ELSE interval '50 milliseconds' END
        );
        -- what is summed is what is removed: both parts see the same snapshot, and nobody else
        -- folds these shows meanwhile
        WITH gone AS (
            DELETE FROM retally.journal AS j
            WHERE j.scope = ANY (v_show_ids)
        ),

        sums AS MATERIALIZED (
            SELECT b.*
            FROM retally.booked_in(v_show_ids, v_totals, NULL, 'journal') AS b
            WHERE b.cores <> 0 OR b.gpus <> 0 OR b.local_cores <> 0 OR b.local_gpus <> 0
        )

        SELECT
            coalesce(
                array_agg(
                    ROW(
                        h.show_id, s.total, s.key, s.cores, s.gpus, s.local_cores, s.local_gpus
                    )::retally.delta
                ),
                '{}'
            )
        INTO v_deltas
        FROM sums AS s
        -- what the farm does not know is told by the next full pass
        CROSS JOIN LATERAL retally.home(s.show_id, s.total, s.key) AS h;

        v_written := ARRAY(SELECT a FROM retally.add_deltas(v_deltas) AS a);
        PERFORM set_config('lock_timeout', v_before, TRUE);
    EXCEPTION
        WHEN lock_not_available THEN
            RAISE EXCEPTION 'rows of totals that the journal adds to are locked by others'
                USING ERRCODE = 'RT005', HINT = 'Try again in a moment.';
    END;

    RETURN QUERY
    WITH kept AS MATERIALIZED (
        SELECT
            s.show_id,
            t.total,
            count(w.key) AS changed,
            count(d.key) - count(w.key) AS failed,
            coalesce(
                array_agg(retally.problem('unfolded', d.total, d.key, d.cores, d.gpus))
                FILTER (WHERE d.key IS NOT NULL AND w.key IS NULL),
                '{}'
            ) AS problems
        FROM unnest(v_show_ids) AS s (show_id)
        CROSS JOIN unnest(v_totals) AS t (total)
        LEFT JOIN unnest(v_deltas) AS d ON s.show_id = d.scope AND t.total = d.total
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
                            extract(EPOCH FROM clock_timestamp() - v_started), 0, k.changed, 0,
                            k.failed, 0, 0, k.problems, NULL, NULL, NULL
                        )::retally.pass
                    FROM kept AS k
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
