-- Raises a refusal: its private SQLSTATE, message, hint, and as the detail the proc that holds the
-- frame (p_holder), if any. Does nothing when p_problem is null.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.refuse_with(
    p_problem text, p_message text, p_hint text, p_holder text DEFAULT NULL
)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    IF p_holder IS NOT NULL THEN
        RAISE EXCEPTION '%', p_message
            USING ERRCODE = p_problem, HINT = p_hint, DETAIL = p_holder;
    ELSIF p_problem IS NOT NULL THEN
        RAISE EXCEPTION '%', p_message USING ERRCODE = p_problem, HINT = p_hint;
    END IF;
END
$$;
COMMENT ON FUNCTION retally.refuse_with(text, text, text, text) IS
'Raises a refusal: its private SQLSTATE, message, hint and detail.';
