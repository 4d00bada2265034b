-- Hands out scopes among p_scopes that are due in this tick, each to one caller only. Due times are
-- multiples of the interval; a claim moves them on, so that a caller that dies costs one interval.
-- Each live worker gets an even share, its former scopes first; after late_in seconds what others
-- left is anyone's. due: how many are still due; next_in: seconds until the next slot begins.
-- Locks: the rows claimed, skipping those being claimed. Writes: retally.due, retally.worker.
CREATE OR REPLACE FUNCTION retally.claim_due(
    p_tick text, p_interval interval, p_scopes text[], p_worker text,
    p_now timestamptz DEFAULT clock_timestamp(),
    OUT due bigint, OUT claimed text[], OUT failures integer[],
    OUT late_in double precision, OUT next_in double precision
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    -- who comes a little early is served: clocks and timers are not exact
    v_slot timestamptz := date_bin(
        p_interval, p_now + least(p_interval / 10, interval '1 second'), timestamptz 'epoch'
    );
    v_late timestamptz := v_slot + least(p_interval / 20, interval '0.5 seconds');
    v_workers text[];
    v_share bigint;
    v_room bigint;
BEGIN
    INSERT INTO retally.worker AS w (worker, tick, every, seen_at)
    VALUES (p_worker, p_tick, p_interval, p_now)
    ON CONFLICT (worker, tick) DO UPDATE SET every = excluded.every, seen_at = excluded.seen_at;
    v_workers := ARRAY(
        SELECT w.worker
        FROM retally.worker AS w
        WHERE w.tick = p_tick AND retally.is_alive(w.seen_at, w.every, p_now)
        ORDER BY w.worker
    );
    -- what does not divide evenly goes to the first ones, so that the shares add up
    v_share := cardinality(p_scopes) / cardinality(v_workers)
    + (
        array_position(v_workers, p_worker) <= cardinality(p_scopes) % cardinality(v_workers)
    )::integer;

    INSERT INTO retally.due (tick, scope, due_at, every, claimed_by)
    SELECT p_tick, s.scope, v_slot, p_interval, ''
    FROM unnest(p_scopes) AS s (scope)
    WHERE NOT EXISTS (
        SELECT FROM retally.due AS d WHERE d.tick = p_tick AND d.scope = s.scope
    )
    -- two sessions that add the same rows must come to them in the same order
    ORDER BY s.scope
    ON CONFLICT (tick, scope) DO NOTHING;

    IF p_now >= v_late THEN
        v_room := greatest(v_share, 1);
    ELSE
        SELECT v_share - count(*)
        INTO v_room
        FROM retally.due AS d
        WHERE
            d.tick = p_tick
            AND d.scope = ANY (p_scopes)
            AND d.claimed_by = p_worker
            AND NOT retally.is_due(d.due_at, d.every, v_slot, p_now);
    END IF;

    WITH ready AS (
        SELECT d.scope
        FROM retally.due AS d
        WHERE
            d.tick = p_tick
            AND d.scope = ANY (p_scopes)
            AND retally.is_due(d.due_at, d.every, v_slot, p_now)
        ORDER BY d.claimed_by <> p_worker, d.claimed_by = ANY (v_workers), d.scope
        LIMIT greatest(v_room, 0)
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
        AND retally.is_due(d.due_at, d.every, v_slot, p_now);
    late_in := greatest(extract(EPOCH FROM v_late - p_now), 0);
    next_in := extract(EPOCH FROM v_slot + p_interval - p_now);
END
$$;
COMMENT ON FUNCTION retally.claim_due(text, interval, text[], text, timestamptz) IS
'Hands out the scopes that are due in this tick, each to one caller only.';
