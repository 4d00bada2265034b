-- The largest value that this column of the farm's table public.p_table takes; its smallest is
-- one beyond that, negated. Infinity for a type without a limit. Read from the catalog, since a
-- farm may widen its columns.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.column_limit(p_table text, p_column text)
RETURNS numeric
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        CASE a.atttypid::regtype::text
            WHEN 'smallint' THEN 32767
            WHEN 'integer' THEN 2147483647
            WHEN 'bigint' THEN 9223372036854775807
            ELSE 'Infinity'::numeric
        END
    FROM pg_catalog.pg_attribute AS a
    WHERE
        a.attrelid = to_regclass('public.' || p_table)
        AND a.attname = p_column
        AND NOT a.attisdropped
$$;
COMMENT ON FUNCTION retally.column_limit(text, text) IS
'The largest value that a column of a farm''s table takes.';
