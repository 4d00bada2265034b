-- Says what the ticks do to a show's totals while it is unmanaged: leave them alone (off), look at
-- them (watch), or repair them (repair); null: as the worker's settings say.
-- p_show: name or id; the mode of a show that is gone can still be taken away, by its id.
-- Writes: retally.scope_mode. Raises RT001, RT002; 22023 for another mode.
CREATE OR REPLACE PROCEDURE retally.set_mode(p_show text, p_mode text)
LANGUAGE plpgsql
AS $$
DECLARE
    v_show_id text;
BEGIN
    IF p_mode NOT IN ('off', 'watch', 'repair') THEN
        RAISE EXCEPTION 'an unmanaged show cannot be in mode "%"', p_mode
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Say off, watch, repair or NULL.';
    END IF;
    IF p_mode IS NULL THEN
        DELETE FROM retally.scope_mode AS m
        WHERE
            m.scope = p_show
            AND NOT EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = p_show);
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;

    v_show_id := retally.show_id(p_show);
    IF p_mode IS NULL THEN
        DELETE FROM retally.scope_mode AS m
        WHERE m.scope = v_show_id;
        RETURN;
    END IF;
    INSERT INTO retally.scope_mode (scope, mode)
    VALUES (v_show_id, p_mode)
    ON CONFLICT (scope) DO UPDATE SET
        mode = excluded.mode,
        set_at = excluded.set_at,
        set_by = excluded.set_by;
END
$$;
COMMENT ON PROCEDURE retally.set_mode (text, text) IS
'Says what the ticks do to a show''s totals while it is unmanaged.';
