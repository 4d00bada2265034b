-- What the materialized views read: the procs as they are.
CREATE OR REPLACE VIEW bench.source AS
SELECT
    p.pk_host,
    p.pk_job,
    p.pk_show,
    p.pk_layer,
    p.b_local,
    p.int_cores_reserved,
    p.int_gpus_reserved
FROM public.proc AS p;
