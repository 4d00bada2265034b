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
BEGIN
    v_asked := ARRAY(
        SELECT a
        FROM retally.asked_for(
            p_hosts, p_jobs, p_layers, p_frames, p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb, p_local
        ) AS a
    );
    v_managed := retally.pin_flags(
        ARRAY(SELECT a.show FROM unnest(v_asked) AS a WHERE a.show IS NOT NULL)
    );
    v_in := retally.insert_procs(v_asked);
    v_new := ARRAY(
        SELECT a FROM unnest(v_asked) AS a
        WHERE a.proc IN (SELECT i.proc FROM unnest(v_in) AS i (proc))
    );
    PERFORM retally.lock_counted(v_new, v_managed);
    BEGIN
        PERFORM retally.count_in(v_new, v_managed, 1);
        v_booked := v_in;
    EXCEPTION
        WHEN SQLSTATE 'RT011' OR SQLSTATE 'RT012' OR SQLSTATE 'RT013' THEN
            -- not all fit: one by one, in the order in which they were asked for
            FOR v_booking IN SELECT n.* FROM unnest(v_new) AS n ORDER BY n.nr LOOP
                BEGIN
                    PERFORM retally.count_in(ARRAY[v_booking], v_managed, 1);
                    v_booked := v_booked || v_booking.proc;
                EXCEPTION
                    WHEN SQLSTATE 'RT011' OR SQLSTATE 'RT012' OR SQLSTATE 'RT013' THEN
                        nr := v_booking.nr;
                        problem := sqlstate;
                        GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
                        RETURN NEXT;
                END;
            END LOOP;
            DELETE FROM public.proc AS p
            USING unnest(v_new) AS n
            WHERE p.pk_proc::text = n.proc AND NOT n.proc = any(v_booked);
    END;

    RETURN QUERY
    SELECT
        a.nr,
        n.proc,
        CASE WHEN n.proc IS NULL THEN coalesce(r.problem, 'RT014') END,
        CASE WHEN n.proc IS NULL THEN coalesce(r.message, 'the frame was taken a moment ago') END,
        CASE WHEN n.proc IS NULL THEN coalesce(r.hint, 'It is free again: try again.') END
    FROM unnest(v_asked) AS a
    LEFT JOIN unnest(v_new) AS n ON a.nr = n.nr
    LEFT JOIN LATERAL retally.refusal(
        a.host, a.job, a.layer, a.frame, a.cores, a.mem_kb, a.gpus, a.gpu_mem_kb, a.local
    ) AS r ON n.proc IS NULL
    WHERE n.proc IS NULL OR n.proc = any(v_booked);
END
$$;
COMMENT ON FUNCTION retally.book_procs(
    text[], text[], text[], text[], bigint[], bigint[], integer[], bigint[], boolean[]
) IS 'Books many procs in one transaction; one answer for each entry.';
