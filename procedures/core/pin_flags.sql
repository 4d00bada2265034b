-- As pin_flag() for many scopes, in the order of their ids; answers with those that are managed.
-- Locks: the scopes' flags, shared, until the transaction ends. Writes nothing.
-- Raises RT003, 55P03.
CREATE OR REPLACE FUNCTION retally.pin_flags(p_scopes text[])
RETURNS text[]
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_scope text;
    v_managed text[] := '{}';
BEGIN
    FOR v_scope IN
        SELECT DISTINCT s.scope
        FROM unnest(p_scopes) AS s (scope)
        ORDER BY s.scope
    LOOP
        IF retally.pin_flag(v_scope) THEN
            v_managed := v_managed || v_scope;
        END IF;
    END LOOP;
    RETURN v_managed;
END
$$;
COMMENT ON FUNCTION retally.pin_flags(text[]) IS
'As pin_flag() for many scopes; answers with those that are managed.';
