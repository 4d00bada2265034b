-- Gives the scope to one dispatcher for p_for: its token, from now on the only one that bookings
-- are let in under. Those let in before have all ended by then, so that what is read afterwards
-- misses none. The holder itself gets a new token.
-- p_name: what people call the scope. p_holder: who asks. managed: false, bookings need no lease.
-- token: null when another one holds the scope, or is to have it next: served_by, for expires_in
-- seconds at most; it is noted then that p_holder wants the scope.
-- Locks: the scope's flag, alone. Writes: retally.lease. Raises RT003, RT005.
CREATE OR REPLACE FUNCTION retally.take_lease(
    p_scope text, p_name text, p_holder text, p_for interval,
    OUT token bigint, OUT managed boolean, OUT served_by text, OUT expires_in double precision
)
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM retally.require_read_committed('no lease can be taken');
    -- most who ask are refused: without the lock that the scope's bookings would wait for
    managed := retally.is_managed(p_scope);
    IF NOT managed THEN
        RETURN;
    END IF;
    UPDATE retally.lease AS l
    SET wanted_by = p_holder, wanted_at = clock_timestamp()
    WHERE
        l.scope = p_scope
        AND l.holder <> p_holder
        AND l.expires_at > clock_timestamp()
        AND (
            l.wanted_by IS NULL
            OR l.wanted_by = p_holder
            OR l.wanted_at <= clock_timestamp() - retally.lease_wish()
        );
    IF NOT FOUND THEN
        IF NOT EXISTS (
            SELECT
            FROM retally.lease AS l
            WHERE
                l.scope = p_scope
                AND l.holder <> p_holder
                AND l.expires_at > clock_timestamp()
        ) THEN
            PERFORM retally.hold_flag(p_scope, p_name);
            managed := retally.is_managed(p_scope);
            IF NOT managed THEN
                RETURN;
            END IF;
            INSERT INTO retally.lease AS l (scope, token, holder, expires_at)
            VALUES (
                p_scope,
                -- also above those of a row that somebody has deleted
                (1e6 * extract(EPOCH FROM clock_timestamp()))::bigint,
                p_holder,
                clock_timestamp() + p_for
            )
            ON CONFLICT (scope) DO UPDATE
                SET token = greatest(l.token + 1, excluded.token), holder = excluded.holder,
                    expires_at = excluded.expires_at, taken_at = clock_timestamp(),
                    wanted_by = NULL, wanted_at = NULL
                WHERE
                    l.holder = excluded.holder
                    OR (
                        (l.holder IS NULL OR l.expires_at <= clock_timestamp())
                        -- given up for somebody else
                        AND NOT coalesce(
                            l.wanted_by <> excluded.holder
                            AND l.wanted_at > clock_timestamp() - retally.lease_wish(),
                            FALSE
                        )
                    )
            RETURNING l.token
            INTO token;
        END IF;
    END IF;
    IF token IS NULL THEN
        SELECT
            CASE WHEN l.expires_at > clock_timestamp() THEN l.holder ELSE l.wanted_by END,
            extract(
                EPOCH FROM greatest(l.expires_at, l.wanted_at + retally.lease_wish())
                - clock_timestamp()
            )
        INTO served_by, expires_in
        FROM retally.lease AS l
        WHERE l.scope = p_scope;
    END IF;
END
$$;
COMMENT ON FUNCTION retally.take_lease(text, text, text, interval) IS
'Gives the scope to one dispatcher for a while: its token.';
