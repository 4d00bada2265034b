-- Draws what changes, as bench.draw says: procs that are released, and as many that are booked, on
-- hosts and in layers of live jobs that are drawn anew. Nothing is done to the procs here.
DROP TABLE IF EXISTS bench.released, bench.booked;

CREATE TABLE bench.released AS
SELECT p.* -- noqa: AM04
FROM public.proc AS p
CROSS JOIN bench.draw AS d
ORDER BY md5(d.seed || p.pk_proc), p.pk_proc
LIMIT (SELECT b.procs FROM bench.draw AS b);

CREATE TABLE bench.booked (LIKE public.proc INCLUDING DEFAULTS);

INSERT INTO bench.booked (
    pk_proc, pk_host, pk_job, pk_show, pk_layer, int_cores_reserved, int_mem_reserved,
    int_mem_pre_reserved, int_gpus_reserved, int_gpu_mem_reserved, int_gpu_mem_pre_reserved
)
WITH live AS (
    SELECT
        l.pk_layer,
        l.pk_job,
        j.pk_show,
        l.int_cores_min,
        l.int_mem_min,
        l.int_gpus_min,
        l.int_gpu_mem_min,
        row_number() OVER (ORDER BY l.pk_layer) - 1 AS place
    FROM public.layer AS l
    INNER JOIN public.job AS j ON l.pk_job = j.pk_job
    WHERE j.str_state <> 'FINISHED'
),

node AS (
    SELECT
        h.pk_host,
        row_number() OVER (ORDER BY h.pk_host) - 1 AS place
    FROM public.host AS h
),

-- places beforehand, not in the joins: only then these are hash joins
drawn AS (
    SELECT
        nr.nr,
        md5(concat_ws(' ', 'proc', d.seed, nr.nr))::uuid::text AS pk_proc,
        ('x' || left(md5(concat_ws(' ', 'layer', d.seed, nr.nr)), 8))::bit(32)::bigint
        % (SELECT count(*) FROM live) AS layer,
        ('x' || left(md5(concat_ws(' ', 'host', d.seed, nr.nr)), 8))::bit(32)::bigint
        % (SELECT count(*) FROM node) AS node
    FROM bench.draw AS d
    CROSS JOIN generate_series(1, d.procs) AS nr (nr)
)

SELECT
    drawn.pk_proc,
    node.pk_host,
    live.pk_job,
    live.pk_show,
    live.pk_layer,
    live.int_cores_min,
    live.int_mem_min AS mem,
    live.int_mem_min AS mem_before,
    live.int_gpus_min,
    live.int_gpu_mem_min AS gpu_mem,
    live.int_gpu_mem_min AS gpu_mem_before
FROM drawn
INNER JOIN live ON drawn.layer = live.place
INNER JOIN node ON drawn.node = node.place;
