-- Every show: retally's own flag in force (managed), the farm's flag (null before OpenCue 1.19,
-- which has no such column), whether the ticks rebuild its totals (rebuilt), and what they do where
-- they do not: mode, null for as the worker's settings say. journaled: the ticks fold its journal.
-- The farm's flag is read through to_jsonb, so that the routine works with and without it.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.shows()
RETURNS TABLE (
    show_id text, name text, managed boolean, farm_flag boolean, rebuilt boolean, mode text,
    journaled boolean
)
LANGUAGE sql STABLE
AS $$
    WITH flags AS (
        SELECT
            s.pk_show::text AS show_id,
            s.str_name::text AS show_name,
            retally.is_managed(s.pk_show::text) AS managed,
            (to_jsonb(s) ->> 'b_scheduler_managed')::boolean AS farm_flag
        FROM public.show AS s
    )

    SELECT
        f.show_id,
        f.show_name,
        f.managed,
        f.farm_flag,
        f.managed OR (coalesce(f.farm_flag, FALSE) AND t.follow_farm_flag),
        m.mode,
        coalesce(j.journaled, FALSE)
    FROM flags AS f
    CROSS JOIN retally.setting AS t
    LEFT JOIN retally.scope_mode AS m ON f.show_id = m.scope
    LEFT JOIN retally.scope_flag AS j ON f.show_id = j.scope
    ORDER BY f.show_name, f.show_id
$$;
COMMENT ON FUNCTION retally.shows() IS
'Every show, its flags, and whether the ticks rebuild its totals.';
