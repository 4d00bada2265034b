-- Writes the flag of a scope: what was asked for, and what is in force; an unmanaged scope is not
-- journaled either. For flip(), which holds the
-- scope; a session that has written to the row by hand is waited for as long as the lock budget.
-- Locks and writes: a row of retally.scope_flag.
-- Raises RT005 when the row stayed locked.
CREATE OR REPLACE FUNCTION retally.set_flag(p_scope text, p_asked boolean, p_managed boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text;
BEGIN
    v_before := retally.set_lock_timeout(retally.lock_budget());
    INSERT INTO retally.scope_flag AS f (scope, asked, managed)
    VALUES (p_scope, p_asked, p_managed)
    ON CONFLICT (scope) DO UPDATE
        SET asked = excluded.asked, managed = excluded.managed,
            journaled = f.journaled AND excluded.managed,
            set_at = clock_timestamp(), set_by = current_user
        WHERE (f.asked, f.managed) <> (excluded.asked, excluded.managed);
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'another session has the flag of % locked', p_scope
            USING ERRCODE = 'RT005', HINT = 'Let it commit or roll back, and try again.';
END
$$;
COMMENT ON FUNCTION retally.set_flag(text, boolean, boolean) IS
'Writes the flag of a scope: what was asked for, and what is in force.';
