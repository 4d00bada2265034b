-- Procs, and for the local ones what their job may use of the host: what it uses and a bit more.
INSERT INTO public.proc (
    pk_proc, pk_host, pk_job, pk_show, pk_layer, pk_frame, b_local, int_cores_reserved,
    int_mem_reserved, int_mem_pre_reserved, int_gpus_reserved, int_gpu_mem_reserved,
    int_gpu_mem_pre_reserved
)
SELECT
    running.pk_proc,
    running.pk_host,
    running.pk_job,
    running.pk_show,
    running.pk_layer,
    running.pk_frame,
    running.b_local,
    running.cores AS int_cores_reserved,
    running.mem AS int_mem_reserved,
    running.mem AS int_mem_pre_reserved,
    running.gpus AS int_gpus_reserved,
    running.gpu_mem AS int_gpu_mem_reserved,
    running.gpu_mem AS int_gpu_mem_pre_reserved
FROM pg_temp.farm_proc AS running
ORDER BY running.proc_no;

INSERT INTO public.host_local (
    pk_host_local, pk_host, pk_job, str_type, int_cores_max, int_cores_idle, int_mem_max,
    int_mem_idle, int_gpus_max, int_gpus_idle, int_gpu_mem_max, int_gpu_mem_idle, float_tier
)
SELECT
    pg_temp.farm_key(size.seed, 'host_local', min(running.proc_no)) AS pk_host_local,
    running.pk_host,
    running.pk_job,
    'JOB' AS str_type,
    sum(running.cores) + 200 AS int_cores_max,
    200 AS int_cores_idle,
    sum(running.mem) + 4194304 AS int_mem_max,
    4194304 AS int_mem_idle,
    sum(running.gpus) AS int_gpus_max,
    0 AS int_gpus_idle,
    sum(running.gpu_mem) AS int_gpu_mem_max,
    0 AS int_gpu_mem_idle,
    public.tier(sum(running.cores), sum(running.cores) + 200) AS float_tier
FROM pg_temp.farm_size AS size
CROSS JOIN pg_temp.farm_proc AS running
WHERE running.b_local
GROUP BY size.seed, running.pk_host, running.pk_job;
