-- Gives the scope to one dispatcher for p_for: its token, from now on the only one that bookings
-- are let in under. Those let in before have all ended by then, so that what is read afterwards
-- misses none. The holder itself gets a new token.
-- p_name: what people call the scope. p_holder: who asks. managed: false, bookings need no lease.
-- token: null when another one holds the scope, or is to have it next: served_by, for expires_in
-- seconds at most; it is noted then that p_holder wants the scope.
-- Locks: the scope's flag, alone. Writes: retally.lease.
-- Raises RT003; RT005 when bookings stayed in flight, or the lease locked.
CREATE OR REPLACE FUNCTION retally.take_lease(
    p_scope text, p_name text, p_holder text, p_for interval,
    OUT token bigint, OUT managed boolean, OUT served_by text, OUT expires_in double precision
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text;
BEGIN
    PERFORM retally.require_read_committed('no lease can be taken');
    managed := retally.is_managed(p_scope);
    -- most who ask are refused: without the lock that the scope's bookings would wait for
    IF managed AND NOT retally.want_lease(p_scope, p_holder) THEN
        PERFORM retally.hold_flag(p_scope, p_name);
        managed := retally.is_managed(p_scope);
        v_before := retally.set_lock_timeout(retally.lock_budget());
        INSERT INTO retally.lease AS l (scope, token, holder, expires_at)
        SELECT
            p_scope,
            -- also above those of a row that somebody has deleted
            (1e6 * extract(EPOCH FROM clock_timestamp()))::bigint,
            p_holder,
            clock_timestamp() + p_for
        WHERE managed
        ON CONFLICT (scope) DO UPDATE
            SET token = greatest(l.token + 1, excluded.token), holder = excluded.holder,
                expires_at = excluded.expires_at, taken_at = clock_timestamp(),
                wanted_by = NULL, wanted_at = NULL
            WHERE
                l.holder = excluded.holder
                OR (
                    (l.holder IS NULL OR l.expires_at <= clock_timestamp())
                    -- not what was given up for somebody else
                    AND NOT (retally.is_wanted(l.wanted_at) AND l.wanted_by <> excluded.holder)
                )
        RETURNING l.token
        INTO token;
        PERFORM set_config('lock_timeout', v_before, TRUE);
    END IF;
    IF managed AND token IS NULL THEN
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
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'another session has the lease of "%" locked', p_name
            USING ERRCODE = 'RT005', HINT = 'Let it commit or roll back, and try again.';
END
$$;
COMMENT ON FUNCTION retally.take_lease(text, text, text, interval) IS
'Gives the scope to one dispatcher for a while: its token.';
