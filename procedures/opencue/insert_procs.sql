-- Inserts the procs of a batch and answers with the ids of those that are in: an entry without a
-- show and a frame that is booked already are left out.
-- Locks: the procs' frames and hosts, in key order. Writes: proc.
CREATE OR REPLACE FUNCTION retally.insert_procs(p_bookings retally.booking[])
RETURNS text[]
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_in text[];
BEGIN
    -- One statement, so that the hosts are ours before the foreign keys' checks would share locks
    -- on them with others; frames in key order, so that no two batches wait for each other.
    WITH new AS (
        INSERT INTO public.proc AS p (
            pk_proc, pk_host, pk_show, pk_job, pk_layer, pk_frame, int_cores_reserved,
            int_mem_reserved, int_mem_pre_reserved, int_gpus_reserved, int_gpu_mem_reserved,
            int_gpu_mem_pre_reserved, b_local
        )
        SELECT
            b.proc,
            b.host,
            b.show,
            b.job,
            b.layer,
            b.frame,
            b.cores,
            b.mem_kb,
            b.mem_kb AS mem_kb_asked,
            b.gpus,
            b.gpu_mem_kb,
            b.gpu_mem_kb AS gpu_mem_kb_asked,
            b.local
        FROM unnest(p_bookings) AS b
        WHERE b.show IS NOT NULL
        ORDER BY b.frame, b.nr
        ON CONFLICT DO NOTHING
        RETURNING p.pk_proc
    ),

    spot AS MATERIALIZED (
        SELECT h.pk_host
        FROM public.host AS h
        WHERE
            h.pk_host::text IN (
                SELECT b.host FROM unnest(p_bookings) AS b
                WHERE b.show IS NOT NULL
            )
            -- the hosts after the procs
            AND (SELECT count(*) FROM new) >= 0
        ORDER BY h.pk_host
        FOR NO KEY UPDATE OF h
    )

    SELECT i.procs
    INTO v_in
    FROM (SELECT array_agg(n.pk_proc::text) AS procs FROM new AS n) AS i
    CROSS JOIN (SELECT count(*) AS locked FROM spot) AS s;
    RETURN coalesce(v_in, '{}');
END
$$;
COMMENT ON FUNCTION retally.insert_procs(retally.booking[]) IS
'Inserts the procs of a batch and answers with the ids of those that are in.';
