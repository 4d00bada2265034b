-- Refuses every isolation level but READ COMMITTED. p_what: what cannot be done, to begin the
-- message with. Each further statement has to see what was committed meanwhile: a booking, a flip.
-- Locks and writes nothing.
-- Raises RT003.
CREATE OR REPLACE FUNCTION retally.require_read_committed(p_what text)
RETURNS void
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION '% at isolation level %', p_what, current_setting('transaction_isolation')
            USING ERRCODE = 'RT003',
                HINT = 'Use READ COMMITTED: what others commit meanwhile has to be seen.';
    END IF;
END
$$;
COMMENT ON FUNCTION retally.require_read_committed(text) IS
'Refuses every isolation level but READ COMMITTED.';
