-- Whether a due time has come by p_until. One that is further away from p_now than it was ever set
-- ahead (p_every) comes from a clock that was set back since, and counts as come.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.is_due(
    p_due_at timestamptz, p_every interval, p_until timestamptz, p_now timestamptz
)
RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    -- a due time is set a tenth of the interval early at most
    SELECT p_due_at <= p_until OR p_due_at > p_now + p_every * 1.2
$$;
COMMENT ON FUNCTION retally.is_due(timestamptz, interval, timestamptz, timestamptz) IS
'Whether a due time has come.';
