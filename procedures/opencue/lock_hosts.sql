-- Locks the hosts of a batch, in key order, and answers with the bookings, each with the
-- allocation (alloc) that its host is in now and cannot leave while it is locked.
-- Locks: the hosts. Writes nothing.
CREATE OR REPLACE FUNCTION retally.lock_hosts(p_bookings retally.booking[])
RETURNS SETOF retally.booking
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN QUERY
    WITH spot AS MATERIALIZED (
        SELECT
            h.pk_host,
            h.pk_alloc
        FROM public.host AS h
        WHERE h.pk_host::text IN (SELECT b.host FROM unnest(p_bookings) AS b)
        ORDER BY h.pk_host
        FOR NO KEY UPDATE OF h
    )

    SELECT
        b.nr,
        b.proc,
        b.show,
        s.pk_alloc::text,
        b.host,
        b.job,
        b.layer,
        b.frame,
        b.cores,
        b.mem_kb,
        b.gpus,
        b.gpu_mem_kb,
        b.local
    FROM unnest(p_bookings) AS b
    INNER JOIN spot AS s ON b.host = s.pk_host::text;
END
$$;
COMMENT ON FUNCTION retally.lock_hosts(retally.booking[]) IS
'Locks the hosts of a batch and answers with the bookings, each with its allocation.';
