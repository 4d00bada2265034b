-- Lock, sum again, write: for what was found adrift, in the order in which it is given. All rows
-- are locked before any is summed, since the procs are then read once for all shows and totals.
-- p_wait, p_deadline, locks: as in seize_rows(). One row per finding. busy: the keys left. A sum
-- that the row cannot take, because of its column or of a rule of the farm, is among the problems,
-- and all other rows are written. changes: what was written, told only for p_tell.
-- Writes: the tables of the totals.
CREATE OR REPLACE FUNCTION retally.mend_rows(
    p_findings retally.finding[], p_wait boolean, p_deadline timestamptz,
    p_holding boolean, p_tell boolean
)
RETURNS TABLE (
    finding retally.finding, rows_changed bigint, busy text[], problems text[],
    changes retally.change[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_holding boolean := p_holding;
    v_finding retally.finding;
    v_seizure retally.seizure;
    v_seizures retally.seizure[] := '{}';
    v_before retally.amount[];
    v_done record;
    v_row record;
BEGIN
    FOREACH v_finding IN ARRAY p_findings LOOP
        SELECT v_finding.show_id, v_finding.total, '{}', '{}'
        INTO v_seizure;
        IF cardinality(v_finding.keys) > 0 THEN
            SELECT v_finding.show_id, v_finding.total, s.held, s.busy
            INTO v_seizure
            FROM retally.seize_rows(
                v_finding.show_id, v_finding.total, v_finding.keys, p_wait, p_deadline, v_holding
            ) AS s;
        END IF;
        v_holding := v_holding OR cardinality(v_seizure.held) > 0;
        v_seizures := v_seizures || v_seizure;
    END LOOP;

    FOR v_row IN
        -- a statement of its own: its snapshot holds every booking that committed before the locks
        WITH sums AS MATERIALIZED (
            SELECT
                s.show_id,
                s.total,
                array_agg(s.amount) AS amounts
            FROM retally.sum_again(v_seizures) AS s
            GROUP BY s.show_id, s.total
        )

        SELECT
            p_findings[z.place] AS finding,
            z.scope AS show_id,
            z.total,
            z.held,
            z.busy,
            coalesce(s.amounts, '{}') AS amounts
        FROM unnest(v_seizures) WITH ORDINALITY AS z (scope, total, held, busy, place)
        LEFT JOIN sums AS s ON z.scope = s.show_id AND z.total = s.total
        ORDER BY z.place
    LOOP
        finding := v_row.finding;
        busy := v_row.busy;
        changes := '{}';
        IF p_tell THEN
            v_before := ARRAY(
                SELECT b FROM retally.amounts_in(v_row.show_id, v_row.total, v_row.held) AS b
            );
        END IF;
        SELECT w.*
        INTO v_done
        FROM retally.write_what_fits(v_row.show_id, v_row.total, v_row.amounts) AS w;
        rows_changed := cardinality(v_done.written);
        problems := ARRAY(
            SELECT retally.problem('misfit', v_row.total, m.key, NULL, NULL, m.refusal)
            FROM unnest(v_done.misfits, v_done.refusals) AS m (key, refusal)
        );
        IF p_tell THEN
            changes := ARRAY(
                SELECT c
                FROM retally.changes_between(v_row.total, v_before, v_row.amounts) AS c
                WHERE c.key IN (SELECT k.key FROM unnest(v_done.written) AS k (key))
            );
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION retally.mend_rows(
    retally.finding[], boolean, timestamptz, boolean, boolean
) IS 'Lock, sum again, write: for what was found adrift.';
