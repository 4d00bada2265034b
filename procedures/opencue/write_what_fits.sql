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
    v_amount retally.amount;
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
        FROM retally.write_rows(p_show_id, p_total, p_amounts) AS w;
        RETURN;
    EXCEPTION
        WHEN data_exception OR raise_exception OR integrity_constraint_violation THEN
            written := '{}';
            misfits := '{}';
    END;

    FOREACH v_amount IN ARRAY p_amounts LOOP
        v_refusal := NULL;
        BEGIN
            SELECT bool_and(w.fits)
            INTO v_fits
            FROM retally.write_rows(p_show_id, p_total, ARRAY[v_amount]) AS w;
        EXCEPTION
            WHEN data_exception THEN
                v_fits := FALSE;
            WHEN raise_exception OR integrity_constraint_violation THEN
                v_fits := FALSE;
                v_refusal := sqlerrm;
        END;
        IF v_fits THEN
            written := written || v_amount.key;
        ELSIF NOT v_fits THEN
            misfits := misfits || v_amount.key;
            refusals := refusals || v_refusal;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION retally.write_what_fits(text, text, retally.amount[]) IS
'Writes amounts into locked rows of one total of a show, all that the farm takes.';
