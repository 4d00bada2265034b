-- Keeps the scope's flag as it is until this transaction ends, and answers with it: whether
-- bookings leave the totals alone. Waits while a flip is under way, as lock_timeout allows.
-- Locks: the scope's flag, shared, until the transaction ends. Writes nothing.
-- Raises RT003 above READ COMMITTED, 55P03 when a wait took too long.
CREATE OR REPLACE FUNCTION retally.pin_flag(p_scope text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM retally.require_read_committed('nothing can be booked or released');
    PERFORM pg_advisory_xact_lock_shared(retally.flag_lock(p_scope));
    -- a statement of its own, begun after the lock was had: it sees the latest flip
    RETURN retally.is_managed(p_scope);
END
$$;
COMMENT ON FUNCTION retally.pin_flag(text) IS
'Keeps the scope''s flag as it is until this transaction ends, and answers with it.';
