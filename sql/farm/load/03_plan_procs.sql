-- Procs and the hosts that they run on. Local ones come in runs of eight, each on one host: a
-- user's own host runs several frames of one job. GPU procs go to the first hosts only.
CREATE TEMPORARY TABLE farm_proc AS
WITH numbered AS (
    SELECT
        layer.layer_no,
        layer.pk_layer,
        layer.pk_job,
        layer.pk_show,
        layer.str_name AS layer_name,
        layer.cores,
        layer.mem,
        layer.gpus,
        nr.proc_no,
        nr.proc_no - layer.procs_before AS frame_no,
        (nr.proc_no - 1) / 8 AS run_no,
        size.seed,
        size.local_share,
        CASE
            WHEN layer.gpus > 0 THEN ceil(size.hosts * least(4 * size.gpu_share, 1))
            ELSE size.hosts
        END AS host_choice
    FROM pg_temp.farm_size AS size
    CROSS JOIN pg_temp.farm_layer AS layer
    CROSS JOIN generate_series(layer.procs_before + 1, layer.procs_before + layer.procs)
        AS nr (proc_no)
),

split AS (
    SELECT
        numbered.*,
        ceil((numbered.run_no + 1) * numbered.local_share)
        > ceil(numbered.run_no * numbered.local_share) AS b_local
    FROM numbered
),

placed AS (
    SELECT
        split.*,
        1 + floor(
            split.host_choice
            * CASE
                WHEN split.b_local
                    THEN pg_temp.farm_draw(split.seed, 'host of run', split.run_no)
                ELSE pg_temp.farm_draw(split.seed, 'host of proc', split.proc_no)
            END
        )::integer AS host_no
    FROM split
)

SELECT
    placed.proc_no,
    placed.host_no,
    placed.layer_no,
    placed.layer_name,
    placed.frame_no,
    placed.b_local,
    placed.cores,
    placed.mem,
    placed.gpus,
    placed.pk_show,
    placed.pk_job,
    placed.pk_layer,
    placed.gpus * 4194304::bigint AS gpu_mem,
    pg_temp.farm_key(placed.seed, 'proc', placed.proc_no) AS pk_proc,
    pg_temp.farm_key(placed.seed, 'frame', placed.proc_no) AS pk_frame,
    pg_temp.farm_key(placed.seed, 'host', placed.host_no) AS pk_host
FROM placed;

COMMENT ON TABLE farm_proc IS 'Plan: one row per proc.';
ANALYZE pg_temp.farm_proc;
