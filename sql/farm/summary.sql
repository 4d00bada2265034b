-- What a load has added, counted in its plan. Cores in core units.
WITH booked AS (
    SELECT
        count(*) AS procs,
        count(*) FILTER (WHERE running.b_local) AS local_procs,
        count(*) FILTER (WHERE running.gpus > 0) AS gpu_procs,
        coalesce(sum(running.cores), 0) AS cores,
        coalesce(sum(running.gpus), 0) AS gpus
    FROM pg_temp.farm_proc AS running
),

layered AS (
    SELECT
        count(*) AS layers,
        count(*) FILTER (WHERE layer.live) AS waiting_frames
    FROM pg_temp.farm_layer AS layer
)

SELECT
    size.shows,
    size.allocations,
    size.departments,
    size.hosts, -- noqa: RF04
    size.jobs,
    size.finished_jobs,
    layered.layers,
    layered.waiting_frames,
    booked.procs,
    booked.local_procs,
    booked.gpu_procs,
    booked.cores,
    booked.gpus,
    size.shows * size.folders AS folders,
    size.shows * size.departments AS points,
    size.shows * size.allocations AS subscriptions
FROM pg_temp.farm_size AS size
CROSS JOIN booked
CROSS JOIN layered
