-- The flag in force of a scope whose own flag is p_asked, under this override.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.overridden(p_asked boolean, p_override text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE p_override WHEN 'all' THEN TRUE WHEN 'none' THEN FALSE ELSE p_asked END
$$;
COMMENT ON FUNCTION retally.overridden(boolean, text) IS
'The flag in force of a scope whose own flag is p_asked, under this override.';
