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
        p.pk_show::text,
        p.pk_host::text,
        p.pk_layer::text,
        p.pk_job::text,
        p.b_local::boolean,
        p.int_cores_reserved::bigint,
        p.int_gpus_reserved::bigint
    FROM public.proc AS p
$$;
COMMENT ON FUNCTION retally.procs() IS 'The farm''s procs, by what the totals need of them.';
