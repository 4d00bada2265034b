-- The show that the row of this total and key belongs to, or null when the farm knows no such
-- thing (a proc may name a job or layer that is gone).
-- p_show_id: the show in whose pass the key came up; the home of its allocations and points.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.home(p_show_id text, p_total text, p_key text)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE p_total
        WHEN 'layer'
            THEN (
                SELECT j.pk_show::text
                FROM public.layer AS l
                INNER JOIN public.job AS j ON l.pk_job::text = j.pk_job::text
                WHERE l.pk_layer::text = p_key
            )
        WHEN 'job'
            THEN (
                SELECT j.pk_show::text
                FROM public.job AS j
                WHERE j.pk_job::text = p_key
            )
        WHEN 'folder'
            THEN (
                SELECT f.pk_show::text
                FROM public.folder AS f
                WHERE f.pk_folder::text = p_key
            )
        ELSE (
            SELECT s.pk_show::text
            FROM public.show AS s
            WHERE s.pk_show::text = p_show_id
        )
    END
$$;
COMMENT ON FUNCTION retally.home(text, text, text) IS
'The show that the row of this total and key belongs to.';
