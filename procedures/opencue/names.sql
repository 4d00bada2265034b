-- What people call the row of each total and key: the allocation, job/layer, job, folder or
-- department.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.names()
RETURNS TABLE (total text, key text, name text)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        'subscription' AS total,
        a.pk_alloc::text AS key,
        a.str_name::text AS name
    FROM public.alloc AS a
    UNION ALL
    SELECT
        'layer',
        l.pk_layer::text,
        j.str_name::text || '/' || l.str_name::text
    FROM public.layer AS l
    INNER JOIN public.job AS j ON l.pk_job::text = j.pk_job::text
    UNION ALL
    SELECT
        'job',
        j.pk_job::text,
        j.str_name::text
    FROM public.job AS j
    UNION ALL
    SELECT
        'folder',
        f.pk_folder::text,
        f.str_name::text
    FROM public.folder AS f
    UNION ALL
    SELECT
        'point',
        d.pk_dept::text,
        d.str_name::text
    FROM public.dept AS d
$$;
COMMENT ON FUNCTION retally.names() IS 'What people call the row of each total and key.';
