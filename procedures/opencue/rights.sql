-- The rights that are enough to do all that p_for does, and no more. p_for: worker (the ticks and
-- every command but install and uninstall), dispatcher (books and releases) or reader (looks).
-- kind: schema, routines (all of a schema) or table. columns: null where it is the whole table.
-- Locks and writes nothing. Raises 22023 for another p_for.
CREATE OR REPLACE FUNCTION retally.rights(p_for text)
RETURNS TABLE (kind text, object text, privilege text, columns text[])
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    IF p_for IS NULL OR p_for NOT IN ('worker', 'dispatcher', 'reader') THEN
        RAISE EXCEPTION 'there are no rights for a "%"', coalesce(p_for, 'null')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Say worker, dispatcher or reader.';
    END IF;

    RETURN QUERY
    SELECT
        r.kind,
        o.object,
        r.privilege,
        string_to_array(r.columns, ' ')
    FROM (
        VALUES
        -- PUBLIC has these two unless the server was hardened
        ('worker dispatcher reader', 'schema', 'public', 'USAGE', NULL),
        ('worker dispatcher reader', 'routines', 'retally', 'EXECUTE', NULL),
        ('worker dispatcher reader', 'schema', 'retally', 'USAGE', NULL),
        (
            'worker dispatcher reader', 'table',
            'retally.migration retally.installed retally.setting retally.scope_flag retally.lease',
            'SELECT', NULL
        ),
        (
            'worker reader', 'table',
            'retally.scope_mode retally.pass retally.history retally.deferred retally.due '
            'retally.worker retally.run retally.ledger', 'SELECT', NULL
        ),
        ('worker dispatcher reader', 'table', 'retally.journal', 'SELECT', NULL),
        (
            'worker', 'table',
            'retally.pass retally.history retally.deferred retally.due retally.worker '
            'retally.scope_flag retally.scope_mode retally.run retally.ledger', 'INSERT', NULL
        ),
        (
            'worker', 'table',
            'retally.pass retally.deferred retally.due retally.worker retally.scope_flag '
            'retally.scope_mode retally.ledger', 'UPDATE', NULL
        ),
        -- a lock FOR UPDATE takes this right, on whichever column
        ('worker', 'table', 'retally.run', 'UPDATE', 'cause'),
        (
            'worker', 'table',
            'retally.pass retally.history retally.deferred retally.due retally.worker '
            'retally.scope_flag retally.scope_mode retally.run retally.journal', 'DELETE', NULL
        ),
        ('worker', 'table', 'retally.setting', 'UPDATE', 'override'),
        -- a flip ends the lease of its show
        ('worker dispatcher', 'table', 'retally.lease', 'UPDATE', NULL),
        ('dispatcher', 'table', 'retally.lease', 'INSERT', NULL),

        (
            'worker dispatcher reader', 'table',
            'public.show public.alloc public.job public.layer public.host public.proc '
            'public.subscription public.layer_resource public.job_resource '
            'public.folder public.folder_resource public.point', 'SELECT', NULL
        ),
        ('worker reader', 'table', 'public.dept', 'SELECT', NULL),
        ('dispatcher', 'table', 'public.frame public.host_local', 'SELECT', NULL),
        -- caps too: a total above its cap is written with a cap of one less, put back at once
        ('worker', 'table', 'public.subscription', 'UPDATE', 'int_cores int_gpus int_burst'),
        (
            'worker', 'table', 'public.job_resource', 'UPDATE',
            'int_cores int_gpus int_local_cores int_local_gpus int_max_cores int_max_gpus'
        ),
        ('worker', 'table', 'public.folder_resource', 'UPDATE', 'int_max_cores int_max_gpus'),
        ('dispatcher', 'table', 'public.subscription', 'UPDATE', 'int_cores int_gpus'),
        (
            'dispatcher', 'table', 'public.job_resource', 'UPDATE',
            'int_cores int_gpus int_local_cores int_local_gpus'
        ),
        (
            'worker dispatcher', 'table',
            'public.layer_resource public.folder_resource public.point', 'UPDATE',
            'int_cores int_gpus'
        ),
        (
            'dispatcher', 'table', 'public.host public.host_local', 'UPDATE',
            'int_cores_idle int_mem_idle int_gpus_idle int_gpu_mem_idle'
        ),
        ('dispatcher', 'table', 'public.proc', 'INSERT', NULL),
        -- for locks, as above
        ('dispatcher', 'table', 'public.proc', 'UPDATE', 'pk_frame'),
        ('dispatcher', 'table', 'public.proc', 'DELETE', NULL)
    ) AS r (purposes, kind, objects, privilege, columns)
    CROSS JOIN LATERAL unnest(string_to_array(r.objects, ' ')) AS o (object)
    WHERE p_for = any(string_to_array(r.purposes, ' '));
END
$$;
COMMENT ON FUNCTION retally.rights(text) IS
'The rights that are enough for a worker, a dispatcher or a reader.';
