-- How many frames are in each state. The farm's triggers count changes only, not new frames.
UPDATE public.layer_stat AS stat
SET
    int_total_count = layer.procs + 1,
    int_running_count = layer.procs,
    int_waiting_count = 1,
    ts_started = CASE WHEN layer.procs > 0 THEN current_timestamp END
FROM pg_temp.farm_layer AS layer
WHERE stat.pk_layer = layer.pk_layer AND layer.live;

UPDATE public.job_stat AS stat
SET
    int_running_count = counted.running,
    int_waiting_count = counted.waiting
FROM (
    SELECT
        layer.pk_job,
        sum(layer.procs) AS running,
        count(*) AS waiting
    FROM pg_temp.farm_layer AS layer
    WHERE layer.live
    GROUP BY layer.pk_job
) AS counted
WHERE stat.pk_job = counted.pk_job;
