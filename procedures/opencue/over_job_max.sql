-- Why a job takes no p_cores (core units) and p_gpus more: RT012 with the maximum and what is in
-- use, RT014 when it does by now. All null when the row of its total is missing: nothing keeps
-- count of it then, and retally.drift() names it.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.over_job_max(
    p_job text, p_cores bigint, p_gpus bigint, OUT problem text, OUT message text, OUT hint text
)
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
    ELSIF v_row.int_cores + p_cores <= v_row.int_max_cores
        AND v_row.int_gpus + p_gpus <= v_row.int_max_gpus
    THEN
        problem := 'RT014';
        message := format('job "%s" was full a moment ago', v_row.str_name);
        hint := 'That is over: try again.';
        RETURN;
    END IF;
    problem := 'RT012';
    message := format('job "%s": ', v_row.str_name) || CASE
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
            'it is above its maximum of %s GPUs, %s are in use', v_row.int_max_gpus, v_row.int_gpus
        )
    END;
    hint := 'Wait for a release, or raise the job''s maximum.';
END
$$;
COMMENT ON FUNCTION retally.over_job_max(text, bigint, bigint) IS
'Why a job takes no more.';
