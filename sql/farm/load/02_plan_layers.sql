-- What one proc of each layer takes, and how many run. Sizes have a long tail: most layers run a
-- few procs, one in a thousand runs a hundred times as many. Layers turn GPU layers in the order of
-- a draw, until those hold the share of procs that was asked for.
CREATE TEMPORARY TABLE farm_layer AS
WITH drawn AS (
    SELECT
        job.job_no,
        job.live,
        job.pk_job,
        job.pk_show,
        nr.layer_of_job,
        size.seed,
        size.procs AS procs_asked,
        size.gpu_share,
        (job.job_no - 1)::bigint * size.layers + nr.layer_of_job AS layer_no
    FROM pg_temp.farm_size AS size
    CROSS JOIN pg_temp.farm_job AS job
    CROSS JOIN generate_series(1, size.layers) AS nr (layer_of_job)
),

weighted AS (
    SELECT
        drawn.*,
        CASE
            WHEN drawn.live
                THEN (
                    1000 * (pg_temp.farm_draw(drawn.seed, 'weight', drawn.layer_no) + 0.001) ^ -0.85
                )::bigint
            ELSE 0
        END AS weight
    FROM drawn
),

summed AS (
    SELECT
        weighted.*,
        sum(weighted.weight) OVER (ORDER BY weighted.layer_no) AS upto,
        nullif(sum(weighted.weight) OVER (), 0) AS whole
    FROM weighted
),

sized AS (
    SELECT
        summed.*,
        coalesce(div(summed.procs_asked * (summed.upto - summed.weight), summed.whole), 0)::integer
            AS procs_before,
        coalesce(div(summed.procs_asked * summed.upto, summed.whole), 0)::integer AS procs_upto
    FROM summed
),

chosen AS (
    SELECT
        sized.*,
        sized.procs_upto - sized.procs_before AS procs,
        sized.live AND sized.gpu_share * sized.procs_asked > sum(
            sized.procs_upto - sized.procs_before
        ) OVER (
            ORDER BY pg_temp.farm_draw(sized.seed, 'gpu layer', sized.layer_no), sized.layer_no
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) - (sized.procs_upto - sized.procs_before) AS on_gpu
    FROM sized
)

SELECT
    chosen.layer_no,
    chosen.layer_of_job,
    chosen.job_no,
    chosen.live,
    chosen.pk_job,
    chosen.pk_show,
    chosen.procs_before,
    chosen.procs,
    'layer' || chosen.layer_of_job AS str_name,
    pg_temp.farm_key(chosen.seed, 'layer', chosen.layer_no) AS pk_layer,
    -- Core units, memory in kB: half a core to eight, 512 MB to 8 GB.
    (ARRAY[50, 100, 100, 100, 150, 200, 200, 300, 400, 800])[
        1 + floor(10 * pg_temp.farm_draw(chosen.seed, 'cores', chosen.layer_no))::integer
    ] AS cores,
    262144 * (
        2 + floor(31 * pg_temp.farm_draw(chosen.seed, 'memory', chosen.layer_no) ^ 2)
    )::bigint AS mem,
    CASE
        WHEN chosen.on_gpu
            THEN 1 + floor(1.25 * pg_temp.farm_draw(chosen.seed, 'gpus', chosen.layer_no))::integer
        ELSE 0
    END AS gpus
FROM chosen;

COMMENT ON TABLE farm_layer IS 'Plan: one row per layer; its procs follow procs_before others.';
ANALYZE pg_temp.farm_layer;
