-- The rows that are adrift in these totals of these shows, rows that are missing, and what procs
-- name and the farm does not know: compared() for passes. One statement, one snapshot.
-- Locks and writes nothing. Raises RT004.
CREATE OR REPLACE FUNCTION retally.adrift(p_show_ids text[], p_totals text[])
RETURNS SETOF retally.comparison
LANGUAGE plpgsql STABLE
-- nothing but the system's own operators, whoever may create in the schema public
SET search_path = pg_catalog, pg_temp
-- compiling the plan costs more than running it
SET jit = off
SET work_mem = '64MB'
-- what every pass reads is in memory
SET random_page_cost = 1.1
-- hashing the keys is several times faster than sorting them
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_read text[] := retally.read_for(p_show_ids);
    -- what is in a journal is no drift; most farms have none
    v_source text := CASE WHEN EXISTS (SELECT FROM retally.journal) THEN 'owed' ELSE 'procs' END;
BEGIN
    IF coalesce(cardinality(p_totals), 0) = 0 OR NOT p_totals <@ retally.totals() THEN
        RAISE EXCEPTION 'unknown total in {%}', array_to_string(coalesce(p_totals, '{}'), ', ')
            USING ERRCODE = 'RT004',
                HINT = 'The totals are ' || array_to_string(retally.totals(), ', ') || '.';
    END IF;
    IF cardinality(p_show_ids) = 0 THEN
        RETURN;
    END IF;

    RETURN QUERY
    SELECT c.*
    FROM retally.compared(v_read, p_totals, v_source) AS c
    WHERE c.show_id = ANY (p_show_ids);
END
$$;
COMMENT ON FUNCTION retally.adrift(text[], text[]) IS
'The rows that are adrift in these totals of these shows.';
