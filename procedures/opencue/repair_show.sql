-- Repairs the totals of one show by hand: recompute_show() with the ledger, refused when it would
-- change too much at once, unless p_force. p_show: name or id. p_wait: wait for busy rows.
-- run: for undo(); null when nothing was changed. The other results, locks and writes as repair().
-- Raises RT001 to RT003, RT005, RT015; not committed here.
CREATE OR REPLACE PROCEDURE retally.repair_show(
    p_show text,
    p_force boolean DEFAULT FALSE,
    p_wait boolean DEFAULT TRUE,
    INOUT run bigint DEFAULT NULL,
    INOUT rows_adrift bigint DEFAULT NULL,
    INOUT rows_changed bigint DEFAULT NULL,
    INOUT rows_deferred bigint DEFAULT NULL,
    INOUT rows_failed bigint DEFAULT NULL,
    INOUT problems text[] DEFAULT NULL
)
LANGUAGE plpgsql
AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
    v_row record;
BEGIN
    -- before the findings, so that of two repairs of a show the second finds nothing left
    PERFORM retally.hold_scope(v_show_id, p_wait);
    SELECT NULL, 0, 0, 0, 0, '{}'
    INTO run, rows_adrift, rows_changed, rows_deferred, rows_failed, problems;
    FOR v_row IN
        SELECT r.*
        FROM retally.repair(
            ARRAY(SELECT f FROM retally.findings(ARRAY[v_show_id], retally.totals()) AS f),
            p_wait, 'by hand', current_user::text, 'by hand', p_force, NULL
        ) AS r
    LOOP
        run := v_row.run;
        rows_adrift := rows_adrift + v_row.rows_adrift;
        rows_changed := rows_changed + v_row.rows_changed;
        rows_deferred := rows_deferred + v_row.rows_deferred;
        rows_failed := rows_failed + v_row.rows_failed;
        problems := problems || v_row.problems;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE retally.repair_show (
    text, boolean, boolean, bigint, bigint, bigint, bigint, bigint, text []
) IS 'Repairs the totals of one show by hand: with the ledger, and within limits.';
