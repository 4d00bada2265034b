-- How many triggers of the journal work on the farm's proc: three while a show is journaled.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.journal_triggers()
RETURNS bigint
LANGUAGE sql STABLE
AS $$
    SELECT count(*)
    FROM pg_catalog.pg_trigger AS t
    INNER JOIN pg_catalog.pg_proc AS p ON t.tgfoid = p.oid
    WHERE
        t.tgrelid = to_regclass('public.proc')
        AND p.pronamespace = to_regnamespace('retally')
        AND t.tgenabled IN ('O', 'A')
$$;
COMMENT ON FUNCTION retally.journal_triggers() IS
'How many triggers of the journal work on the farm''s proc.';
