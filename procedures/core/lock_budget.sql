-- How long a pass may go on waiting after its first row lock: half of deadlock_timeout.
-- Whoever waits for a row of ours looks for a deadlock after deadlock_timeout at the earliest;
-- by then we wait for nothing, so the server never picks a booking as the victim.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.lock_budget()
RETURNS interval
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT current_setting('deadlock_timeout')::interval / 2
$$;
COMMENT ON FUNCTION retally.lock_budget() IS
'How long a pass may wait after its first row lock: half of deadlock_timeout.';
