-- Writes p_amounts into locked rows of one total of a show; where a trigger or a constraint of the
-- farm raises over one of them, each is written by itself. written: the keys that differed and were
-- written. misfits: those that are not taken; refusals: what the farm said of each of these, null
-- where the sum does not fit the column.
-- Locks: none beyond those held. Writes: the table of the total.
CREATE OR REPLACE FUNCTION retally.write_what_fits(
    p_show_id text, p_total text, p_amounts retally.amount[],
    OUT written text[], OUT misfits text[], OUT refusals text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    -- whatever these rows hold: they are locked
    v_rows retally.comparison[] := ARRAY(
        SELECT
            ROW(
                p_show_id, p_total, a.key, 'row', NULL, NULL, NULL, NULL, a.cores, a.gpus,
                a.local_cores, a.local_gpus
            )::retally.comparison
        FROM unnest(p_amounts) AS a
    );
    v_row retally.comparison;
    v_fits boolean;
    v_refusal text;
BEGIN
    SELECT '{}', '{}', '{}'
    INTO written, misfits, refusals;
    IF cardinality(p_amounts) = 0 THEN
        RETURN;
    END IF;
    BEGIN
        SELECT
            coalesce(array_agg(w.key) FILTER (WHERE w.fits), '{}'),
            coalesce(array_agg(w.key) FILTER (WHERE NOT w.fits), '{}')
        INTO written, misfits
        FROM retally.write_rows(p_total, v_rows) AS w;
        RETURN;
    EXCEPTION
        WHEN data_exception OR raise_exception OR integrity_constraint_violation THEN
            written := '{}';
            misfits := '{}';
    END;

    FOREACH v_row IN ARRAY v_rows LOOP
        v_refusal := NULL;
        BEGIN
            SELECT bool_and(w.fits)
            INTO v_fits
            FROM retally.write_rows(p_total, ARRAY[v_row]) AS w;
        EXCEPTION
            WHEN data_exception THEN
                v_fits := FALSE;
            WHEN raise_exception OR integrity_constraint_violation THEN
                v_fits := FALSE;
                v_refusal := sqlerrm;
        END;
        IF v_fits THEN
            written := written || v_row.key;
        ELSIF NOT v_fits THEN
            misfits := misfits || v_row.key;
            refusals := refusals || v_refusal;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION retally.write_what_fits(text, text, retally.amount[]) IS
'Writes amounts into locked rows of one total of a show, all that the farm takes.';
