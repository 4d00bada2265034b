-- Puts back what a run changed in one show, where the rows still hold what it wrote, as a run of
-- its own in the ledger: p_new_run, null for a new one. rows_kept: rows that hold another value by
-- now, or are gone; rows_deferred: rows that stayed locked. Both are left as they are.
-- Locks: the show's writer lock, the rows in the order of the booking path. Writes: the totals, and
-- as note_run(). Raises RT003, RT005, 55P03; RT017 for a show that the ticks rebuild.
CREATE OR REPLACE FUNCTION retally.undo_scope(
    p_run bigint, p_scope text, p_worker text, p_new_run bigint,
    OUT run bigint, OUT rows_restored bigint, OUT rows_kept bigint, OUT rows_deferred bigint,
    OUT problems text[]
)
LANGUAGE plpgsql VOLATILE
-- the farm's triggers call their helpers unqualified
SET search_path = public, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_deadline timestamptz := clock_timestamp() + retally.lock_budget();
    v_holding boolean := pg_current_xact_id_if_assigned() IS NOT NULL;
    v_rebuilt record;
    v_total text;
    v_keys text[];
    v_held text[];
    v_busy text[];
    v_now retally.amount[];
    v_former retally.amount[];
    v_done record;
    v_changes retally.change[] := '{}';
BEGIN
    PERFORM retally.hold_scope(p_scope, TRUE);
    -- caps are judged by these totals, and its bookings do not keep them
    SELECT
        s.name,
        s.managed
    INTO v_rebuilt
    FROM retally.shows() AS s
    WHERE s.show_id = p_scope AND s.rebuilt;
    IF FOUND THEN
        RAISE EXCEPTION 'show "%" is managed: its totals are not put back to what they were',
            v_rebuilt.name
            USING ERRCODE = 'RT017',
                HINT = CASE
                    WHEN v_rebuilt.managed
                        THEN format('`retally managed --show %s off` first.', v_rebuilt.name)
                    ELSE
                        'Clear its flag in the farm (show.b_scheduler_managed) first, or '
                        'retally.setting.follow_farm_flag.'
                END;
    END IF;

    SELECT 0, 0, 0, '{}'
    INTO rows_restored, rows_kept, rows_deferred, problems;
    FOREACH v_total IN ARRAY retally.totals() LOOP
        v_keys := ARRAY(
            SELECT DISTINCT l.key
            FROM retally.ledger AS l
            WHERE l.run = p_run AND l.scope = p_scope AND l.total = v_total
        );
        CONTINUE WHEN cardinality(v_keys) = 0;
        SELECT s.held, s.busy
        INTO v_held, v_busy
        FROM retally.seize_rows(p_scope, v_total, v_keys, TRUE, v_deadline, v_holding) AS s;
        v_holding := v_holding OR cardinality(v_held) > 0;

        v_now := ARRAY(SELECT a FROM retally.amounts_in(p_scope, v_total, v_held) AS a);
        v_former := ARRAY(SELECT f FROM retally.former_amounts(p_run, p_scope, v_total, v_now) AS f);
        SELECT w.*
        INTO v_done
        FROM retally.write_what_fits(p_scope, v_total, v_former) AS w;
        v_changes := v_changes || ARRAY(
            SELECT c
            FROM retally.changes_between(v_total, v_now, v_former) AS c
            WHERE c.key IN (SELECT k.key FROM unnest(v_done.written) AS k (key))
        );
        rows_restored := rows_restored + cardinality(v_done.written);
        rows_deferred := rows_deferred + cardinality(v_busy);
        rows_kept := rows_kept + cardinality(v_keys) - cardinality(v_busy) - cardinality(v_former);
        problems := problems || ARRAY(
            SELECT
                format(
                    '%s %s: the farm does not take back what it held%s',
                    v_total, retally.row_name(v_total, m.key), ': ' || m.refusal
                )
            FROM unnest(v_done.misfits, v_done.refusals) AS m (key, refusal)
        );
    END LOOP;
    run := retally.note_run(
        p_new_run, p_worker, format('undo of run %s', p_run), FALSE, p_run, p_scope, v_changes,
        NULL
    );
END
$$;
COMMENT ON FUNCTION retally.undo_scope(bigint, text, text, bigint) IS
'Puts back what a run changed in one show, where the rows still hold what it wrote.';
