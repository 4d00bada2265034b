-- Locks the rows of totals that p_deltas are to be added to, without waiting; whether all were had.
-- Rows that are missing do not count.
-- Locks: the rows, FOR NO KEY UPDATE. Writes nothing.
CREATE OR REPLACE FUNCTION retally.hold_deltas(p_deltas retally.delta[])
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_total text;
    v_held bigint;
    v_deltas bigint;
BEGIN
    FOREACH v_total IN ARRAY retally.totals() LOOP
        v_held := retally.count_deltas(p_deltas, v_total, TRUE);
        v_deltas := (SELECT count(*) FROM unnest(p_deltas) AS d WHERE d.total = v_total);
        -- most often each has just one row, and all are free: they need not be counted again
        CONTINUE WHEN v_held = v_deltas AND v_total <> 'folder';
        IF v_held < retally.count_deltas(p_deltas, v_total, FALSE) THEN
            RETURN FALSE;
        END IF;
    END LOOP;
    RETURN TRUE;
END
$$;
COMMENT ON FUNCTION retally.hold_deltas(retally.delta[]) IS
'Locks the rows that deltas are to be added to, without waiting; whether all were had.';
