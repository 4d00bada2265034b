-- Whether a worker that was last seen at p_seen_at, and says so every p_every, is taken for alive:
-- not after two of its ticks running were missed, nor when its time is ahead of the clock.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.is_alive(
    p_seen_at timestamptz, p_every interval, p_now timestamptz
)
RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT p_seen_at BETWEEN p_now - p_every * 2.5 AND p_now + p_every
$$;
COMMENT ON FUNCTION retally.is_alive(timestamptz, interval, timestamptz) IS
'Whether a worker that was last seen then is taken for alive.';
