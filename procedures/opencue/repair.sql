-- Mends what was found adrift in one unmanaged show, keeps before and after in the ledger, and
-- refuses to change too much at once unless p_force. p_run, p_worker, p_cause: as in note_run().
-- Result: mend()'s, and the run; null while nothing was changed.
-- Locks and writes as mend(), then as note_run(). Raises RT003, RT005, RT015, 55P03.
CREATE OR REPLACE FUNCTION retally.repair(
    p_findings retally.finding[], p_wait boolean, p_tick text, p_worker text, p_cause text,
    p_force boolean, p_run bigint
)
RETURNS TABLE (
    run bigint, show_id text, total text, rows_adrift bigint, rows_changed bigint,
    rows_deferred bigint, rows_failed bigint, core_units numeric, gpus numeric,
    seconds double precision, problems text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_show_id text;
    v_totals text[];
    v_guarded boolean;
    v_changes retally.change[] := '{}';
    v_row record;
BEGIN
    SELECT
        min(f.show_id),
        array_agg(f.total),
        NOT p_force AND sum(f.rows_adrift) > 0
    INTO v_show_id, v_totals, v_guarded
    FROM unnest(p_findings) AS f;
    IF v_guarded THEN
        -- what the findings say may be old, and another repair may just be at it
        PERFORM retally.hold_scope(v_show_id, p_wait);
        PERFORM retally.refuse_large_repair(v_show_id, v_totals, NULL);
    END IF;

    run := p_run;
    FOR v_row IN
        SELECT m.*
        FROM retally.mend(p_findings, p_wait, 'repaired', p_tick, p_worker) AS m
    LOOP
        run := retally.note_run(
            run, p_worker, p_cause, p_force, NULL, v_row.show_id, v_row.changes,
            retally.likely_causes(v_row.changes)
        );
        v_changes := v_changes || v_row.changes;
        show_id := v_row.show_id;
        total := v_row.total;
        rows_adrift := v_row.rows_adrift;
        rows_changed := v_row.rows_changed;
        rows_deferred := v_row.rows_deferred;
        rows_failed := v_row.rows_failed;
        core_units := v_row.core_units;
        gpus := v_row.gpus;
        seconds := v_row.seconds;
        problems := v_row.problems;
        RETURN NEXT;
    END LOOP;

    IF v_guarded THEN
        -- procs may have gone between the first look and the second sum
        PERFORM retally.refuse_large_repair(v_show_id, v_totals, v_changes);
    END IF;
END
$$;
COMMENT ON FUNCTION retally.repair(
    retally.finding[], boolean, text, text, text, boolean, bigint
) IS 'Mends what was found adrift in one unmanaged show, and keeps before and after.';
