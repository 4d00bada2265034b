-- Sets what a job may use and, with setting.notify, tells the dispatchers when this commits.
-- p_job: pk_job. p_max_cores: core units, p_max_gpus: GPUs; -1: no limit, null: as it is.
-- Only admission knows "no limit": in a show that is not managed, -1 refuses all of the job's
-- bookings, as the farm's own trigger does.
-- Locks and writes: a row of job_resource. Raises RT009; 22003 below -1.
CREATE OR REPLACE PROCEDURE retally.set_job_max(
    p_job text, p_max_cores integer, p_max_gpus integer DEFAULT NULL
)
LANGUAGE plpgsql
-- the farm's triggers call their helpers unqualified
SET search_path = public, pg_temp
AS $$
BEGIN
    PERFORM retally.require_cap(coalesce(p_max_cores, -1), -1);
    PERFORM retally.require_cap(coalesce(p_max_gpus, -1), -1);
    UPDATE public.job_resource AS r
    SET
        int_max_cores = coalesce(p_max_cores, r.int_max_cores),
        int_max_gpus = coalesce(p_max_gpus, r.int_max_gpus)
    WHERE r.pk_job::text = p_job;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no job "%"', p_job
            USING ERRCODE = 'RT009', HINT = 'Name it by its id (pk_job).';
    END IF;
    PERFORM retally.notify_limit(
        jsonb_build_object('vertex', 'job', 'id', p_job), 'max_cores', p_max_cores, p_max_gpus
    );
END
$$;
COMMENT ON PROCEDURE retally.set_job_max (text, integer, integer) IS
'Sets what a job may use and tells the dispatchers.';
