-- Decides which bookings of a batch fit when each takes its turn, by nr, and those before it that
-- fit have taken theirs. One row per booking; stopped_by is null for one that fits, else what has
-- not enough left: frame (an earlier one has it), share, host, subscription or job.
-- p_managed: the shows that are managed, whose caps are not looked at.
-- lock_hosts() and lock_totals() come first. Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.first_come(p_bookings retally.booking[], p_managed text[])
RETURNS TABLE (nr integer, stopped_by text)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_booking record;
    -- what is left, by place; in memory, for a row that is written once for each booking would
    -- make 2,000 versions of itself in one transaction (tried: 10 s instead of 0.1 s)
    v_left bigint[] := '{}';
BEGIN
    FOR v_booking IN
        WITH wanted AS (
            SELECT
                b.nr,
                l.kind,
                l.turn,
                l.key,
                l.lefts,
                l.asks
            FROM unnest(p_bookings) AS b
            INNER JOIN public.host AS h ON b.host = h.pk_host::text
            LEFT JOIN public.host_local AS s
                ON b.host = s.pk_host::text AND b.job = s.pk_job::text
            LEFT JOIN public.subscription AS u
                ON b.show = u.pk_show::text AND b.alloc = u.pk_alloc::text
            LEFT JOIN public.job_resource AS r ON b.job = r.pk_job::text
            CROSS JOIN LATERAL (
                VALUES
                (
                    'frame', 1, b.frame IS NOT NULL, b.frame,
                    ARRAY[1],
                    ARRAY[1]::bigint[]
                ),
                (
                    'share', 2, b.local, b.host || ' ' || b.job,
                    ARRAY[
                        coalesce(s.int_cores_idle, -1), s.int_mem_idle, s.int_gpus_idle,
                        s.int_gpu_mem_idle
                    ],
                    ARRAY[b.cores, b.mem_kb, b.gpus, b.gpu_mem_kb]
                ),
                (
                    'host', 3, TRUE, b.host,
                    ARRAY[h.int_cores_idle, h.int_mem_idle, h.int_gpus_idle, h.int_gpu_mem_idle],
                    ARRAY[b.cores, b.mem_kb, b.gpus, b.gpu_mem_kb]
                ),
                (
                    'subscription', 4, NOT b.local AND NOT b.show = any(p_managed),
                    b.show || ' ' || b.alloc,
                    ARRAY[coalesce(u.int_burst - u.int_cores, -1)],
                    ARRAY[b.cores]
                ),
                (
                    'job', 5,
                    NOT b.local AND NOT b.show = any(p_managed) AND r.pk_job IS NOT NULL, b.job,
                    ARRAY[r.int_max_cores - r.int_cores, r.int_max_gpus - r.int_gpus],
                    ARRAY[b.cores, b.gpus]
                )
            ) AS l (kind, turn, counts, key, lefts, asks)
            WHERE l.counts
        ),

        slots AS (
            SELECT
                w.nr,
                w.kind,
                w.turn,
                a.slot,
                a.left_over,
                a.ask,
                dense_rank() OVER (ORDER BY w.turn, w.key, a.slot) AS place
            FROM wanted AS w
            CROSS JOIN LATERAL unnest(w.lefts, w.asks)
            WITH ORDINALITY AS a (left_over, ask, slot)
        )

        SELECT
            s.nr,
            array_agg(s.kind ORDER BY s.turn, s.slot) AS kinds,
            array_agg(s.place ORDER BY s.turn, s.slot) AS places,
            array_agg(s.left_over ORDER BY s.turn, s.slot) AS lefts,
            array_agg(s.ask ORDER BY s.turn, s.slot) AS asks
        FROM slots AS s
        GROUP BY s.nr
        ORDER BY s.nr
    LOOP
        nr := v_booking.nr;
        stopped_by := NULL;
        FOR i IN 1 .. cardinality(v_booking.places) LOOP
            IF coalesce(v_left[v_booking.places[i]], v_booking.lefts[i]) < v_booking.asks[i] THEN
                stopped_by := v_booking.kinds[i];
                EXIT;
            END IF;
        END LOOP;
        IF stopped_by IS NULL THEN
            FOR i IN 1 .. cardinality(v_booking.places) LOOP
                v_left[v_booking.places[i]]
                := coalesce(v_left[v_booking.places[i]], v_booking.lefts[i]) - v_booking.asks[i];
            END LOOP;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION retally.first_come(retally.booking[], text[]) IS
'Decides which bookings of a batch fit when each takes its turn.';
