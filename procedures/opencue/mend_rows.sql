-- Lock, sum again, write: for the rows p_keys of one total of a show.
-- p_wait, p_deadline, p_holding, locks: as in seize_rows(). busy: the keys left. A sum that the
-- row cannot take, because of its column or of a trigger of the farm, is among the problems, and
-- all other rows are written.
-- Writes: the table of the total.
CREATE OR REPLACE FUNCTION retally.mend_rows(
    p_show_id text, p_total text, p_keys text[], p_wait boolean, p_deadline timestamptz,
    p_holding boolean,
    OUT rows_changed bigint, OUT busy text[], OUT problems text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_held text[];
    v_key text;
    v_fits boolean;
BEGIN
    rows_changed := 0;
    busy := '{}';
    problems := '{}';
    IF cardinality(p_keys) = 0 THEN
        RETURN;
    END IF;
    SELECT s.held, s.busy
    INTO v_held, busy
    FROM retally.seize_rows(p_show_id, p_total, p_keys, p_wait, p_deadline, p_holding) AS s;

    IF cardinality(v_held) = 0 THEN
        RETURN;
    END IF;

    BEGIN
        SELECT
            count(*) FILTER (WHERE w.fits),
            coalesce(array_agg(retally.problem('misfit', p_total, w.key, NULL, NULL))
            FILTER (WHERE NOT w.fits), '{}')
        INTO rows_changed, problems
        FROM retally.write_rows(p_show_id, p_total, v_held) AS w;
        RETURN;
    EXCEPTION
        WHEN data_exception THEN
            rows_changed := 0;
            problems := '{}';
    END;

    FOREACH v_key IN ARRAY v_held LOOP
        BEGIN
            SELECT bool_and(w.fits)
            INTO v_fits
            FROM retally.write_rows(p_show_id, p_total, ARRAY[v_key]) AS w;
        EXCEPTION
            WHEN data_exception THEN
                v_fits := FALSE;
        END;
        IF v_fits THEN
            rows_changed := rows_changed + 1;
        ELSIF NOT v_fits THEN
            problems := problems || retally.problem('misfit', p_total, v_key, NULL, NULL);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION retally.mend_rows(
    text, text, text[], boolean, timestamptz, boolean
) IS 'Lock, sum again, write: for rows of one total of a show.';
