-- Which of the amounts asked for is more than what is idle, in words; null when all fit.
-- Core units, kB, whole GPUs.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.shortage(
    p_cores_idle bigint, p_mem_idle bigint, p_gpus_idle bigint, p_gpu_mem_idle bigint,
    p_cores numeric, p_mem_kb numeric, p_gpus numeric, p_gpu_mem_kb numeric
)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN p_cores > p_cores_idle
            THEN format('%s core units idle, not %s', p_cores_idle, p_cores)
        WHEN p_mem_kb > p_mem_idle
            THEN format('%s kB of memory idle, not %s', p_mem_idle, p_mem_kb)
        WHEN p_gpus > p_gpus_idle
            THEN format('%s GPUs idle, not %s', p_gpus_idle, p_gpus)
        WHEN p_gpu_mem_kb > p_gpu_mem_idle
            THEN format('%s kB of GPU memory idle, not %s', p_gpu_mem_idle, p_gpu_mem_kb)
    END
$$;
COMMENT ON FUNCTION retally.shortage(
    bigint, bigint, bigint, bigint, numeric, numeric, numeric, numeric
) IS 'Which of the amounts asked for is more than what is idle, in words.';
