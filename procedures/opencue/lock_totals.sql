-- Locks what a batch will count procs into beside the hosts: the five totals, unless the show is
-- managed, and the shares of local work. In the order of a single booking, and by key within each
-- table, so that batches and single bookings never wait for each other in a circle.
-- p_bookings: as of lock_hosts(), which comes first. p_managed: the shows that are managed.
-- Locks: these rows. Writes nothing.
CREATE OR REPLACE FUNCTION retally.lock_totals(p_bookings retally.booking[], p_managed text[])
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_row record;
BEGIN
    FOR v_row IN
        SELECT
            k.show,
            k.total,
            array_agg(DISTINCT k.key) AS keys
        FROM (
            SELECT
                b.show,
                t.total,
                t.place,
                CASE t.total
                    WHEN 'subscription' THEN b.alloc
                    WHEN 'layer' THEN b.layer
                    WHEN 'job' THEN b.job
                    WHEN 'folder' THEN j.pk_folder::text
                    ELSE j.pk_dept::text
                END AS key
            FROM unnest(p_bookings) AS b
            -- a proc may be left of a job that is gone
            LEFT JOIN public.job AS j ON b.job = j.pk_job::text
            CROSS JOIN unnest(retally.totals()) WITH ORDINALITY AS t (total, place)
            WHERE NOT b.show = any(p_managed) AND (NOT b.local OR t.total IN ('layer', 'job'))
        ) AS k
        WHERE k.key IS NOT NULL
        GROUP BY k.place, k.total, k.show
        ORDER BY k.place, k.show
    LOOP
        PERFORM retally.lock_keys(v_row.show, v_row.total, v_row.keys, TRUE);
    END LOOP;

    PERFORM
    FROM public.host_local AS s
    WHERE EXISTS (
        SELECT FROM unnest(p_bookings) AS b
        WHERE b.local AND s.pk_host::text = b.host AND s.pk_job::text = b.job
    )
    ORDER BY s.pk_host, s.pk_job
    FOR NO KEY UPDATE OF s;
END
$$;
COMMENT ON FUNCTION retally.lock_totals(retally.booking[], text[]) IS
'Locks the totals and local shares that a batch will count procs into.';
