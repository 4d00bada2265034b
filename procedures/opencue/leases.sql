-- The leases that somebody holds: which dispatcher serves which show, under which token. live:
-- false once it has ended without being given up, as after a crash of the dispatcher.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.leases()
RETURNS TABLE (
    show_id text, name text, holder text, token bigint, taken_at timestamptz,
    expires_at timestamptz, live boolean, wanted_by text
)
LANGUAGE sql STABLE
AS $$
    SELECT
        l.scope,
        s.str_name::text,
        l.holder,
        l.token,
        l.taken_at,
        l.expires_at,
        l.expires_at > clock_timestamp(),
        CASE WHEN retally.is_wanted(l.wanted_at) THEN l.wanted_by END
    FROM retally.lease AS l
    LEFT JOIN public.show AS s ON l.scope = s.pk_show::text
    WHERE l.holder IS NOT NULL
    ORDER BY 2, 1
$$;
COMMENT ON FUNCTION retally.leases() IS 'The leases that somebody holds.';
