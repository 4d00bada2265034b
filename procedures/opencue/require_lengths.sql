-- Refuses arrays of a batch that differ in length. p_given: the lengths of those that have to be
-- there; p_optional: null for one that is left out. Locks and writes nothing. Raises RT008.
CREATE OR REPLACE FUNCTION retally.require_lengths(p_given integer[], p_optional integer[])
RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF array_position(p_given, NULL) IS NOT NULL
        OR (SELECT count(DISTINCT l.length) > 1 FROM unnest(p_given || p_optional) AS l (length))
    THEN
        RAISE EXCEPTION 'the arrays of a batch differ in length, or one of them is null'
            USING ERRCODE = 'RT008',
                HINT = 'Each has one element for each proc; from that of the GPUs on they may be'
                    || ' left out.';
    END IF;
END
$$;
COMMENT ON FUNCTION retally.require_lengths(integer[], integer[]) IS
'Refuses arrays of a batch that differ in length.';
