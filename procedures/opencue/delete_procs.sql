-- Deletes those of the procs that are of these shows ('' is none), and answers with what their rows
-- said: nr and alloc are null, show is '' for a proc without one.
-- Locks: the procs, in key order. Writes: proc.
CREATE OR REPLACE FUNCTION retally.delete_procs(p_procs text[], p_show_ids text[])
RETURNS SETOF retally.booking
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN QUERY
    WITH mine AS MATERIALIZED (
        SELECT p.pk_proc
        FROM public.proc AS p
        WHERE p.pk_proc::text IN (SELECT a.proc FROM unnest(p_procs) AS a (proc))
        ORDER BY p.pk_proc
        FOR UPDATE OF p
    ),

    gone AS (
        DELETE FROM public.proc AS p
        USING mine AS m
        WHERE
            p.pk_proc::text = m.pk_proc::text
            AND coalesce(p.pk_show::text, '') = any(p_show_ids)
        RETURNING p.*
    )

    SELECT
        NULL::integer,
        g.pk_proc::text,
        coalesce(g.pk_show::text, ''),
        NULL::text,
        g.pk_host::text,
        g.pk_job::text,
        g.pk_layer::text,
        g.pk_frame::text,
        g.int_cores_reserved,
        g.int_mem_reserved,
        g.int_gpus_reserved::bigint,
        g.int_gpu_mem_reserved,
        g.b_local
    FROM gone AS g;
END
$$;
COMMENT ON FUNCTION retally.delete_procs(text[], text[]) IS
'Deletes procs of these shows and answers with what their rows said.';
