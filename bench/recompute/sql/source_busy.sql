-- The procs as they were before the change.
CREATE OR REPLACE VIEW bench.source AS
SELECT
    p.pk_host,
    p.pk_job,
    p.pk_show,
    p.pk_layer,
    p.b_local,
    p.int_cores_reserved,
    p.int_gpus_reserved
FROM public.proc AS p
WHERE
    NOT EXISTS (
        SELECT 1 FROM bench.booked AS b
        WHERE b.pk_proc = p.pk_proc
    )
UNION ALL
SELECT
    r.pk_host,
    r.pk_job,
    r.pk_show,
    r.pk_layer,
    r.b_local,
    r.int_cores_reserved,
    r.int_gpus_reserved
FROM bench.released AS r;
