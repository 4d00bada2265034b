-- add_deltas(); where a trigger or a constraint of the farm raises over one of the rows, each is
-- added by itself, and is left where it is refused.
-- Parameters, answer, locks and writes as there.
CREATE OR REPLACE FUNCTION retally.add_what_fits(p_deltas retally.delta[])
RETURNS SETOF retally.delta
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_added retally.delta[] := '{}';
    v_delta retally.delta;
BEGIN
    BEGIN
        v_added := ARRAY(SELECT a FROM retally.add_deltas(p_deltas) AS a);
        RETURN QUERY SELECT a.* FROM unnest(v_added) AS a;
        RETURN;
    EXCEPTION
        WHEN data_exception OR raise_exception OR integrity_constraint_violation THEN NULL;
    END;
    -- in the order of the booking path
    FOR v_delta IN
        SELECT d.*
        FROM unnest(p_deltas) AS d
        ORDER BY array_position(retally.totals(), d.total), d.scope, d.key
    LOOP
        BEGIN
            RETURN QUERY SELECT a.* FROM retally.add_deltas(ARRAY[v_delta]) AS a;
        EXCEPTION
            WHEN data_exception OR raise_exception OR integrity_constraint_violation THEN NULL;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION retally.add_what_fits(retally.delta[]) IS
'Adds amounts to the totals, all that the farm takes.';
