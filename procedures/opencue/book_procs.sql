-- Books many procs in one transaction. One answer for each entry, by its place nr from 1: the
-- proc's id, or how book_proc() would refuse it; for RT010 the holder is the proc that has the
-- frame. A refused entry does not hinder the others; where not all fit, earlier ones go first.
-- Arrays: as the parameters of book_proc(), one element for each proc; the last three may be null
-- as a whole. Locks and writes: as book_proc(), in key order. Raises RT003; RT008 for arrays that
-- differ.
CREATE OR REPLACE FUNCTION retally.book_procs(
    p_hosts text[], p_jobs text[], p_layers text[], p_frames text[], p_cores bigint[],
    p_mem_kb bigint[], p_gpus integer[] DEFAULT NULL, p_gpu_mem_kb bigint[] DEFAULT NULL,
    p_local boolean[] DEFAULT NULL, p_tokens bigint[] DEFAULT NULL, p_allocs text[] DEFAULT NULL,
    p_folders text[] DEFAULT NULL
)
RETURNS TABLE (
    nr integer, proc text, problem text, message text, hint text, holder text
)
LANGUAGE plpgsql VOLATILE
-- the arrays are small beside the farm, and each plan has to begin with them
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
DECLARE
    v_asked retally.booking[];
    v_let_in retally.booking[];
    v_managed text[];
    -- the entries whose host has moved since their caps were counted
    v_moved integer[] := '{}';
    v_now_moved integer[];
    v_in text[];
    v_all_in boolean;
    v_new retally.booking[];
    v_fit retally.booking[];
    v_booked text[];
    v_kept_out integer[];
    v_kept_out_by text[];
    v_stopped integer[];
    v_stopped_by text[];
