-- Procs of which every sum is another than that of the procs as they are.
CREATE OR REPLACE VIEW bench.source AS
SELECT
    p.pk_host,
    p.pk_job,
    p.pk_show,
    p.pk_layer,
    p.b_local,
    p.int_cores_reserved + 1 AS int_cores_reserved,
    p.int_gpus_reserved + 1 AS int_gpus_reserved
FROM public.proc AS p;
