-- What speaks against this booking, looked at without a lock: the first reason as a private
-- SQLSTATE, a message that names the thing, a hint, and the proc that holds the frame (RT010).
-- All null when nothing speaks against it.
-- Parameters as of book_proc(). Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.refusal(
    p_host text, p_job text, p_layer text, p_frame text, p_cores bigint, p_mem_kb bigint,
    p_gpus bigint, p_gpu_mem_kb bigint, p_local boolean,
    OUT problem text, OUT message text, OUT hint text, OUT holder text
)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_host record;
    v_share record;
    v_proc record;
BEGIN
    IF p_local IS NULL
        OR NOT coalesce(p_cores > 0 AND least(p_mem_kb, p_gpus, p_gpu_mem_kb) >= 0, FALSE)
        OR num_nulls(p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb) > 0
    THEN
        problem := 'RT008';
        message := format(
            'nothing can be booked with %s core units, %s kB, %s GPUs, %s kB of GPU memory, local %s',
            coalesce(p_cores::text, 'null'), coalesce(p_mem_kb::text, 'null'),
            coalesce(p_gpus::text, 'null'), coalesce(p_gpu_mem_kb::text, 'null'),
            coalesce(p_local::text, 'null')
        );
        hint := 'Cores are core units (100 are a core) and above 0, all others 0 or more.';
        RETURN;
    END IF;

    message := CASE
        WHEN NOT EXISTS (SELECT FROM public.job AS j WHERE j.pk_job::text = p_job)
            THEN format('there is no job "%s"', p_job)
        WHEN NOT EXISTS (
                SELECT FROM public.layer AS l
                WHERE l.pk_layer::text = p_layer AND l.pk_job::text = p_job
            )
            THEN format('job "%s" has no layer "%s"', p_job, p_layer)
        WHEN p_frame IS NOT NULL
            AND NOT EXISTS (
                SELECT FROM public.frame AS f
                WHERE f.pk_frame::text = p_frame AND f.pk_layer::text = p_layer
            )
            THEN format('layer "%s" has no frame "%s"', p_layer, p_frame)
        WHEN NOT EXISTS (SELECT FROM public.host AS h WHERE h.pk_host::text = p_host)
            THEN format('there is no host "%s"', p_host)
    END;
    IF message IS NOT NULL THEN
        problem := 'RT009';
        hint := 'Name it by its id (pk_job, pk_layer, pk_frame, pk_host).';
        RETURN;
    END IF;

    SELECT
        p.pk_proc AS proc,
        h.str_name AS host
    INTO v_proc
    FROM public.proc AS p
    INNER JOIN public.host AS h ON p.pk_host::text = h.pk_host::text
    WHERE p.pk_frame::text = p_frame;
    IF FOUND THEN
        problem := 'RT010';
        holder := v_proc.proc;
        message := format(
            'frame "%s" is booked already: proc %s on host %s', p_frame, v_proc.proc, v_proc.host
        );
        hint := 'Another dispatcher was first, or it is the answer to an earlier call that was lost.';
        RETURN;
    END IF;

    SELECT h.*
    INTO v_host
    FROM public.host AS h
    WHERE h.pk_host::text = p_host;
    IF p_local THEN
        SELECT s.*
        INTO v_share
        FROM public.host_local AS s
        WHERE s.pk_host::text = p_host AND s.pk_job::text = p_job;
        IF NOT FOUND THEN
            problem := 'RT009';
            message := format('host %s has no local share for job "%s"', v_host.str_name, p_job);
            hint := 'Book it as not local, or make the share (host_local) first.';
            RETURN;
        END IF;
        message := retally.shortage(
            v_share.int_cores_idle, v_share.int_mem_idle, v_share.int_gpus_idle,
            v_share.int_gpu_mem_idle, p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb
        );
        IF message IS NOT NULL THEN
            problem := 'RT011';
            message := format('job "%s" on its own host %s has %s', p_job, v_host.str_name, message);
            hint := 'Wait for a release, or raise the local share.';
            RETURN;
        END IF;
    END IF;

    message := retally.shortage(
        v_host.int_cores_idle, v_host.int_mem_idle, v_host.int_gpus_idle, v_host.int_gpu_mem_idle,
        p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb
    );
    IF message IS NOT NULL THEN
        problem := 'RT011';
        message := format('host %s has %s', v_host.str_name, message);
        hint := 'Choose another host, or wait for a release.';
    END IF;
END
$$;
COMMENT ON FUNCTION retally.refusal(
    text, text, text, text, bigint, bigint, bigint, bigint, boolean
) IS 'What speaks against this booking: SQLSTATE, message, hint, holder of the frame.';
