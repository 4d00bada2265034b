-- Every job of a managed show that is not finished, changed or not; local procs are counted in.
-- Where the sum is above a maximum, that goes out of the way.
WITH summed AS (
    SELECT
        p.pk_job,
        sum(p.int_cores_reserved) AS cores,
        sum(p.int_gpus_reserved) AS gpus
    FROM public.proc AS p
    GROUP BY p.pk_job
)

UPDATE public.job_resource AS t
SET
    int_cores = b.cores,
    int_gpus = b.gpus,
    int_max_cores = greatest(t.int_max_cores, b.cores),
    int_max_gpus = greatest(t.int_max_gpus, b.gpus)
FROM (
    SELECT
        j.pk_job,
        coalesce(s.cores, 0) AS cores,
        coalesce(s.gpus, 0) AS gpus
    FROM public.job AS j
    INNER JOIN bench.managed AS m ON j.pk_show = m.pk_show
    LEFT JOIN summed AS s ON j.pk_job = s.pk_job
    WHERE j.str_state <> 'FINISHED'
) AS b
WHERE t.pk_job = b.pk_job;
