-- drift_in() with the names that people know the shows and rows by, as row_name() has them.
-- Joined rather than asked row by row: half a million names take seconds so, not minutes.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.named_drift(p_show_ids text[], p_totals text[])
RETURNS TABLE (
    show_name text, total text, name text, key text, slot text, stored numeric, booked numeric
)
LANGUAGE plpgsql STABLE
-- compiling the plan costs more than running it
SET jit = off
SET work_mem = '64MB'
-- hashing the keys is several times faster than sorting them
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    RETURN QUERY
    WITH drift AS MATERIALIZED (
        SELECT * FROM retally.drift_in(p_show_ids, p_totals)
    )

    SELECT
        s.str_name::text,
        d.total,
        coalesce(
            a.str_name::text, k.str_name || '/' || l.str_name, j.str_name::text,
            f.str_name::text, t.str_name::text, d.key
        ),
        d.key,
        d.slot,
        d.stored,
        d.booked
    FROM drift AS d
    INNER JOIN public.show AS s ON d.show_id = s.pk_show::text
    LEFT JOIN public.alloc AS a ON d.total = 'subscription' AND d.key = a.pk_alloc::text
    LEFT JOIN public.layer AS l ON d.total = 'layer' AND d.key = l.pk_layer::text
    LEFT JOIN public.job AS k ON l.pk_job = k.pk_job
    LEFT JOIN public.job AS j ON d.total = 'job' AND d.key = j.pk_job::text
    LEFT JOIN public.folder AS f ON d.total = 'folder' AND d.key = f.pk_folder::text
    LEFT JOIN public.dept AS t ON d.total = 'point' AND d.key = t.pk_dept::text
    ORDER BY
        s.str_name, d.show_id, array_position(retally.totals(), d.total), d.key, d.slot;
END
$$;
COMMENT ON FUNCTION retally.named_drift(text[], text[]) IS
'drift_in() with the names that people know the shows and rows by.';
