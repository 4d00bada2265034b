-- Rebuilds these totals of a show from its procs: findings(), then mend(). Where the show is
-- journaled, its journal is folded first, into all totals.
-- p_show: name or id. p_totals: which. p_wait: wait for busy rows. Result as of added_up().
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
    -- what is in the journal already is no drift; it is counted before the totals are looked at
    PERFORM retally.fold(ARRAY[v_show_id], p_wait);
    SELECT
        s.rows_adrift,
        s.rows_changed,
        s.rows_deferred,
        s.rows_failed,
        s.core_units,
        s.gpus,
        s.problems
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.added_up(
        ARRAY(
            SELECT m
            FROM retally.mend_by_hand(
                ARRAY(SELECT f FROM retally.findings(ARRAY[v_show_id], p_totals) AS f), p_wait
            ) AS m
        )
    ) AS s;
END
$$;
COMMENT ON FUNCTION retally.recompute_in_one(text, text[], boolean) IS
'Rebuilds these totals of a show from its procs.';
