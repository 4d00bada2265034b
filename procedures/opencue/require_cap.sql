-- Refuses a cap that is null or below p_least.
-- Locks and writes nothing. Raises 22004, 22003.
CREATE OR REPLACE FUNCTION retally.require_cap(p_cap bigint, p_least bigint)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF p_cap IS NULL THEN
        RAISE EXCEPTION 'a cap cannot be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Say a number, in core units.';
    ELSIF p_cap < p_least THEN
        RAISE EXCEPTION 'a cap cannot be %', p_cap
            USING ERRCODE = 'numeric_value_out_of_range',
                HINT = format('The least is %s.', p_least)
                    || CASE WHEN p_least < 0 THEN ' It means no limit.' ELSE '' END;
    END IF;
END
$$;
COMMENT ON FUNCTION retally.require_cap(bigint, bigint) IS
'Refuses a cap that is null or below p_least.';
