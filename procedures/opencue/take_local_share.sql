-- Takes what local work uses from the job's share of its own host (host_local), or gives it back
-- (p_cores of zero or less; nothing happens where the share is gone). False when it does not fit.
-- p_host, p_job: ids. Core units, kB, whole GPUs.
-- Locks and writes: one row of host_local.
CREATE OR REPLACE FUNCTION retally.take_local_share(
    p_host text, p_job text, p_cores bigint, p_mem_kb bigint, p_gpus bigint, p_gpu_mem_kb bigint
)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
-- the farm's triggers call their helpers unqualified
SET search_path = public, pg_temp
AS $$
BEGIN
    UPDATE public.host_local AS s
    SET
        int_cores_idle = s.int_cores_idle - p_cores,
        int_mem_idle = s.int_mem_idle - p_mem_kb,
        int_gpus_idle = s.int_gpus_idle - p_gpus,
        int_gpu_mem_idle = s.int_gpu_mem_idle - p_gpu_mem_kb
    WHERE
        s.pk_host::text = p_host
        AND s.pk_job::text = p_job
        AND (
            p_cores <= 0
            OR (
                s.int_cores_idle >= p_cores
                AND s.int_mem_idle >= p_mem_kb
                AND s.int_gpus_idle >= p_gpus
                AND s.int_gpu_mem_idle >= p_gpu_mem_kb
            )
        );
    RETURN FOUND OR p_cores <= 0;
END
$$;
COMMENT ON FUNCTION retally.take_local_share(text, text, bigint, bigint, bigint, bigint) IS
'Takes what local work uses from the job''s share of its own host, or gives it back.';
