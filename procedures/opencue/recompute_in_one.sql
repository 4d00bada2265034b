-- Rebuilds these totals of a show from its procs: findings(), then mend().
-- p_show: name or id. p_totals: which. p_wait: wait for busy rows. Result as of mend_in_one().
-- Locks and writes as mend().
-- Raises RT001 to RT005.
CREATE OR REPLACE FUNCTION retally.recompute_in_one(
    p_show text, p_totals text[], p_wait boolean,
    OUT rows_adrift bigint, OUT rows_changed bigint, OUT rows_deferred bigint,
    OUT rows_failed bigint, OUT core_units numeric, OUT gpus numeric, OUT problems text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
BEGIN
    -- before the findings, so that of two recomputes of a show the second finds nothing left
    PERFORM retally.hold_scope(v_show_id, p_wait);
    SELECT m.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.mend_in_one(
        ARRAY(SELECT f FROM retally.findings(ARRAY[v_show_id], p_totals) AS f), p_wait
    ) AS m;
END
$$;
COMMENT ON FUNCTION retally.recompute_in_one(text, text[], boolean) IS
'Rebuilds these totals of a show from its procs.';
