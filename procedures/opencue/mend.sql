-- Lock, sum again, write: what was found adrift, of one show or several. The second sum decides
-- what is written: a finding only says where to look, and may be old. One row per finding: rows
-- deferred are still busy, failed ones among the problems; changes only for p_action repaired.
-- p_goes_on: with a pass of rebuild() that has left these rows; they are kept as one.
-- Locks: the shows' writer locks, then the rows adrift, in the order of the booking path. p_wait:
-- see patient_keys(). Writes: the totals, and as keep_passes(). Raises RT003, RT005.
CREATE OR REPLACE FUNCTION retally.mend(
    p_findings retally.finding[], p_wait boolean, p_action text DEFAULT 'rebuilt',
    p_tick text DEFAULT 'by hand', p_worker text DEFAULT current_user,
    p_goes_on boolean DEFAULT FALSE
)
RETURNS TABLE (
    show_id text, total text, rows_adrift bigint, rows_changed bigint, rows_deferred bigint,
    rows_failed bigint, core_units numeric, gpus numeric, seconds double precision,
    problems text[], changes retally.change[]
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
-- the plans have to follow the number of keys
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_started timestamptz := clock_timestamp();
    v_deadline timestamptz := v_started + retally.lock_budget();
    -- a transaction that has written before may have rows of the farm locked
    v_holding boolean := pg_current_xact_id_if_assigned() IS NOT NULL;
    v_done record;
BEGIN
    PERFORM retally.hold_scope(f.show_id, p_wait)
    FROM unnest(p_findings) AS f
    GROUP BY f.show_id
    ORDER BY f.show_id;

    FOR v_done IN
        SELECT
            (d.finding).*,
            d.rows_changed,
            d.busy,
            d.problems AS new_problems,
            d.changes
        FROM retally.mend_rows(
            ARRAY(
                SELECT f
                FROM unnest(p_findings) AS f
                ORDER BY f.show_id, array_position(retally.totals(), f.total)
            ),
            p_wait, v_deadline, v_holding, p_action = 'repaired'
        ) AS d
    LOOP
        show_id := v_done.show_id;
        total := v_done.total;
        rows_adrift := v_done.rows_adrift;
        rows_changed := v_done.rows_changed;
        rows_deferred := cardinality(v_done.busy);
        rows_failed := v_done.rows_failed + cardinality(v_done.new_problems);
        core_units := v_done.core_units;
        gpus := v_done.gpus;
        problems := v_done.problems || v_done.new_problems;
        changes := v_done.changes;
        seconds := extract(EPOCH FROM clock_timestamp() - v_started);
        PERFORM retally.keep_passes(
            ARRAY[
                ROW(
                    show_id, p_tick, total, p_action, p_worker, clock_timestamp(), seconds,
                    rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus,
                    problems, CASE WHEN p_goes_on THEN 0 END, NULL, NULL
                )::retally.pass
            ],
            ARRAY[ROW(show_id, total, '{}', v_done.busy)::retally.seizure]
        );
        v_started := clock_timestamp();
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION retally.mend(retally.finding[], boolean, text, text, text, boolean) IS
'Lock, sum again, write: what was found adrift.';
