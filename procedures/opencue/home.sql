-- Where a total and key belong: the show of that row, and whether the row itself is there. No
-- answer when the farm knows no such thing (a proc may name a job or layer that is gone).
-- p_show_id: the show in whose pass the key came up; the home of its allocations and points.
-- has_row: of layers and jobs; the other totals' rows are never left out by stored_in().
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.home(p_show_id text, p_total text, p_key text)
RETURNS TABLE (show_id text, has_row boolean)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        j.pk_show::text,
        r.pk_layer IS NOT NULL
    FROM public.layer AS l
    LEFT JOIN public.layer_resource AS r ON l.pk_layer::text = r.pk_layer::text
    INNER JOIN public.job AS j ON coalesce(r.pk_job, l.pk_job)::text = j.pk_job::text
    WHERE p_total = 'layer' AND l.pk_layer::text = p_key
    UNION ALL
    SELECT
        j.pk_show::text,
        r.pk_job IS NOT NULL
    FROM public.job AS j
    LEFT JOIN public.job_resource AS r ON j.pk_job::text = r.pk_job::text
    WHERE p_total = 'job' AND j.pk_job::text = p_key
    UNION ALL
    SELECT
        f.pk_show::text,
        FALSE
    FROM public.folder AS f
    WHERE p_total = 'folder' AND f.pk_folder::text = p_key
    UNION ALL
    SELECT
        s.pk_show::text,
        FALSE
    FROM public.show AS s
    WHERE p_total IN ('subscription', 'point') AND s.pk_show::text = p_show_id
$$;
COMMENT ON FUNCTION retally.home(text, text, text) IS
'The show that the row of this total and key belongs to, and whether it is there.';
