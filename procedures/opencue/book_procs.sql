-- Books many procs in one transaction. One answer for each entry, by its place nr from 1: the
-- proc's id, or the problem (SQLSTATE), message and hint with which book_proc() would refuse it.
-- An entry that is refused does not hinder the others; where not all fit, earlier ones go first.
-- Arrays: as the parameters of book_proc(), one element for each proc.
-- Locks and writes: as book_proc(), in key order. Raises RT003; RT008 for arrays that differ.
CREATE OR REPLACE FUNCTION retally.book_procs(
    p_hosts text[], p_jobs text[], p_layers text[], p_frames text[], p_cores bigint[],
    p_mem_kb bigint[], p_gpus integer[] DEFAULT NULL, p_gpu_mem_kb bigint[] DEFAULT NULL,
    p_local boolean[] DEFAULT NULL
)
RETURNS TABLE (nr integer, proc text, problem text, message text, hint text)
LANGUAGE plpgsql VOLATILE
-- the arrays are small beside the farm, and each plan has to begin with them
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
DECLARE
    v_asked retally.booking[];
    v_new retally.booking[];
    v_booking retally.booking;
    v_managed text[];
    v_in text[];
    v_booked text[] := '{}';
    v_message text;
    v_hint text;
    -- by nr, of those that did not fit
    v_problems text[] := '{}';
    v_messages text[] := '{}';
    v_hints text[] := '{}';
BEGIN
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
        BEGIN
            v_in := retally.insert_procs(v_asked);
            EXIT;
        EXCEPTION
            WHEN foreign_key_violation THEN
                -- a frame or a host was deleted while we waited: the entry is seen to be bad now
                NULL;
        END;
    END LOOP;
    -- rivals in the batch for a frame that is in; their turn comes if the first does not fit
    v_new := ARRAY(
        SELECT h
        FROM retally.lock_hosts(ARRAY(
            SELECT a
            FROM unnest(v_asked) AS a
            WHERE
                a.show IS NOT NULL
                AND (
                    a.proc = any(v_in)
                    OR a.frame IN (SELECT f.frame FROM unnest(v_asked) AS f WHERE f.proc = any(v_in))
                )
        )) AS h
    );
    PERFORM retally.lock_totals(v_new, v_managed);
    BEGIN
        PERFORM retally.count_in(
            ARRAY(SELECT n FROM unnest(v_new) AS n WHERE n.proc = any(v_in)), v_managed, 1
        );
        v_booked := v_in;
    EXCEPTION
        WHEN SQLSTATE 'RT009' OR SQLSTATE 'RT011' OR SQLSTATE 'RT012' OR SQLSTATE 'RT013'
            OR SQLSTATE 'RT014' OR numeric_value_out_of_range
        THEN
            -- not all fit: one by one, in the order in which they were asked for
            DELETE FROM public.proc AS p
            WHERE p.pk_proc::text = any(v_in);
            FOR v_booking IN SELECT n.* FROM unnest(v_new) AS n ORDER BY n.nr LOOP
                BEGIN
                    IF cardinality(retally.insert_procs(ARRAY[v_booking])) = 1 THEN
                        PERFORM retally.count_in(ARRAY[v_booking], v_managed, 1);
                        v_booked := v_booked || v_booking.proc;
                    END IF;
                EXCEPTION
                    WHEN SQLSTATE 'RT009' OR SQLSTATE 'RT011' OR SQLSTATE 'RT012'
                        OR SQLSTATE 'RT013' OR SQLSTATE 'RT014' OR numeric_value_out_of_range
                    THEN
                        GET STACKED DIAGNOSTICS
                            v_message = MESSAGE_TEXT, v_hint = PG_EXCEPTION_HINT;
                        v_problems[v_booking.nr] := sqlstate;
                        v_messages[v_booking.nr] := v_message;
                        v_hints[v_booking.nr] := v_hint;
                END;
            END LOOP;
    END;

    RETURN QUERY
    SELECT
        a.nr,
        a.proc,
        NULL::text,
        NULL::text,
        NULL::text
    FROM unnest(v_asked) AS a
    WHERE a.proc = any(v_booked)
    UNION ALL
    SELECT
        a.nr,
        NULL::text,
        coalesce(v_problems[a.nr], r.problem, 'RT014'),
        coalesce(v_messages[a.nr], r.message, format('frame "%s" was booked a moment ago', a.frame)),
        coalesce(v_hints[a.nr], r.hint, 'That is over: try again.')
    FROM unnest(v_asked) AS a
    CROSS JOIN LATERAL retally.refusal(
        a.host, a.job, a.layer, a.frame, a.cores, a.mem_kb, a.gpus, a.gpu_mem_kb, a.local
    ) AS r
    WHERE NOT a.proc = any(v_booked)
    ORDER BY 1;
END
$$;
COMMENT ON FUNCTION retally.book_procs(
    text[], text[], text[], text[], bigint[], bigint[], integer[], bigint[], boolean[]
) IS 'Books many procs in one transaction; one answer for each entry.';
