-- What each row of the five totals has to be, by the plainest statement for each: nothing of
-- retally's is in it. Cores in core units.
CREATE TABLE bench.truth_subscription AS
SELECT
    s.pk_show,
    s.pk_alloc,
    coalesce(sum(p.int_cores_reserved), 0)::bigint AS int_cores,
    coalesce(sum(p.int_gpus_reserved), 0)::bigint AS int_gpus
FROM public.subscription AS s
LEFT JOIN (public.proc AS p INNER JOIN public.host AS h ON p.pk_host = h.pk_host) -- noqa: ST11
    ON s.pk_show = p.pk_show AND s.pk_alloc = h.pk_alloc AND NOT p.b_local
GROUP BY s.pk_show, s.pk_alloc;

CREATE TABLE bench.truth_layer_resource AS
SELECT
    r.pk_layer,
    coalesce(sum(p.int_cores_reserved), 0)::bigint AS int_cores,
    coalesce(sum(p.int_gpus_reserved), 0)::bigint AS int_gpus
FROM public.layer_resource AS r
LEFT JOIN public.proc AS p ON r.pk_layer = p.pk_layer
GROUP BY r.pk_layer;

CREATE TABLE bench.truth_job_resource AS
SELECT
    r.pk_job,
    coalesce(sum(p.int_cores_reserved) FILTER (WHERE NOT p.b_local), 0)::bigint AS int_cores,
    coalesce(sum(p.int_gpus_reserved) FILTER (WHERE NOT p.b_local), 0)::bigint AS int_gpus,
    coalesce(sum(p.int_cores_reserved) FILTER (WHERE p.b_local), 0)::bigint AS int_local_cores,
    coalesce(sum(p.int_gpus_reserved) FILTER (WHERE p.b_local), 0)::bigint AS int_local_gpus
FROM public.job_resource AS r
LEFT JOIN public.proc AS p ON r.pk_job = p.pk_job
GROUP BY r.pk_job;

CREATE TABLE bench.truth_folder_resource AS
SELECT
    r.pk_folder,
    coalesce(sum(p.int_cores_reserved), 0)::bigint AS int_cores,
    coalesce(sum(p.int_gpus_reserved), 0)::bigint AS int_gpus
FROM public.folder_resource AS r
LEFT JOIN (public.proc AS p INNER JOIN public.job AS j ON p.pk_job = j.pk_job) -- noqa: ST11
    ON r.pk_folder = j.pk_folder AND NOT p.b_local
GROUP BY r.pk_folder;

CREATE TABLE bench.truth_point AS
SELECT
    r.pk_show,
    r.pk_dept,
    coalesce(sum(p.int_cores_reserved), 0)::bigint AS int_cores,
    coalesce(sum(p.int_gpus_reserved), 0)::bigint AS int_gpus
FROM public.point AS r
LEFT JOIN (public.proc AS p INNER JOIN public.job AS j ON p.pk_job = j.pk_job) -- noqa: ST11
    ON r.pk_show = j.pk_show AND r.pk_dept = j.pk_dept AND NOT p.b_local
GROUP BY r.pk_show, r.pk_dept;

ANALYZE
bench.truth_subscription, bench.truth_layer_resource, bench.truth_job_resource,
bench.truth_folder_resource, bench.truth_point;
