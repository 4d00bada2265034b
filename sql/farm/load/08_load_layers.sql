-- Layers, and their side rows where no trigger has made them.
INSERT INTO public.layer (
    pk_layer, pk_job, str_name, str_cmd, str_range, int_dispatch_order, int_cores_min, int_mem_min,
    int_gpus_min, int_gpu_mem_min, str_tags, str_type
)
SELECT
    layer.pk_layer,
    layer.pk_job,
    layer.str_name,
    'render --frame #IFRAME#' AS str_cmd,
    '1-' || layer.procs + 1 AS str_range,
    layer.layer_of_job AS int_dispatch_order,
    layer.cores AS int_cores_min,
    layer.mem AS int_mem_min,
    layer.gpus AS int_gpus_min,
    layer.gpus * 4194304::bigint AS int_gpu_mem_min,
    'general' AS str_tags,
    'Render' AS str_type
FROM pg_temp.farm_layer AS layer
ORDER BY layer.layer_no;

INSERT INTO public.layer_resource (pk_layer_resource, pk_layer, pk_job)
SELECT
    layer.pk_layer AS pk_layer_resource,
    layer.pk_layer,
    layer.pk_job
FROM pg_temp.farm_layer AS layer
WHERE NOT EXISTS (
    SELECT 1 FROM public.layer_resource AS side
    WHERE side.pk_layer = layer.pk_layer
);

INSERT INTO public.layer_stat (pk_layer_stat, pk_layer, pk_job)
SELECT
    layer.pk_layer AS pk_layer_stat,
    layer.pk_layer,
    layer.pk_job
FROM pg_temp.farm_layer AS layer
WHERE NOT EXISTS (
    SELECT 1 FROM public.layer_stat AS side
    WHERE side.pk_layer = layer.pk_layer
);

INSERT INTO public.layer_usage (pk_layer_usage, pk_layer, pk_job)
SELECT
    layer.pk_layer AS pk_layer_usage,
    layer.pk_layer,
    layer.pk_job
FROM pg_temp.farm_layer AS layer
WHERE NOT EXISTS (
    SELECT 1 FROM public.layer_usage AS side
    WHERE side.pk_layer = layer.pk_layer
);

INSERT INTO public.layer_mem (pk_layer_mem, pk_layer, pk_job)
SELECT
    layer.pk_layer AS pk_layer_mem,
    layer.pk_layer,
    layer.pk_job
FROM pg_temp.farm_layer AS layer
WHERE NOT EXISTS (
    SELECT 1 FROM public.layer_mem AS side
    WHERE side.pk_layer = layer.pk_layer
);
