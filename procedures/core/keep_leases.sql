-- Makes leases last p_for from now, and answers with those that still stand; one that had ended is
-- not brought back. p_scopes, p_tokens: what p_holder believes to hold.
-- yield: others want the scope, and p_holder has more than its even share of all that are served or
-- wanted: it should end this lease.
-- Locks and writes: the rows of retally.lease.
CREATE OR REPLACE FUNCTION retally.keep_leases(
    p_holder text, p_scopes text[], p_tokens bigint[], p_for interval
)
RETURNS TABLE (scope text, yield boolean)
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN QUERY
    WITH kept AS (
        UPDATE retally.lease AS l
        SET expires_at = clock_timestamp() + p_for
        FROM unnest(p_scopes, p_tokens) AS h (scope, token)
        WHERE
            l.scope = h.scope
            AND l.token = h.token
            AND l.holder = p_holder
            AND l.expires_at > clock_timestamp()
        RETURNING
            l.scope, l.taken_at,
            coalesce(
                l.wanted_by <> p_holder
                AND l.wanted_at > clock_timestamp() - retally.lease_wish(),
                FALSE
            ) AS wanted
    ),

    dispatchers AS (
        SELECT l.holder
        FROM retally.lease AS l
        WHERE l.expires_at > clock_timestamp()
        UNION
        SELECT l.wanted_by
        FROM retally.lease AS l
        WHERE l.wanted_at > clock_timestamp() - retally.lease_wish()
    ),

    share AS (
        SELECT
            ceil(count(*)::numeric / greatest((SELECT count(d.holder) FROM dispatchers AS d), 1))
            AS scopes
        FROM retally.lease AS l
        WHERE
            l.expires_at > clock_timestamp()
            -- given up for somebody who has not come yet
            OR l.wanted_at > clock_timestamp() - retally.lease_wish()
    )

    SELECT
        k.scope,
        k.wanted
        AND row_number() OVER (PARTITION BY k.wanted ORDER BY k.taken_at, k.scope)
        <= count(*) OVER () - s.scopes
    FROM kept AS k
    CROSS JOIN share AS s
    ORDER BY k.scope;
END
$$;
COMMENT ON FUNCTION retally.keep_leases(text, text[], bigint[], interval) IS
'Makes leases last, and answers with those that still stand.';
