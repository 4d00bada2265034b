-- What a booking adds to the totals of an unmanaged show, and a release takes away (p_cores of zero
-- or less): subscription, layer, job, folder, point, in this order; local work only to its layer
-- and to the job's local columns. p_show, p_alloc, p_layer, p_job: ids. p_cores: core units.
-- Locks and writes: a row of each.
-- Raises RT012 when a burst or a job's maximum would be passed, RT013 without a subscription.
CREATE OR REPLACE FUNCTION retally.add_to_totals(
    p_show text, p_alloc text, p_layer text, p_job text, p_cores bigint, p_gpus bigint,
    p_local boolean
)
RETURNS void
LANGUAGE plpgsql VOLATILE
-- the farm's triggers call their helpers unqualified
SET search_path = public, pg_temp
AS $$
BEGIN
    IF NOT p_local THEN
        UPDATE public.subscription AS s
        SET int_cores = s.int_cores + p_cores, int_gpus = s.int_gpus + p_gpus
        WHERE
            s.pk_show::text = p_show
            AND s.pk_alloc::text = p_alloc
            AND (p_cores <= 0 OR s.int_cores + p_cores <= s.int_burst);
        IF NOT FOUND AND p_cores > 0 THEN
            PERFORM retally.refuse_with(o.problem, o.message, o.hint)
            FROM retally.over_burst(p_show, p_alloc, p_cores) AS o;
        END IF;
    END IF;

    UPDATE public.layer_resource AS r
    SET int_cores = r.int_cores + p_cores, int_gpus = r.int_gpus + p_gpus
    WHERE r.pk_layer::text = p_layer;

    IF p_local THEN
        UPDATE public.job_resource AS r
        SET int_local_cores = r.int_local_cores + p_cores, int_local_gpus = r.int_local_gpus + p_gpus
        WHERE r.pk_job::text = p_job;
        RETURN;
    END IF;

    -- a maximum of -1 refuses everything, as the farm's own trigger does
    UPDATE public.job_resource AS r
    SET int_cores = r.int_cores + p_cores, int_gpus = r.int_gpus + p_gpus
    WHERE
        r.pk_job::text = p_job
        AND (
            p_cores <= 0
            OR (
                r.int_cores + p_cores <= r.int_max_cores
                AND r.int_gpus + p_gpus <= r.int_max_gpus
            )
        );
    IF NOT FOUND AND p_cores > 0 THEN
        PERFORM retally.refuse_with(o.problem, o.message, o.hint)
        FROM retally.over_job_max(p_job, p_cores, p_gpus) AS o;
    END IF;

    UPDATE public.folder_resource AS r
    SET int_cores = r.int_cores + p_cores, int_gpus = r.int_gpus + p_gpus
    WHERE
        r.pk_folder::text = (
            SELECT j.pk_folder::text FROM public.job AS j
            WHERE j.pk_job::text = p_job
        );

    UPDATE public.point AS t
    SET int_cores = t.int_cores + p_cores, int_gpus = t.int_gpus + p_gpus
    FROM public.job AS j
    WHERE
        j.pk_job::text = p_job
        AND t.pk_show::text = j.pk_show::text
        AND t.pk_dept::text = j.pk_dept::text;
END
$$;
COMMENT ON FUNCTION retally.add_to_totals(
    text, text, text, text, bigint, bigint, boolean
) IS 'What a booking adds to the totals of an unmanaged show, and a release takes away.';
