-- Hosts, each with room for what runs on it and some to spare, so that a dispatcher can book.
-- The allocations take turns: with ten of them, every tenth host is in the same one.
CREATE TEMPORARY TABLE farm_host AS
WITH booked AS (
    SELECT
        running.host_no,
        sum(running.cores) AS cores,
        sum(running.mem)::bigint AS mem,
        sum(running.gpus) AS gpus,
        sum(running.gpu_mem)::bigint AS gpu_mem
    FROM pg_temp.farm_proc AS running
    GROUP BY running.host_no
),

numbered AS (
    SELECT
        nr.host_no,
        size.seed,
        1 + (nr.host_no - 1) % size.allocations AS alloc_no,
        1.1 + 0.3 * pg_temp.farm_draw(size.seed, 'spare', nr.host_no) AS factor,
        coalesce(booked.cores, 0) AS cores_booked,
        coalesce(booked.mem, 0) AS mem_booked,
        coalesce(booked.gpus, 0) AS gpus_booked,
        coalesce(booked.gpu_mem, 0) AS gpu_mem_booked
    FROM pg_temp.farm_size AS size
    CROSS JOIN generate_series(1, size.hosts) AS nr (host_no)
    LEFT JOIN booked ON nr.host_no = booked.host_no
),

sized AS (
    SELECT
        numbered.*,
        greatest(3200, 800 * ceil(numbered.factor * numbered.cores_booked / 800))::bigint AS cores,
        8388608 * greatest(8, ceil(numbered.factor * numbered.mem_booked / 8388608))::bigint AS mem,
        (2 * ceil(numbered.factor * numbered.gpus_booked / 2))::bigint AS gpus
    FROM numbered
)

SELECT
    sized.host_no,
    sized.alloc_no,
    sized.cores,
    sized.mem,
    sized.gpus,
    sized.gpus * 4194304 AS gpu_mem,
    sized.cores - sized.cores_booked AS cores_idle,
    sized.mem - sized.mem_booked AS mem_idle,
    sized.gpus - sized.gpus_booked AS gpus_idle,
    sized.gpus * 4194304 - sized.gpu_mem_booked AS gpu_mem_idle,
    pg_temp.farm_key(sized.seed, 'host', sized.host_no) AS pk_host,
    pg_temp.farm_key(sized.seed, 'alloc', sized.alloc_no) AS pk_alloc
FROM sized;

COMMENT ON TABLE farm_host IS 'Plan: one row per host.';
ANALYZE pg_temp.farm_host;
