-- Writes p_amounts into locked rows of one total of a show; where a trigger of the farm raises over
-- one of them, each is written by itself. written: the keys that differed and were written.
-- misfits: those that the column or a trigger does not take.
-- Locks: none beyond those held. Writes: the table of the total.
CREATE OR REPLACE FUNCTION retally.write_what_fits(
    p_show_id text, p_total text, p_amounts retally.amount[],
    OUT written text[], OUT misfits text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_amount retally.amount;
    v_fits boolean;
BEGIN
    BEGIN
        SELECT
            coalesce(array_agg(w.key) FILTER (WHERE w.fits), '{}'),
            coalesce(array_agg(w.key) FILTER (WHERE NOT w.fits), '{}')
        INTO written, misfits
        FROM retally.write_rows(p_show_id, p_total, p_amounts) AS w;
        RETURN;
    EXCEPTION
        WHEN data_exception THEN
            written := '{}';
            misfits := '{}';
    END;

    FOREACH v_amount IN ARRAY p_amounts LOOP
        BEGIN
            SELECT bool_and(w.fits)
            INTO v_fits
            FROM retally.write_rows(p_show_id, p_total, ARRAY[v_amount]) AS w;
        EXCEPTION
            WHEN data_exception THEN
                v_fits := FALSE;
        END;
        IF v_fits THEN
            written := written || v_amount.key;
        ELSIF NOT v_fits THEN
            misfits := misfits || v_amount.key;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION retally.write_what_fits(text, text, retally.amount[]) IS
'Writes amounts into locked rows of one total of a show, all that the farm takes.';
