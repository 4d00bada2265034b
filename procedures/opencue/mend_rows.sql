-- Lock, sum again, write: for the rows p_keys of one total of a show.
-- p_wait, p_deadline, p_holding, locks: as in seize_rows(). busy: the keys left. A sum that the
-- row cannot take, because of its column or of a rule of the farm, is among the problems, and all
-- other rows are written. changes: what was written, told only for p_tell.
-- Writes: the table of the total.
CREATE OR REPLACE FUNCTION retally.mend_rows(
    p_show_id text, p_total text, p_keys text[], p_wait boolean, p_deadline timestamptz,
    p_holding boolean, p_tell boolean,
    OUT rows_changed bigint, OUT busy text[], OUT problems text[], OUT changes retally.change[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_held text[];
    v_before retally.amount[];
    v_amounts retally.amount[];
    v_written text[];
    v_misfits text[];
    v_refusals text[];
BEGIN
    rows_changed := 0;
    busy := '{}';
    problems := '{}';
    changes := '{}';
    IF cardinality(p_keys) = 0 THEN
        RETURN;
    END IF;
    SELECT s.held, s.busy
    INTO v_held, busy
    FROM retally.seize_rows(p_show_id, p_total, p_keys, p_wait, p_deadline, p_holding) AS s;
    IF cardinality(v_held) = 0 THEN
        RETURN;
    END IF;

    -- a statement of its own: its snapshot holds every booking that committed before the lock
    v_amounts := ARRAY(SELECT a FROM retally.sum_again(p_show_id, p_total, v_held) AS a);
    IF p_tell THEN
        v_before := ARRAY(SELECT b FROM retally.amounts_in(p_show_id, p_total, v_held) AS b);
    END IF;
    SELECT w.written, w.misfits, w.refusals
    INTO v_written, v_misfits, v_refusals
    FROM retally.write_what_fits(p_show_id, p_total, v_amounts) AS w;
    rows_changed := cardinality(v_written);
    problems := ARRAY(
        SELECT retally.problem('misfit', p_total, m.key, NULL, NULL, m.refusal)
        FROM unnest(v_misfits, v_refusals) AS m (key, refusal)
    );
    IF p_tell THEN
        changes := ARRAY(
            SELECT c
            FROM retally.changes_between(p_total, v_before, v_amounts) AS c
            WHERE c.key = any(v_written)
        );
    END IF;
END
$$;
COMMENT ON FUNCTION retally.mend_rows(
    text, text, text[], boolean, timestamptz, boolean, boolean
) IS 'Lock, sum again, write: for rows of one total of a show.';
