-- Which show each job belongs to. Every show gets one job of either kind where there are enough;
-- of the others show k gets a part that goes with 1/k, so that few shows hold most of the farm.
CREATE TEMPORARY TABLE farm_job AS
WITH share AS (
    SELECT
        nr.show_no,
        sum(1000000 / nr.show_no) OVER (ORDER BY nr.show_no) AS upto,
        sum(1000000 / nr.show_no) OVER (ORDER BY nr.show_no) - 1000000 / nr.show_no AS below,
        sum(1000000 / nr.show_no) OVER () AS whole
    FROM pg_temp.farm_size AS size
    CROSS JOIN generate_series(1, size.shows) AS nr (show_no)
),

-- The jobs of a kind: one per show for sure (or none), and how many are shared out beyond.
kind AS (
    SELECT
        kinds.live,
        (kinds.total >= size.shows)::integer AS sure,
        kinds.total - CASE WHEN kinds.total >= size.shows THEN size.shows ELSE 0 END AS rest
    FROM pg_temp.farm_size AS size
    CROSS JOIN unnest(ARRAY[TRUE, FALSE], ARRAY[size.jobs, size.finished_jobs])
        AS kinds (live, total)
),

-- One row per job, show after show.
slot AS (
    SELECT
        kind.live,
        share.show_no,
        row_number() OVER (PARTITION BY kind.live ORDER BY share.show_no) AS slot_no
    FROM kind
    CROSS JOIN share
    CROSS JOIN generate_series(
        1,
        kind.sure
        + div(kind.rest * share.upto, share.whole) - div(kind.rest * share.below, share.whole)
    )
),

-- The jobs in the order in which they were launched, a shuffle of the slots.
launch AS (
    SELECT
        nr.job_no,
        size.seed,
        size.folders,
        size.departments,
        nr.job_no <= size.jobs AS live,
        row_number() OVER (
            PARTITION BY nr.job_no <= size.jobs
            ORDER BY pg_temp.farm_draw(size.seed, 'launch', nr.job_no), nr.job_no
        ) AS slot_no
    FROM pg_temp.farm_size AS size
    CROSS JOIN generate_series(1, size.jobs + size.finished_jobs) AS nr (job_no)
),

drawn AS (
    SELECT
        launch.job_no,
        launch.seed,
        launch.live,
        slot.show_no,
        (slot.show_no - 1) * launch.folders + 1 + floor(
            launch.folders * pg_temp.farm_draw(launch.seed, 'folder of job', launch.job_no) ^ 2
        )::integer AS folder_no,
        1 + floor(
            launch.departments * pg_temp.farm_draw(launch.seed, 'dept of job', launch.job_no)
        )::integer AS dept_no
    FROM launch
    INNER JOIN slot ON launch.live = slot.live AND launch.slot_no = slot.slot_no
)

SELECT
    drawn.job_no,
    drawn.live,
    drawn.show_no,
    pg_temp.farm_key(drawn.seed, 'job', drawn.job_no) AS pk_job,
    pg_temp.farm_key(drawn.seed, 'show', drawn.show_no) AS pk_show,
    pg_temp.farm_key(drawn.seed, 'folder', drawn.folder_no) AS pk_folder,
    pg_temp.farm_key(drawn.seed, 'dept', drawn.dept_no) AS pk_dept,
    'shot' || (1 + floor(200 * pg_temp.farm_draw(drawn.seed, 'shot', drawn.job_no))) AS str_shot,
    'user' || (1 + floor(50 * pg_temp.farm_draw(drawn.seed, 'user', drawn.job_no))) AS str_user
FROM drawn;

COMMENT ON TABLE farm_job IS 'Plan: one row per job, live ones first.';
ANALYZE pg_temp.farm_job;
