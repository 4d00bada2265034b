-- Whether the flag in force of this scope is on: bookings through retally write no total of it.
-- It may change at any moment, unless pin_flag() or hold_flag() holds it.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.is_managed(p_scope text)
RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_managed boolean;
BEGIN
    SELECT f.managed
    INTO v_managed
    FROM retally.scope_flag AS f
    WHERE f.scope = p_scope;
    IF NOT FOUND THEN
        SELECT retally.overridden(FALSE, s.override)
        INTO v_managed
        FROM retally.setting AS s;
    END IF;
    RETURN v_managed;
END
$$;
COMMENT ON FUNCTION retally.is_managed(text) IS
'Whether the flag in force of this scope is on.';
