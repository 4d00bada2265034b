-- What a person calls the row of this total and key; the key itself where the farm has no name.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.row_name(p_total text, p_key text)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        coalesce(
            (
                SELECT n.name
                FROM retally.names() AS n
                WHERE n.total = p_total AND n.key = p_key
            ), p_key, 'none'
        )
$$;
COMMENT ON FUNCTION retally.row_name(text, text) IS
'What a person calls the row of this total and key.';
