-- Hands out the scopes among p_scopes that are due in this tick, each to one caller only.
-- A claim moves the due time on by p_interval, so a caller that dies costs one interval, and any
-- number of workers together serve a scope once per interval. A tenth of the interval is slack.
-- Locks: rows of retally.due that are due, skipping those being claimed. Writes: retally.due.
CREATE OR REPLACE FUNCTION retally.claim_due(
    p_tick text,
    p_interval interval,
    p_scopes text[],
    p_worker text
)
RETURNS SETOF text
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    INSERT INTO retally.due (tick, scope, due_at, every, claimed_by)
    SELECT p_tick, s.scope, v_now, p_interval, ''
    FROM unnest(p_scopes) AS s (scope)
    WHERE NOT EXISTS (
        SELECT FROM retally.due AS d WHERE d.tick = p_tick AND d.scope = s.scope
    )
    ON CONFLICT (tick, scope) DO NOTHING;

    RETURN QUERY
    WITH ready AS (
        SELECT d.scope
        FROM retally.due AS d
        WHERE
            d.tick = p_tick
            AND d.scope = ANY (p_scopes)
            -- a due time further away than the interval that it was made for comes from a clock
            -- that was set back: it is not believed
            AND (
                d.due_at <= v_now + least(d.every, p_interval) / 10
                OR d.due_at > v_now + d.every * 1.1
            )
        FOR UPDATE SKIP LOCKED
    )

    UPDATE retally.due AS d
    SET
        due_at = CASE
            WHEN d.due_at + p_interval BETWEEN v_now AND v_now + p_interval * 1.1
                THEN d.due_at + p_interval
            ELSE v_now + p_interval
        END,
        every = p_interval,
        claimed_by = p_worker
    FROM ready AS r
    WHERE d.tick = p_tick AND d.scope = r.scope
    RETURNING d.scope;
END
$$;
COMMENT ON FUNCTION retally.claim_due(text, interval, text[], text) IS
'Hands out the scopes that are due in this tick, each to one caller only.';
