-- Whether a booking of a managed scope may go ahead under this token: under the token of a lease
-- that has not ended, or under none (null) where nobody holds a lease. p_lease: the scope's, as a
-- left join brings it. Exact for who holds the scope's flag, shared: take_lease() has it alone.
-- Locks and writes nothing. Inlined.
CREATE OR REPLACE FUNCTION retally.lease_stands(p_lease retally.lease, p_token bigint)
RETURNS boolean
LANGUAGE sql VOLATILE
AS $$
    SELECT
        CASE
            WHEN p_token IS NULL THEN (p_lease).holder IS NULL
            ELSE coalesce(
                (p_lease).holder IS NOT NULL
                AND (p_lease).token = p_token
                AND (p_lease).expires_at > clock_timestamp(),
                FALSE
            )
        END
$$;
COMMENT ON FUNCTION retally.lease_stands(retally.lease, bigint) IS
'Whether a booking of a managed scope may go ahead under this token.';
