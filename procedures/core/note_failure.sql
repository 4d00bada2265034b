-- Leaves a scope alone in this tick for p_pause, for all workers, and keeps why.
-- Writes: retally.due.
CREATE OR REPLACE FUNCTION retally.note_failure(
    p_tick text, p_scope text, p_pause interval, p_error text
)
RETURNS void
LANGUAGE sql VOLATILE
AS $$
    UPDATE retally.due AS d
    SET
        due_at = clock_timestamp() + p_pause,
        every = p_pause,
        failures = d.failures + 1,
        error = p_error
    WHERE d.tick = p_tick AND d.scope = p_scope
$$;
COMMENT ON FUNCTION retally.note_failure(text, text, interval, text) IS
'Leaves a scope alone in this tick for a while, for all workers.';
