-- lock_rows(), with the answer as two arrays.
-- p_patient: when one of these is busy, nothing is held afterwards (held is empty), so that it
-- can be waited for with empty hands; null: hold what is free in any case.
-- Locks: the free rows, FOR NO KEY UPDATE. Writes nothing.
CREATE OR REPLACE FUNCTION retally.lock_free_rows(
    p_show_id text, p_total text, p_keys text[], p_patient text[],
    OUT held text[], OUT busy text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    SELECT
        coalesce(array_agg(l.key) FILTER (WHERE l.held), '{}'),
        coalesce(array_agg(l.key ORDER BY l.key) FILTER (WHERE NOT l.held), '{}')
    INTO held, busy
    FROM retally.lock_rows(p_show_id, p_total, p_keys) AS l;
    IF busy && p_patient THEN
        RAISE EXCEPTION USING ERRCODE = 'RT000', MESSAGE = 'let go';
    END IF;
EXCEPTION
    WHEN SQLSTATE 'RT000' THEN
        -- the locks went with the subtransaction; what was learned of the busy rows did not
        held := '{}';
END
$$;
COMMENT ON FUNCTION retally.lock_free_rows(text, text, text[], text[]) IS
'Locks those rows of a total that are free, or none when one is busy that is worth waiting for.';
