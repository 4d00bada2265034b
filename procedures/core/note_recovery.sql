-- Forgets the failures of scopes that have been served again in this tick.
-- Writes: retally.due.
CREATE OR REPLACE FUNCTION retally.note_recovery(p_tick text, p_scopes text[])
RETURNS void
LANGUAGE sql VOLATILE
AS $$
    UPDATE retally.due AS d
    SET
        failures = 0,
        error = NULL
    WHERE d.tick = p_tick AND d.scope = any(p_scopes) AND d.failures > 0
$$;
COMMENT ON FUNCTION retally.note_recovery(text, text[]) IS
'Forgets the failures of scopes that have been served again in this tick.';
