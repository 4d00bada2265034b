-- Every point of a managed show; local procs are counted in.
WITH summed AS (
    SELECT
        j.pk_show,
        j.pk_dept,
        sum(p.int_cores_reserved) AS cores,
        sum(p.int_gpus_reserved) AS gpus
    FROM public.proc AS p
    INNER JOIN public.job AS j ON p.pk_job = j.pk_job
    GROUP BY j.pk_show, j.pk_dept
)

UPDATE public.point AS t
SET
    int_cores = b.cores,
    int_gpus = b.gpus
FROM (
    SELECT
        k.pk_point,
        coalesce(s.cores, 0) AS cores,
        coalesce(s.gpus, 0) AS gpus
    FROM public.point AS k
    INNER JOIN bench.managed AS m ON k.pk_show = m.pk_show
    LEFT JOIN summed AS s ON k.pk_show = s.pk_show AND k.pk_dept = s.pk_dept
) AS b
WHERE t.pk_point = b.pk_point;
