-- Makes leases last p_for from now, and answers with those that still stand; one that had ended is
-- not brought back, and one that another session has locked stands as it is. p_scopes, p_tokens:
-- what p_holder believes to hold.
-- yield: others want the scope, and p_holder has more than its even share of all that are served or
-- wanted: it should end this lease.
-- Locks and writes: the rows of retally.lease. Waits for nobody.
CREATE OR REPLACE FUNCTION retally.keep_leases(
    p_holder text, p_scopes text[], p_tokens bigint[], p_for interval
)
RETURNS TABLE (scope text, yield boolean)
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    WITH free AS (
        SELECT l.scope
        FROM unnest(p_scopes, p_tokens) AS h (scope, token)
        INNER JOIN retally.lease AS l ON h.scope = l.scope AND h.token = l.token
        WHERE l.holder = p_holder AND l.expires_at > clock_timestamp()
        FOR NO KEY UPDATE OF l SKIP LOCKED
    )

    UPDATE retally.lease AS l
    SET expires_at = clock_timestamp() + p_for
    FROM free AS f
    WHERE l.scope = f.scope;

    RETURN QUERY
    WITH served AS (
        SELECT l.*
        FROM retally.lease AS l
        -- what was given up for somebody who has not come yet is his
        WHERE l.expires_at > clock_timestamp() OR retally.is_wanted(l.wanted_at)
    ),

    dispatchers AS (
        SELECT s.holder
        FROM served AS s
        WHERE s.expires_at > clock_timestamp()
        UNION
        SELECT s.wanted_by
        FROM served AS s
        WHERE retally.is_wanted(s.wanted_at)
    ),

    kept AS (
        SELECT
            s.scope,
            s.taken_at,
            retally.is_wanted(s.wanted_at) AND s.wanted_by <> p_holder AS wanted
        FROM served AS s
        INNER JOIN unnest(p_scopes, p_tokens) AS h (scope, token)
            ON s.scope = h.scope AND s.token = h.token
        WHERE s.holder = p_holder AND s.expires_at > clock_timestamp()
    ),

    share AS (
        SELECT ceil(
            (SELECT count(*) FROM served AS s)::numeric
            / greatest((SELECT count(*) FROM dispatchers AS d), 1)
        ) AS scopes
    )

    SELECT
        k.scope,
        k.wanted
        AND row_number() OVER (PARTITION BY k.wanted ORDER BY k.taken_at, k.scope)
        <= count(*) OVER () - a.scopes
    FROM kept AS k
    CROSS JOIN share AS a
    ORDER BY k.scope;
END
$$;
COMMENT ON FUNCTION retally.keep_leases(text, text[], bigint[], interval) IS
'Makes leases last, and answers with those that still stand.';
