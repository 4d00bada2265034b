-- Writes those rows of one total in p_rows that are still as they were found; answers with the
-- others: those that somebody has locked or written since, those that cannot take the sum, and all
-- of a show one of whose rows a trigger or a constraint of the farm refuses.
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
        -- nothing is written yet
        v_left := ARRAY(
            SELECT a FROM unnest(p_rows) AS a
            WHERE a.total = p_total AND a.kind = 'row'
        );
        IF (SELECT count(DISTINCT a.show_id) FROM unnest(v_left) AS a) < 2 THEN
            RETURN v_left;
        END IF;
        RETURN ARRAY(
            WITH shows AS (
                SELECT array_agg(a) AS their_rows
                FROM unnest(v_left) AS a
                GROUP BY a.show_id
            )

            SELECT w
            FROM shows AS s
            CROSS JOIN LATERAL unnest(retally.write_found(p_total, s.their_rows)) AS w
        );
END
$$;
COMMENT ON FUNCTION retally.write_found(text, retally.comparison[]) IS
'Writes those rows of one total that are still as they were found; answers with the others.';
