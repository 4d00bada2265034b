-- The layers of managed shows whose row differs.
WITH summed AS (
    SELECT
        p.pk_layer,
        sum(p.int_cores_reserved) AS cores,
        sum(p.int_gpus_reserved) AS gpus
    FROM public.proc AS p
    GROUP BY p.pk_layer
)

UPDATE public.layer_resource AS t
SET
    int_cores = b.cores,
    int_gpus = b.gpus
FROM (
    SELECT
        k.pk_layer,
        coalesce(s.cores, 0) AS cores,
        coalesce(s.gpus, 0) AS gpus
    FROM public.layer_resource AS k
    INNER JOIN public.job AS j ON k.pk_job = j.pk_job
    INNER JOIN bench.managed AS m ON j.pk_show = m.pk_show
    LEFT JOIN summed AS s ON k.pk_layer = s.pk_layer
) AS b
WHERE t.pk_layer = b.pk_layer AND (t.int_cores <> b.cores OR t.int_gpus <> b.gpus);
