-- Every folder, whoever keeps its show's totals; local procs are counted in.
WITH summed AS (
    SELECT
        j.pk_folder,
        sum(p.int_cores_reserved) AS cores,
        sum(p.int_gpus_reserved) AS gpus
    FROM public.proc AS p
    INNER JOIN public.job AS j ON p.pk_job = j.pk_job
    INNER JOIN bench.managed AS m ON p.pk_show = m.pk_show
    GROUP BY j.pk_folder
)

UPDATE public.folder_resource AS t
SET
    int_cores = b.cores,
    int_gpus = b.gpus
FROM (
    SELECT
        k.pk_folder,
        coalesce(s.cores, 0) AS cores,
        coalesce(s.gpus, 0) AS gpus
    FROM public.folder_resource AS k
    LEFT JOIN summed AS s ON k.pk_folder = s.pk_folder
) AS b
WHERE t.pk_folder = b.pk_folder;
