-- Rebuilds what was found, by hand; what mend() says of its findings, added up to one row.
-- Parameters, locks, writes and errors as of mend().
CREATE OR REPLACE FUNCTION retally.mend_in_one(
    p_findings retally.finding[], p_wait boolean,
    OUT rows_adrift bigint, OUT rows_changed bigint, OUT rows_deferred bigint,
    OUT rows_failed bigint, OUT core_units numeric, OUT gpus numeric, OUT problems text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_row record;
BEGIN
    SELECT 0, 0, 0, 0, 0, 0, '{}'
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems;
    FOR v_row IN
        SELECT m.*
        FROM retally.mend(p_findings, p_wait) AS m
    LOOP
        rows_adrift := rows_adrift + v_row.rows_adrift;
        rows_changed := rows_changed + v_row.rows_changed;
        rows_deferred := rows_deferred + v_row.rows_deferred;
        rows_failed := rows_failed + v_row.rows_failed;
        core_units := core_units + v_row.core_units;
        gpus := gpus + v_row.gpus;
        problems := problems || v_row.problems;
    END LOOP;
END
$$;
COMMENT ON FUNCTION retally.mend_in_one(retally.finding[], boolean) IS
'What mend() says of its findings, added up to one row.';
