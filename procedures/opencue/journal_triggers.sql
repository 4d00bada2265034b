-- The triggers of the journal on the farm's proc, and whether each works: three, and all of them,
-- while a show is journaled.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.journal_triggers()
RETURNS TABLE (name text, works boolean)
LANGUAGE sql STABLE
AS $$
    SELECT
        t.tgname::text,
        t.tgenabled IN ('O', 'A')
    FROM pg_catalog.pg_trigger AS t
    INNER JOIN pg_catalog.pg_proc AS p ON t.tgfoid = p.oid
    WHERE
        t.tgrelid = to_regclass('public.proc')
        AND p.pronamespace = to_regnamespace('retally')
    ORDER BY t.tgname
$$;
COMMENT ON FUNCTION retally.journal_triggers() IS
'The triggers of the journal on the farm''s proc, and whether each works.';
