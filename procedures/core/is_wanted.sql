-- Whether the wish of a dispatcher that was refused a scope still counts. p_wanted_at: as of
-- retally.lease; null: there is none. Locks and writes nothing. Inlined.
CREATE OR REPLACE FUNCTION retally.is_wanted(p_wanted_at timestamptz)
RETURNS boolean
LANGUAGE sql VOLATILE
AS $$
    SELECT coalesce(p_wanted_at > clock_timestamp() - retally.lease_wish(), FALSE)
$$;
COMMENT ON FUNCTION retally.is_wanted(timestamptz) IS
'Whether the wish of a dispatcher that was refused a scope still counts.';
