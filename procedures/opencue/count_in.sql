-- Counts procs of a batch into their hosts, local shares and, unless the show is managed, totals;
-- with p_sign -1, out of them. All of them or, where anything does not fit, an error.
-- p_managed: the shows that are managed. lock_hosts() and lock_totals() come first.
-- Locks and writes: as book_proc(), one statement for all hosts, and one for each total.
-- Raises RT009, RT011 to RT014; 22003 for a sum that fits no column.
CREATE OR REPLACE FUNCTION retally.count_in(
    p_bookings retally.booking[], p_managed text[], p_sign integer
)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_group record;
    v_short text;
BEGIN
    FOR v_group IN
        SELECT
            b.host,
            b.job,
            min(b.layer) AS layer,
            p_sign * sum(b.cores)::bigint AS cores,
            p_sign * sum(b.mem_kb)::bigint AS mem_kb,
            p_sign * sum(b.gpus)::bigint AS gpus,
            p_sign * sum(b.gpu_mem_kb)::bigint AS gpu_mem_kb
        FROM unnest(p_bookings) AS b
        WHERE b.local
        GROUP BY b.host, b.job
    LOOP
        IF NOT retally.take_local_share(
            v_group.host, v_group.job, v_group.cores, v_group.mem_kb, v_group.gpus,
            v_group.gpu_mem_kb
        ) THEN
            PERFORM retally.refuse(
                v_group.host, v_group.job, v_group.layer, NULL, v_group.cores, v_group.mem_kb,
                v_group.gpus, v_group.gpu_mem_kb, TRUE
            );
        END IF;
    END LOOP;

    WITH asked AS (
        SELECT
            b.host,
            p_sign * sum(b.cores) AS cores,
            p_sign * sum(b.mem_kb) AS mem_kb,
            p_sign * sum(b.gpus) AS gpus,
            p_sign * sum(b.gpu_mem_kb) AS gpu_mem_kb
        FROM unnest(p_bookings) AS b
        GROUP BY b.host
    ),

    spot AS (
        UPDATE public.host AS h
        SET
            int_cores_idle = h.int_cores_idle - a.cores,
            int_mem_idle = h.int_mem_idle - a.mem_kb,
            int_gpus_idle = h.int_gpus_idle - a.gpus,
            int_gpu_mem_idle = h.int_gpu_mem_idle - a.gpu_mem_kb
        FROM asked AS a
        WHERE
            h.pk_host::text = a.host
            AND (
                p_sign < 0
                OR (
                    h.int_cores_idle >= a.cores
                    AND h.int_mem_idle >= a.mem_kb
                    AND h.int_gpus_idle >= a.gpus
                    AND h.int_gpu_mem_idle >= a.gpu_mem_kb
                )
            )
        RETURNING h.pk_host
    )

    SELECT h.str_name || ' has ' || retally.shortage(
        h.int_cores_idle, h.int_mem_idle, h.int_gpus_idle, h.int_gpu_mem_idle,
        a.cores, a.mem_kb, a.gpus, a.gpu_mem_kb
    )
    INTO v_short
    FROM asked AS a
    INNER JOIN public.host AS h ON a.host = h.pk_host::text
    WHERE a.host NOT IN (SELECT s.pk_host::text FROM spot AS s)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'host %', v_short
            USING ERRCODE = 'RT011', HINT = 'Choose another host, or wait for a release.';
    END IF;

    PERFORM retally.add_batch_to_totals(p_bookings, p_managed, p_sign);
END
$$;
COMMENT ON FUNCTION retally.count_in(retally.booking[], text[], integer) IS
'Counts procs of a batch into hosts, local shares and totals, or out of them.';
