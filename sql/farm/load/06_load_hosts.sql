-- Hosts, with what is idle of them, and what they report of themselves.
INSERT INTO public.host (
    pk_host, pk_alloc, str_name, str_fqdn, str_tags, str_lock_state, int_cores, int_cores_idle,
    int_mem, int_mem_idle, int_gpus, int_gpus_idle, int_gpu_mem, int_gpu_mem_idle
)
SELECT
    planned.pk_host,
    planned.pk_alloc,
    'host' || planned.host_no AS str_name,
    'host' || planned.host_no || '.studio.example' AS str_fqdn,
    'general alloc' || planned.alloc_no || ' host' || planned.host_no AS str_tags,
    'OPEN' AS str_lock_state,
    planned.cores AS int_cores,
    planned.cores_idle AS int_cores_idle,
    planned.mem AS int_mem,
    planned.mem_idle AS int_mem_idle,
    planned.gpus AS int_gpus,
    planned.gpus_idle AS int_gpus_idle,
    planned.gpu_mem AS int_gpu_mem,
    planned.gpu_mem_idle AS int_gpu_mem_idle
FROM pg_temp.farm_host AS planned
ORDER BY planned.host_no;

INSERT INTO public.host_stat (
    pk_host_stat, pk_host, int_mem_total, int_mem_free, int_gpu_mem_total, int_gpu_mem_free, str_os
)
SELECT
    planned.pk_host AS pk_host_stat,
    planned.pk_host,
    planned.mem AS int_mem_total,
    planned.mem_idle AS int_mem_free,
    planned.gpu_mem AS int_gpu_mem_total,
    planned.gpu_mem_idle AS int_gpu_mem_free,
    'rocky9' AS str_os
FROM pg_temp.farm_host AS planned
ORDER BY planned.host_no;
