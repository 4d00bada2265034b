-- Keeps which rows of a total a pass left because they were busy, and how many passes running.
-- p_busy: the keys left. Rows not left any more are forgotten.
-- Writes: retally.deferred (unlogged).
CREATE OR REPLACE FUNCTION retally.note_deferred(p_scope text, p_total text, p_busy text[])
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    DELETE FROM retally.deferred AS d
    WHERE d.scope = p_scope AND d.total = p_total AND d.key <> ALL (p_busy);
    IF cardinality(p_busy) > 0 THEN
        INSERT INTO retally.deferred AS d (scope, total, key, passes, since)
        SELECT p_scope, p_total, b.key, 1, clock_timestamp()
        FROM unnest(p_busy) AS b (key)
        ON CONFLICT (scope, total, key) DO UPDATE SET passes = d.passes + 1;
    END IF;
END
$$;
COMMENT ON FUNCTION retally.note_deferred(text, text, text[]) IS
'Keeps which rows of a total a pass left because they were busy.';
