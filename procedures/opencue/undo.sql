-- Puts back what a repair changed, show by show: undo_scope() for each show of the run.
-- p_run: as in retally.run; an undo can be undone. run: the one that it is in the ledger itself.
-- A show that is rebuilt or repaired by the ticks will be made exact again by its next pass.
-- Locks and writes as undo_scope(); not committed here. Raises as undo_scope(), and RT016.
CREATE OR REPLACE PROCEDURE retally.undo(
    p_run bigint,
    INOUT run bigint DEFAULT NULL,
    INOUT rows_restored bigint DEFAULT NULL,
    INOUT rows_kept bigint DEFAULT NULL,
    INOUT rows_deferred bigint DEFAULT NULL,
    INOUT problems text[] DEFAULT NULL
)
LANGUAGE plpgsql
AS $$
DECLARE
    v_scope text;
    v_done record;
BEGIN
    IF NOT EXISTS (SELECT FROM retally.run AS r WHERE r.run = p_run) THEN
        RAISE EXCEPTION 'there is no run %', coalesce(p_run::text, 'null')
            USING ERRCODE = 'RT016', HINT = '`retally ledger` lists the runs; old ones are pruned.';
    END IF;
    SELECT NULL, 0, 0, 0, '{}'
    INTO run, rows_restored, rows_kept, rows_deferred, problems;
    FOR v_scope IN
        SELECT DISTINCT l.scope
        FROM retally.ledger AS l
        WHERE l.run = p_run
        ORDER BY l.scope
    LOOP
        SELECT u.*
        INTO v_done
        FROM retally.undo_scope(p_run, v_scope, current_user::text, run) AS u;
        run := v_done.run;
        rows_restored := rows_restored + v_done.rows_restored;
        rows_kept := rows_kept + v_done.rows_kept;
        rows_deferred := rows_deferred + v_done.rows_deferred;
        problems := problems || v_done.problems;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE retally.undo (bigint, bigint, bigint, bigint, bigint, text []) IS
'Puts back what a repair changed, where the rows still hold what it wrote.';
