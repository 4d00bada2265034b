-- The five totals, exact, each with caps well above what is used, as far as their integers go: a
-- dispatcher finds room, and a rise up to the cap is not refused. Subscriptions and points are new
-- rows; the others exist. Every show subscribes to every allocation.
INSERT INTO public.subscription (
    pk_subscription, pk_show, pk_alloc, int_size, int_burst, int_cores, int_gpus, float_tier
)
WITH booked AS (
    SELECT
        running.pk_show,
        placed.alloc_no,
        sum(running.cores) AS cores,
        sum(running.gpus) AS gpus
    FROM pg_temp.farm_proc AS running
    INNER JOIN pg_temp.farm_host AS placed ON running.host_no = placed.host_no
    WHERE NOT running.b_local
    GROUP BY running.pk_show, placed.alloc_no
),

keyed AS (
    SELECT
        shows.show_no,
        nr.alloc_no,
        pg_temp.farm_key(
            size.seed, 'subscription', (shows.show_no - 1)::bigint * size.allocations + nr.alloc_no
        ) AS pk_subscription,
        pg_temp.farm_key(size.seed, 'show', shows.show_no) AS pk_show,
        pg_temp.farm_key(size.seed, 'alloc', nr.alloc_no) AS pk_alloc
    FROM pg_temp.farm_size AS size
    CROSS JOIN generate_series(1, size.shows) AS shows (show_no)
    CROSS JOIN generate_series(1, size.allocations) AS nr (alloc_no)
),

sized AS (
    SELECT
        keyed.pk_subscription,
        keyed.pk_show,
        keyed.pk_alloc,
        10000 + 100 * ceil(1.2 * coalesce(booked.cores, 0) / 100) AS int_size,
        20000 + 100 * ceil(1.5 * coalesce(booked.cores, 0) / 100) AS int_burst,
        coalesce(booked.cores, 0) AS int_cores,
        coalesce(booked.gpus, 0) AS int_gpus
    FROM keyed
    LEFT JOIN booked ON keyed.pk_show = booked.pk_show AND keyed.alloc_no = booked.alloc_no
)

SELECT
    sized.pk_subscription,
    sized.pk_show,
    sized.pk_alloc,
    sized.int_size,
    sized.int_burst,
    sized.int_cores,
    sized.int_gpus,
    public.tier(sized.int_cores, sized.int_size) AS float_tier
FROM sized;

UPDATE public.layer_resource AS total
SET
    int_cores = layer.cores::bigint * layer.procs,
    int_gpus = layer.gpus * layer.procs
FROM pg_temp.farm_layer AS layer
WHERE total.pk_layer = layer.pk_layer AND layer.procs > 0;

CREATE TEMPORARY TABLE farm_job_booked AS
SELECT
    job.pk_job,
    job.pk_folder,
    job.pk_show,
    job.pk_dept,
    job.job_no,
    coalesce(sum(running.cores) FILTER (WHERE NOT running.b_local), 0) AS cores,
    coalesce(sum(running.gpus) FILTER (WHERE NOT running.b_local), 0) AS gpus,
    coalesce(sum(running.cores) FILTER (WHERE running.b_local), 0) AS local_cores,
    coalesce(sum(running.gpus) FILTER (WHERE running.b_local), 0) AS local_gpus
FROM pg_temp.farm_job AS job
LEFT JOIN pg_temp.farm_proc AS running ON job.pk_job = running.pk_job
GROUP BY job.pk_job, job.pk_folder, job.pk_show, job.pk_dept, job.job_no;
COMMENT ON TABLE farm_job_booked IS 'Plan: what runs of each job, local work apart.';

UPDATE public.job_resource AS total
SET
    int_cores = job.cores,
    int_gpus = job.gpus,
    int_local_cores = job.local_cores,
    int_local_gpus = job.local_gpus,
    int_max_cores = least(10000 + 100 * ceil(1.5 * job.cores / 100), 2147483647),
    int_max_gpus = 100 + 2 * job.gpus,
    int_priority = 1 + floor(100 * pg_temp.farm_draw(size.seed, 'priority', job.job_no)),
    float_tier = public.tier(job.cores, total.int_min_cores)
FROM pg_temp.farm_job_booked AS job
CROSS JOIN pg_temp.farm_size AS size
WHERE total.pk_job = job.pk_job;

-- A quarter of the folders has caps and a minimum.
UPDATE public.folder_resource AS total
SET
    int_cores = booked.cores,
    int_gpus = booked.gpus,
    int_max_cores = CASE
        WHEN booked.capped THEN least(20000 + 2 * booked.cores, 2147483647)
        ELSE -1
    END,
    int_max_gpus = CASE WHEN booked.capped THEN 100 + 2 * booked.gpus ELSE -1 END,
    int_min_cores = CASE WHEN booked.capped THEN 10000 ELSE 0 END,
    float_tier = public.soft_tier(booked.cores, CASE WHEN booked.capped THEN 10000 ELSE 0 END)
FROM (
    SELECT
        folder.pk_folder,
        folder.folder_of_show % 4 = 0 AS capped,
        coalesce(sum(job.cores), 0) AS cores,
        coalesce(sum(job.gpus), 0) AS gpus
    FROM pg_temp.farm_folder AS folder
    LEFT JOIN pg_temp.farm_job_booked AS job ON folder.pk_folder = job.pk_folder
    GROUP BY folder.pk_folder, folder.folder_of_show
) AS booked
WHERE total.pk_folder = booked.pk_folder;

-- Every third point has a minimum.
INSERT INTO public.point (
    pk_point, pk_show, pk_dept, int_cores, int_gpus, int_min_cores, float_tier
)
WITH keyed AS (
    SELECT
        pg_temp.farm_key(
            size.seed, 'point', (shows.show_no - 1)::bigint * size.departments + nr.dept_no
        ) AS pk_point,
        pg_temp.farm_key(size.seed, 'show', shows.show_no) AS pk_show,
        pg_temp.farm_key(size.seed, 'dept', nr.dept_no) AS pk_dept,
        CASE WHEN (shows.show_no + nr.dept_no) % 3 = 0 THEN 50000 ELSE 0 END AS min_cores
    FROM pg_temp.farm_size AS size
    CROSS JOIN generate_series(1, size.shows) AS shows (show_no)
    CROSS JOIN generate_series(1, size.departments) AS nr (dept_no)
)

SELECT
    keyed.pk_point,
    keyed.pk_show,
    keyed.pk_dept,
    coalesce(sum(job.cores), 0) AS int_cores,
    coalesce(sum(job.gpus), 0) AS int_gpus,
    keyed.min_cores AS int_min_cores,
    public.soft_tier(coalesce(sum(job.cores), 0), keyed.min_cores) AS float_tier
FROM keyed
LEFT JOIN pg_temp.farm_job_booked AS job
    ON keyed.pk_show = job.pk_show AND keyed.pk_dept = job.pk_dept
GROUP BY keyed.pk_point, keyed.pk_show, keyed.pk_dept, keyed.min_cores;
