-- A running frame for each proc, and one more in each live layer that waits for a dispatcher.
INSERT INTO public.frame (
    pk_frame, pk_layer, pk_job, str_name, str_state, int_number, int_layer_order, str_host,
    int_cores, int_mem_reserved, int_gpus, int_gpu_mem_reserved, ts_started, ts_updated
)
SELECT
    running.pk_frame,
    running.pk_layer,
    running.pk_job,
    concat(
        lpad(running.frame_no::text, greatest(4, length(running.frame_no::text)), '0'),
        '-', running.layer_name
    ) AS str_name,
    'RUNNING' AS str_state,
    running.frame_no AS int_number,
    running.frame_no - 1 AS int_layer_order,
    'host' || running.host_no AS str_host,
    running.cores AS int_cores,
    running.mem AS int_mem_reserved,
    running.gpus AS int_gpus,
    running.gpu_mem AS int_gpu_mem_reserved,
    current_timestamp AS ts_started,
    current_timestamp AS ts_updated
FROM pg_temp.farm_proc AS running
ORDER BY running.proc_no;

INSERT INTO public.frame (
    pk_frame, pk_layer, pk_job, str_name, str_state, int_number, int_layer_order, ts_eligible
)
SELECT
    pg_temp.farm_key(size.seed, 'waiting frame', layer.layer_no) AS pk_frame,
    layer.pk_layer,
    layer.pk_job,
    concat(
        lpad((layer.procs + 1)::text, greatest(4, length((layer.procs + 1)::text)), '0'),
        '-', layer.str_name
    ) AS str_name,
    'WAITING' AS str_state,
    layer.procs + 1 AS int_number,
    layer.procs AS int_layer_order,
    current_timestamp AS ts_eligible
FROM pg_temp.farm_size AS size
CROSS JOIN pg_temp.farm_layer AS layer
WHERE layer.live
ORDER BY layer.layer_no;
