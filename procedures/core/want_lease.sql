-- Whether another one than p_holder holds the scope; then it is noted that p_holder wants it,
-- unless somebody else does, or has the lease locked.
-- Locks and writes: a row of retally.lease. Waits for nobody.
CREATE OR REPLACE FUNCTION retally.want_lease(p_scope text, p_holder text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    WITH held AS (
        SELECT l.scope
        FROM retally.lease AS l
        WHERE
            l.scope = p_scope
            AND l.holder <> p_holder
            AND l.expires_at > clock_timestamp()
            AND (NOT retally.is_wanted(l.wanted_at) OR l.wanted_by = p_holder)
        FOR NO KEY UPDATE SKIP LOCKED
    )

    UPDATE retally.lease AS l
    SET wanted_by = p_holder, wanted_at = clock_timestamp()
    FROM held AS h
    WHERE l.scope = h.scope;
    RETURN EXISTS (
        SELECT
        FROM retally.lease AS l
        WHERE
            l.scope = p_scope
            AND l.holder <> p_holder
            AND l.expires_at > clock_timestamp()
    );
END
$$;
COMMENT ON FUNCTION retally.want_lease(text, text) IS
'Whether another one holds the scope; then it is noted that p_holder wants it.';
