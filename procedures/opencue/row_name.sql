-- What a person calls the row of this total and key: the allocation, job/layer, job, folder or
-- department. The key itself where the farm has no name for it.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.row_name(p_total text, p_key text)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT coalesce(CASE p_total
        WHEN 'subscription'
            THEN (
                SELECT a.str_name::text
                FROM public.alloc AS a
                WHERE a.pk_alloc::text = p_key
            )
        WHEN 'layer'
            THEN (
                SELECT j.str_name || '/' || l.str_name
                FROM public.layer AS l
                INNER JOIN public.job AS j ON l.pk_job = j.pk_job
                WHERE l.pk_layer::text = p_key
            )
        WHEN 'job'
            THEN (
                SELECT j.str_name::text
                FROM public.job AS j
                WHERE j.pk_job::text = p_key
            )
        WHEN 'folder'
            THEN (
                SELECT f.str_name::text
                FROM public.folder AS f
                WHERE f.pk_folder::text = p_key
            )
        WHEN 'point' THEN (
            SELECT d.str_name::text
            FROM public.dept AS d
            WHERE d.pk_dept::text = p_key
        )
    END, p_key, 'none')
$$;
COMMENT ON FUNCTION retally.row_name(text, text) IS
'What a person calls the row of this total and key.';
