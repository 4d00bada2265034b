-- Writes those rows of one total in p_rows that are still as they were found; answers with the
-- others: those that somebody has locked or written since, and those that cannot take the sum.
-- Locks: the rows written, waiting for none. Writes: the table of the total.
CREATE OR REPLACE FUNCTION retally.write_found(p_total text, p_rows retally.comparison[])
RETURNS retally.comparison[]
LANGUAGE plpgsql VOLATILE
-- otherwise all rows are copied into each plan
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_left retally.comparison[];
BEGIN
    WITH written AS MATERIALIZED (
        SELECT
            w.show_id,
            w.key
        FROM retally.write_rows(p_total, p_rows) AS w
        WHERE w.fits
    )

    SELECT coalesce(array_agg(a), '{}')
    INTO v_left
    FROM unnest(p_rows) AS a
    WHERE
        a.total = p_total
        AND a.kind = 'row'
        -- not as a join: its plan would follow a guess of how many were written
        AND (a.show_id, a.key) NOT IN (SELECT w.show_id, w.key FROM written AS w);
    RETURN v_left;
EXCEPTION
    WHEN data_exception OR raise_exception OR integrity_constraint_violation THEN
        -- a rule of the farm refuses one of them: nothing is written yet
        RETURN ARRAY(
            SELECT a
            FROM unnest(p_rows) AS a
            WHERE a.total = p_total AND a.kind = 'row'
        );
END
$$;
COMMENT ON FUNCTION retally.write_found(text, retally.comparison[]) IS
'Writes those rows of one total that are still as they were found; answers with the others.';
