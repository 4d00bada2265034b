-- Locks those rows p_keys of one total of a show that are free, and says of each key whether it
-- is held now. A key is held when all its rows are: a folder may have several. Keys whose rows are
-- gone are not in the answer.
-- Locks: the rows, FOR NO KEY UPDATE. Writes nothing.
CREATE OR REPLACE FUNCTION retally.lock_rows(p_show_id text, p_total text, p_keys text[])
RETURNS TABLE (key text, held boolean)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_locked text[] := retally.lock_keys(p_show_id, p_total, p_keys, FALSE);
BEGIN
    IF p_total <> 'folder' AND cardinality(v_locked) = cardinality(p_keys) THEN
        -- most often all are free, and the totals need not be read again
        RETURN QUERY
        SELECT
            l.key,
            TRUE
        FROM unnest(v_locked) AS l (key);
        RETURN;
    END IF;

    RETURN QUERY
    WITH locked AS (
        SELECT
            l.key,
            count(*) AS of_them
        FROM unnest(v_locked) AS l (key)
        GROUP BY l.key
    ),

    there AS (
        SELECT
            s.key,
            count(*) AS of_them
        FROM retally.stored_in(ARRAY[p_show_id], ARRAY[p_total], TRUE) AS s
        WHERE s.key IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        GROUP BY s.key
    )

    SELECT
        t.key,
        coalesce(l.of_them, 0) = t.of_them
    FROM there AS t
    LEFT JOIN locked AS l ON t.key = l.key;
END
$$;
COMMENT ON FUNCTION retally.lock_rows(text, text, text[]) IS
'Locks those rows of one total of a show that are free, and says which are held.';
