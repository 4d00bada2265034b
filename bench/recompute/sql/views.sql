-- A materialized view instead of each total, with the unique index that a concurrent refresh
-- needs: only keys that have procs. All read bench.source, which stands for the procs.
CREATE MATERIALIZED VIEW bench.view_subscription AS
SELECT
    p.pk_show,
    h.pk_alloc,
    sum(p.int_cores_reserved) AS int_cores,
    sum(p.int_gpus_reserved) AS int_gpus
FROM bench.source AS p
INNER JOIN public.host AS h ON p.pk_host = h.pk_host
WHERE NOT p.b_local
GROUP BY p.pk_show, h.pk_alloc
WITH NO DATA;
CREATE UNIQUE INDEX view_subscription_key ON bench.view_subscription (pk_show, pk_alloc);

CREATE MATERIALIZED VIEW bench.view_layer_resource AS
SELECT
    p.pk_layer,
    sum(p.int_cores_reserved) AS int_cores,
    sum(p.int_gpus_reserved) AS int_gpus
FROM bench.source AS p
GROUP BY p.pk_layer
WITH NO DATA;
CREATE UNIQUE INDEX view_layer_resource_key ON bench.view_layer_resource (pk_layer);

CREATE MATERIALIZED VIEW bench.view_job_resource AS
SELECT
    p.pk_job,
    coalesce(sum(p.int_cores_reserved) FILTER (WHERE NOT p.b_local), 0) AS int_cores,
    coalesce(sum(p.int_gpus_reserved) FILTER (WHERE NOT p.b_local), 0) AS int_gpus,
    coalesce(sum(p.int_cores_reserved) FILTER (WHERE p.b_local), 0) AS int_local_cores,
    coalesce(sum(p.int_gpus_reserved) FILTER (WHERE p.b_local), 0) AS int_local_gpus
FROM bench.source AS p
GROUP BY p.pk_job
WITH NO DATA;
CREATE UNIQUE INDEX view_job_resource_key ON bench.view_job_resource (pk_job);

CREATE MATERIALIZED VIEW bench.view_folder_resource AS
SELECT
    j.pk_folder,
    sum(p.int_cores_reserved) AS int_cores,
    sum(p.int_gpus_reserved) AS int_gpus
FROM bench.source AS p
INNER JOIN public.job AS j ON p.pk_job = j.pk_job
WHERE NOT p.b_local
GROUP BY j.pk_folder
WITH NO DATA;
CREATE UNIQUE INDEX view_folder_resource_key ON bench.view_folder_resource (pk_folder);

CREATE MATERIALIZED VIEW bench.view_point AS
SELECT
    j.pk_show,
    j.pk_dept,
    sum(p.int_cores_reserved) AS int_cores,
    sum(p.int_gpus_reserved) AS int_gpus
FROM bench.source AS p
INNER JOIN public.job AS j ON p.pk_job = j.pk_job
WHERE NOT p.b_local
GROUP BY j.pk_show, j.pk_dept
WITH NO DATA;
CREATE UNIQUE INDEX view_point_key ON bench.view_point (pk_show, pk_dept);
