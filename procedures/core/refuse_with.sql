-- Raises a refusal: its private SQLSTATE, message and hint. Does nothing when p_problem is null.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.refuse_with(p_problem text, p_message text, p_hint text)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF p_problem IS NOT NULL THEN
        RAISE EXCEPTION '%', p_message USING ERRCODE = p_problem, HINT = p_hint;
    END IF;
END
$$;
COMMENT ON FUNCTION retally.refuse_with(text, text, text) IS
'Raises a refusal: its private SQLSTATE, message and hint.';