BEGIN
    PERFORM retally.require_read_committed('nothing can be booked or released');
    PERFORM retally.require_lengths(
        ARRAY[cardinality(p_hosts)],
        ARRAY[cardinality(p_tokens), cardinality(p_allocs), cardinality(p_folders)]
    );
    LOOP
        v_asked := ARRAY(
            SELECT a
            FROM retally.asked_for(
                p_hosts, p_jobs, p_layers, p_frames, p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb,
                p_local
            ) AS a
        );
        v_managed := retally.pin_flags(
            ARRAY(SELECT a.show FROM unnest(v_asked) AS a WHERE a.show IS NOT NULL)
        );
        SELECT
            coalesce(array_agg(k.nr), '{}'),
            coalesce(array_agg(k.stopped_by), '{}')
        INTO v_kept_out, v_kept_out_by
        FROM retally.kept_out(v_asked, v_managed, p_tokens, p_folders, v_moved) AS k;
        v_let_in := v_asked;
        IF cardinality(v_kept_out) > 0 THEN
            v_let_in := ARRAY(SELECT a FROM unnest(v_asked) AS a WHERE a.nr <> all(v_kept_out));
        END IF;
        BEGIN
            v_in := retally.insert_procs(v_let_in);
            -- their hosts are locked now
            v_now_moved := ARRAY(
                SELECT a.nr
                FROM unnest(v_let_in) AS a
                INNER JOIN public.host AS h ON a.host = h.pk_host::text
                WHERE h.pk_alloc::text <> p_allocs[a.nr] AND a.show IS NOT NULL
            );
            EXIT WHEN cardinality(v_now_moved) = 0;
            v_moved := v_moved || v_now_moved;
            RAISE EXCEPTION 'hosts have moved' USING ERRCODE = 'RT020';
        EXCEPTION
            WHEN foreign_key_violation OR SQLSTATE 'RT020' THEN
                -- a frame or a host was deleted while we waited, or a host is elsewhere: the
                -- entry is seen to be bad now
                NULL;
        END;
    END LOOP;
    v_all_in := cardinality(v_in) = cardinality(v_let_in);
    v_new := v_let_in;
    IF NOT v_all_in THEN
        -- rivals in the batch for a frame that is in; their turn comes if the first does not fit
        v_new := ARRAY(
            SELECT a
            FROM unnest(v_let_in) AS a
            WHERE
                a.show IS NOT NULL
                AND (
                    a.proc IN (SELECT i.proc FROM unnest(v_in) AS i (proc))
                    OR a.frame IN (
                        SELECT f.frame
                        FROM unnest(v_let_in) AS f
                        INNER JOIN unnest(v_in) AS i (proc) ON f.proc = i.proc
                    )
                )
        );
    END IF;
    IF EXISTS (SELECT FROM unnest(v_new) AS n WHERE n.local OR NOT n.show = any(v_managed)) THEN
        v_new := ARRAY(SELECT h FROM retally.lock_hosts(v_new) AS h);
        PERFORM retally.lock_totals(v_new, v_managed);
    END IF;
    BEGIN
        PERFORM retally.count_in(
            CASE
                WHEN v_all_in THEN v_new
                ELSE
                    ARRAY(
                        SELECT n FROM unnest(v_new) AS n
                        INNER JOIN unnest(v_in) AS i (proc) ON n.proc = i.proc
                    )
            END,
            v_managed, 1
        );
        v_booked := v_in;
    EXCEPTION
        WHEN SQLSTATE 'RT009' OR SQLSTATE 'RT011' OR SQLSTATE 'RT012' OR SQLSTATE 'RT013'
            OR SQLSTATE 'RT014' OR numeric_value_out_of_range
        THEN
            -- not all fit: those that do when each takes its turn
            SELECT
                coalesce(array_agg(n.proc) FILTER (WHERE f.stopped_by IS NULL), '{}'),
                array_agg(f.nr),
                array_agg(f.stopped_by)
            INTO v_booked, v_stopped, v_stopped_by
            FROM retally.first_come(v_new, v_managed) AS f
            INNER JOIN unnest(v_new) AS n ON f.nr = n.nr;
            v_fit := ARRAY(
                SELECT n FROM unnest(v_new) AS n
                INNER JOIN unnest(v_booked) AS b (proc) ON n.proc = b.proc
            );
            DELETE FROM public.proc AS p
            WHERE
                p.pk_proc::text IN (
                    SELECT i.proc FROM unnest(v_in) AS i (proc)
                    EXCEPT
                    SELECT b.proc FROM unnest(v_booked) AS b (proc)
                );
            -- a rival's frame is free now
            PERFORM retally.insert_procs(
                ARRAY(
                    SELECT f FROM unnest(v_fit) AS f
                    WHERE f.proc NOT IN (SELECT i.proc FROM unnest(v_in) AS i (proc))
                )
            );
            PERFORM retally.count_in(v_fit, v_managed, 1);
    END;

    RETURN QUERY
    SELECT
        a.nr,
        a.proc,
        NULL::text,
        NULL::text,
        NULL::text,
        NULL::text
    FROM unnest(v_asked) AS a
    WHERE a.proc IN (SELECT b.proc FROM unnest(v_booked) AS b (proc))
    UNION ALL
    SELECT
        a.nr,
        NULL::text,
        w.problem,
        w.message,
        w.hint,
        w.holder
    FROM unnest(v_asked) AS a
    LEFT JOIN unnest(v_new) AS n ON a.nr = n.nr
    LEFT JOIN unnest(v_stopped || v_kept_out, v_stopped_by || v_kept_out_by) AS s (nr, by)
        ON a.nr = s.nr
    CROSS JOIN LATERAL retally.why_not(a, n.alloc, s.by, p_tokens[a.nr]) AS w
    WHERE a.proc NOT IN (SELECT b.proc FROM unnest(v_booked) AS b (proc))
    ORDER BY 1;
END
$$;
COMMENT ON FUNCTION retally.book_procs(
    text[], text[], text[], text[], bigint[], bigint[], integer[], bigint[], boolean[], bigint[],
    text[], text[]
) IS 'Books many procs in one transaction; one answer for each entry.';
