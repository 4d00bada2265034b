-- Jobs, and their side rows where no trigger has made them. The visible name must be unique, so a
-- finished job has none. Counts of layers and frames fit what later steps load.
INSERT INTO public.job (
    pk_job, pk_folder, pk_show, str_name, str_visible_name, str_shot, str_user, str_state,
    int_frame_count, int_layer_count, pk_facility, pk_dept, ts_stopped, str_show, str_os
)
WITH framed AS (
    SELECT
        layer.job_no,
        sum(layer.procs + 1) AS frames
    FROM pg_temp.farm_layer AS layer
    WHERE layer.live
    GROUP BY layer.job_no
),

named AS (
    SELECT
        job.*,
        'show' || job.show_no AS show_name,
        concat_ws(
            '-', 'show' || job.show_no, job.str_shot, concat(job.str_user, '_job', job.job_no)
        ) AS str_name
    FROM pg_temp.farm_job AS job
)

SELECT
    job.pk_job,
    job.pk_folder,
    job.pk_show,
    job.str_name,
    CASE WHEN job.live THEN job.str_name END AS str_visible_name,
    job.str_shot,
    job.str_user,
    CASE WHEN job.live THEN 'PENDING' ELSE 'FINISHED' END AS str_state,
    coalesce(framed.frames, 0) AS int_frame_count,
    size.layers AS int_layer_count,
    pg_temp.farm_key(size.seed, 'facility', 1) AS pk_facility,
    job.pk_dept,
    CASE WHEN NOT job.live THEN current_timestamp END AS ts_stopped,
    job.show_name AS str_show,
    'rocky9' AS str_os
FROM pg_temp.farm_size AS size
CROSS JOIN named AS job
LEFT JOIN framed ON job.job_no = framed.job_no
ORDER BY job.job_no;

INSERT INTO public.job_resource (pk_job_resource, pk_job)
SELECT
    job.pk_job AS pk_job_resource,
    job.pk_job
FROM pg_temp.farm_job AS job
WHERE NOT EXISTS (
    SELECT 1 FROM public.job_resource AS side
    WHERE side.pk_job = job.pk_job
);

INSERT INTO public.job_stat (pk_job_stat, pk_job)
SELECT
    job.pk_job AS pk_job_stat,
    job.pk_job
FROM pg_temp.farm_job AS job
WHERE NOT EXISTS (
    SELECT 1 FROM public.job_stat AS side
    WHERE side.pk_job = job.pk_job
);

INSERT INTO public.job_usage (pk_job_usage, pk_job)
SELECT
    job.pk_job AS pk_job_usage,
    job.pk_job
FROM pg_temp.farm_job AS job
WHERE NOT EXISTS (
    SELECT 1 FROM public.job_usage AS side
    WHERE side.pk_job = job.pk_job
);

INSERT INTO public.job_mem (pk_job_mem, pk_job)
SELECT
    job.pk_job AS pk_job_mem,
    job.pk_job
FROM pg_temp.farm_job AS job
WHERE NOT EXISTS (
    SELECT 1 FROM public.job_mem AS side
    WHERE side.pk_job = job.pk_job
);
