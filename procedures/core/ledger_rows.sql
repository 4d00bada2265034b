-- The ledger's rows of these scopes, totals and run, changed at p_since or later; what is empty or
-- null lets everything through.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.ledger_rows(
    p_scopes text[], p_totals text[], p_run bigint, p_since timestamptz
)
RETURNS SETOF retally.ledger
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        l.run,
        l.scope,
        l.total,
        l.key,
        l.slot,
        l.before,
        l.after,
        l.changed_at,
        l.cause
    FROM retally.ledger AS l
    WHERE
        (coalesce(cardinality(p_scopes), 0) = 0 OR l.scope = any(p_scopes))
        AND (coalesce(cardinality(p_totals), 0) = 0 OR l.total = any(p_totals))
        AND (p_run IS NULL OR l.run = p_run)
        AND (p_since IS NULL OR l.changed_at >= p_since)
$$;
COMMENT ON FUNCTION retally.ledger_rows(text[], text[], bigint, timestamptz) IS
'The rows of the ledger that these filters choose.';
