-- Every show: retally's own flag (managed), the farm's flag (null before OpenCue 1.19, which has
-- no such column), and whether the ticks rebuild its totals (rebuilt).
-- The farm's flag is read through to_jsonb, so that the routine works with and without it.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.shows()
RETURNS TABLE (show_id text, name text, managed boolean, farm_flag boolean, rebuilt boolean)
LANGUAGE sql STABLE
AS $$
    SELECT
        s.pk_show::text,
        s.str_name::text,
        m.scope IS NOT NULL,
        f.flag,
        m.scope IS NOT NULL OR (coalesce(f.flag, false) AND t.follow_farm_flag)
    FROM public.show AS s
    CROSS JOIN retally.setting AS t
    CROSS JOIN LATERAL (SELECT (to_jsonb(s) ->> 'b_scheduler_managed')::boolean) AS f (flag)
    LEFT JOIN retally.managed_scope AS m ON s.pk_show::text = m.scope
    ORDER BY s.str_name, s.pk_show
$$;
COMMENT ON FUNCTION retally.shows() IS
'Every show, its flags, and whether the ticks rebuild its totals.';
