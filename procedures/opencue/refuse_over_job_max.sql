-- Says why a job takes no p_cores (core units) and p_gpus more; returns when the row of its total
-- is missing, for then nothing keeps count of it (retally.drift() names such rows).
-- Locks and writes nothing.
-- Raises RT012 with what is used and the maximum.
CREATE OR REPLACE FUNCTION retally.refuse_over_job_max(p_job text, p_cores bigint, p_gpus bigint)
RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_row record;
BEGIN
    SELECT
        j.str_name,
        r.int_cores,
        r.int_gpus,
        r.int_max_cores,
        r.int_max_gpus
    INTO v_row
    FROM public.job AS j
    INNER JOIN public.job_resource AS r ON j.pk_job::text = r.pk_job::text
    WHERE j.pk_job::text = p_job;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RAISE EXCEPTION 'job "%": %',
        v_row.str_name,
        CASE
            WHEN v_row.int_cores + p_cores > v_row.int_max_cores
                THEN format(
                    '%s core units more would pass its maximum of %s, %s are in use',
                    p_cores, v_row.int_max_cores, v_row.int_cores
                )
            WHEN p_gpus > 0
                THEN format(
                    '%s GPUs more would pass its maximum of %s, %s are in use',
                    p_gpus, v_row.int_max_gpus, v_row.int_gpus
                )
            ELSE format(
                'it is above its maximum of %s GPUs, %s are in use',
                v_row.int_max_gpus, v_row.int_gpus
            )
        END
        USING ERRCODE = 'RT012', HINT = 'Wait for a release, or raise the job''s maximum.';
END
$$;
COMMENT ON FUNCTION retally.refuse_over_job_max(text, bigint, bigint) IS
'Says why a job takes no more.';
