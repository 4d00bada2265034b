-- Forgets the failures of scopes that have been served again in this tick.
-- Locks: their rows, in order, as others may be forgetting the same ones. Writes: retally.due.
CREATE OR REPLACE FUNCTION retally.note_recovery(p_tick text, p_scopes text[])
RETURNS void
LANGUAGE sql VOLATILE
AS $$
    WITH failing AS (
        SELECT d.scope
        FROM retally.due AS d
        WHERE d.tick = p_tick AND d.scope = any(p_scopes) AND d.failures > 0
        ORDER BY d.scope
        FOR UPDATE
    )

    UPDATE retally.due AS d
    SET
        failures = 0,
        error = NULL
    FROM failing AS f
    WHERE d.tick = p_tick AND d.scope = f.scope
$$;
COMMENT ON FUNCTION retally.note_recovery(text, text[]) IS
'Forgets the failures of scopes that have been served again in this tick.';
