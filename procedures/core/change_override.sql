-- Changes setting.override. Before that the flag in force becomes the own row of each of p_scopes
-- that has none, so that no scope is flipped by the change itself: flips come after it.
-- Locks: other changes of the override, the setting, new rows. Writes: retally.setting and
-- retally.scope_flag. Raises RT005 when another session holds the override or the setting.
CREATE OR REPLACE FUNCTION retally.change_override(p_override text, p_scopes text[])
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_scope text;
    v_before text := retally.set_lock_timeout(retally.lock_budget());
BEGIN
    PERFORM pg_advisory_xact_lock(retally.flag_lock('the override'));
    FOR v_scope IN
        SELECT s.scope
        FROM unnest(p_scopes) AS s (scope)
        WHERE NOT EXISTS (SELECT FROM retally.scope_flag AS f WHERE f.scope = s.scope)
    LOOP
        BEGIN
            PERFORM retally.set_flag(v_scope, FALSE, retally.is_managed(v_scope));
        EXCEPTION
            -- whoever has it locked is flipping it just now, and gives it a row
            WHEN SQLSTATE 'RT005' THEN NULL;
        END;
    END LOOP;
    UPDATE retally.setting AS s
    SET override = p_override
    WHERE s.override <> p_override;
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'another session has the override or retally.setting locked'
            USING ERRCODE = 'RT005', HINT = 'Let it commit or roll back, and try again.';
END
$$;
COMMENT ON FUNCTION retally.change_override(text, text[]) IS
'Changes setting.override, and flips no scope by it.';
