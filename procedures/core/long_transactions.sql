-- The transactions of this database that are open for longer than p_longer, prepared ones too, the
-- oldest first: they keep vacuum from the rows of busy totals, and may hold up a flip.
-- name: the pid, or the gid of a prepared one. state: as in pg_stat_activity, or prepared.
-- Of other roles' sessions only a member of pg_read_all_stats sees them.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.long_transactions(p_longer interval)
RETURNS TABLE (
    name text, role_name text, application text, state text, seconds double precision
)
LANGUAGE sql VOLATILE
AS $$
    SELECT
        t.name,
        t.role_name,
        t.application,
        t.state,
        extract(EPOCH FROM clock_timestamp() - t.begun_at)
    FROM (
        SELECT
            a.pid::text AS name,
            a.usename::text AS role_name,
            a.application_name AS application,
            a.state,
            a.xact_start AS begun_at
        FROM pg_catalog.pg_stat_activity AS a
        WHERE
            a.datname = current_database()
            AND a.backend_type = 'client backend'
            AND a.pid <> pg_backend_pid()
        UNION ALL
        SELECT
            x.gid,
            x.owner::text,
            '',
            'prepared',
            x.prepared
        FROM pg_catalog.pg_prepared_xacts AS x
        WHERE x.database = current_database()
    ) AS t
    WHERE t.begun_at < clock_timestamp() - p_longer
    ORDER BY t.begun_at
$$;
COMMENT ON FUNCTION retally.long_transactions(interval) IS
'The transactions of this database that are open for long, prepared ones too.';
