-- What is adrift in these totals of these shows: findings_of() what adrift() finds, in one
-- statement and one snapshot.
-- Locks and writes nothing. Raises RT004.
CREATE OR REPLACE FUNCTION retally.findings(p_show_ids text[], p_totals text[])
RETURNS SETOF retally.finding
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT f.*
    FROM retally.findings_of(
        ARRAY(SELECT a FROM retally.adrift(p_show_ids, p_totals) AS a), p_show_ids, p_totals
    ) AS f;
END
$$;
COMMENT ON FUNCTION retally.findings(text[], text[]) IS
'What is adrift in these totals of these shows, one finding per show and total.';
