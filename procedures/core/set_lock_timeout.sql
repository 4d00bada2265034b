-- Bounds every further lock wait of this transaction by p_limit, or by what the session already
-- asked for where that is shorter. Returns the former setting, to be put back by set_config().
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.set_lock_timeout(p_limit interval)
RETURNS text
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text := current_setting('lock_timeout');
    v_before_ms numeric := 1000 * extract(EPOCH FROM v_before::interval);
    v_limit_ms numeric := greatest(1, round(1000 * extract(EPOCH FROM p_limit)));
BEGIN
    IF v_before_ms = 0 OR v_before_ms > v_limit_ms THEN
        PERFORM set_config('lock_timeout', v_limit_ms::text, TRUE);
    END IF;
    RETURN v_before;
END
$$;
COMMENT ON FUNCTION retally.set_lock_timeout(interval) IS
'Bounds the lock waits of this transaction; returns the former lock_timeout.';
