-- Tells the listeners of acct_release that p_cores (core units) and p_gpus were released, in
-- OpenCue's wire form: ids, and whole cores and GPUs below zero. Cut to whole cores, it never says
-- more than is true. p_layer: null for several of the job. Sent when the transaction commits; such
-- commits queue behind each other.
-- Beside the wire form: core_units, exact; xact, by which a listener knows whether the procs that
-- it has read were there still; and hosts, unless they are too many for a payload, by which it
-- knows whether the procs were in this allocation when it has counted them.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.notify_release(
    p_show text, p_alloc text, p_layer text, p_job text, p_cores bigint, p_gpus bigint,
    p_hosts text[]
)
RETURNS void
LANGUAGE sql VOLATILE
AS $$
    SELECT
        pg_notify(
            'acct_release',
            json_build_object(
                'show', p_show, 'alloc', p_alloc, 'folder', j.pk_folder, 'job', p_job,
                'layer', p_layer, 'dept', j.pk_dept, 'cores', -(p_cores / 100), 'gpus', -p_gpus,
                'core_units', -p_cores, 'xact', pg_current_xact_id()::text,
                'hosts', CASE WHEN cardinality(p_hosts) <= 100 THEN to_json(p_hosts) END
            )::text
        )
    FROM (VALUES (p_job)) AS asked (job)
    LEFT JOIN public.job AS j ON asked.job = j.pk_job::text
$$;
COMMENT ON FUNCTION retally.notify_release(text, text, text, text, bigint, bigint, text[]) IS
'Tells the listeners of acct_release what was released.';
