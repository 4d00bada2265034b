-- Hands out scopes among p_scopes that are due in this tick, each to one caller only. Due times are
-- multiples of the interval; a claim moves them on, so that a caller that dies costs one interval.
-- At most an even share for each live worker at a time, its former scopes first; late_in: after so
-- many seconds whatever is still due goes to whoever asks, next_in: then the next slot begins.
-- Locks: the rows claimed, skipping those being claimed. Writes: retally.due, retally.worker.
CREATE OR REPLACE FUNCTION retally.claim_due(
    p_tick text, p_interval interval, p_scopes text[], p_worker text,
    OUT due bigint, OUT claimed text[], OUT failures integer[],
    OUT late_in double precision, OUT next_in double precision
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    -- who comes a little early is served: clocks and timers are not exact
    v_slot timestamptz := date_bin(
        p_interval, v_now + least(p_interval / 10, interval '1 second'), timestamptz 'epoch'
    );
    v_late timestamptz := v_slot + least(p_interval / 20, interval '0.5 seconds');
    v_workers text[];
    v_mine bigint;
    v_share bigint;
BEGIN
    INSERT INTO retally.worker AS w (worker, tick, every, seen_at)
    VALUES (p_worker, p_tick, p_interval, v_now)
    ON CONFLICT (worker, tick) DO UPDATE SET every = excluded.every, seen_at = excluded.seen_at;
    v_workers := ARRAY(
        SELECT w.worker
        FROM retally.worker AS w
        WHERE
            w.tick = p_tick
            AND w.seen_at BETWEEN v_now - 2.5 * w.every AND v_now + w.every
    );

    INSERT INTO retally.due (tick, scope, due_at, every, claimed_by)
    SELECT p_tick, s.scope, v_slot, p_interval, ''
    FROM unnest(p_scopes) AS s (scope)
    WHERE NOT EXISTS (
        SELECT FROM retally.due AS d WHERE d.tick = p_tick AND d.scope = s.scope
    )
    ON CONFLICT (tick, scope) DO NOTHING;

    SELECT count(*)
    INTO v_mine
    FROM retally.due AS d
    WHERE d.tick = p_tick AND d.scope = ANY (p_scopes) AND d.claimed_by = p_worker;
    -- rounded down: what does not divide evenly stays where it is
    v_share := cardinality(p_scopes) / cardinality(v_workers);

    WITH ready AS (
        SELECT d.scope
        FROM retally.due AS d
        WHERE
            d.tick = p_tick
            AND d.scope = ANY (p_scopes)
            -- a due time further away than it was ever set comes from a clock that was set back
            AND (d.due_at <= v_slot OR d.due_at > v_now + d.every * 1.2)
            AND (
                v_now >= v_late
                OR v_mine < v_share
                OR d.claimed_by = p_worker
                OR d.claimed_by <> ALL (v_workers)
            )
        ORDER BY d.claimed_by <> p_worker, d.claimed_by = ANY (v_workers), d.scope
        LIMIT v_share + 1
        FOR UPDATE SKIP LOCKED
    ),

    taken AS (
        UPDATE retally.due AS d
        SET due_at = v_slot + p_interval, every = p_interval, claimed_by = p_worker
        FROM ready AS r
        WHERE d.tick = p_tick AND d.scope = r.scope
        RETURNING d.scope, d.failures
    )

    SELECT
        coalesce(array_agg(t.scope ORDER BY t.scope), '{}'),
        coalesce(array_agg(t.failures ORDER BY t.scope), '{}')
    INTO claimed, failures
    FROM taken AS t;

    SELECT count(*)
    INTO due
    FROM retally.due AS d
    WHERE
        d.tick = p_tick
        AND d.scope = ANY (p_scopes)
        AND (d.due_at <= v_slot OR d.due_at > v_now + d.every * 1.2);
    late_in := greatest(extract(EPOCH FROM v_late - v_now), 0);
    next_in := extract(EPOCH FROM v_slot + p_interval - v_now);
END
$$;
COMMENT ON FUNCTION retally.claim_due(text, interval, text[], text) IS
'Hands out the scopes that are due in this tick, each to one caller only.';
