-- The farm's procs, by what the totals need of them; cores are core units. Read as a table: it is
-- inlined, so that only these columns are taken from the row, and its indexes serve.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.procs()
RETURNS TABLE (
    show_id text, host_id text, layer_id text, job_id text,
    local boolean, cores bigint, gpus bigint
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        p.pk_show::text AS show_id,
        p.pk_host::text AS host_id,
        p.pk_layer::text AS layer_id,
        p.pk_job::text AS job_id,
        p.b_local::boolean AS local,
        p.int_cores_reserved::bigint AS cores,
        p.int_gpus_reserved::bigint AS gpus
    FROM public.proc AS p
$$;
COMMENT ON FUNCTION retally.procs() IS 'The farm''s procs, by what the totals need of them.';
