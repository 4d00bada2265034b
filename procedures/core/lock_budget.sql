-- How long a pass may wait for busy rows: setting.longest_wait, and never beyond half of
-- deadlock_timeout. Whoever waits for a row of ours looks for a deadlock after a whole one at the
-- earliest; by then we wait for nothing, so the server never picks a booking as the victim.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.lock_budget()
RETURNS interval
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT least(current_setting('deadlock_timeout')::interval / 2, s.longest_wait)
    FROM retally.setting AS s
$$;
COMMENT ON FUNCTION retally.lock_budget() IS
'How long a pass may wait for busy rows.';
