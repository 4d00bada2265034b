-- Why an entry of a batch was not booked, as SQLSTATE, message and hint. p_alloc: its host's
-- allocation. p_stopped_by: as of first_come() or kept_out(), or null. p_token: its lease.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.why_not(
    p_booking retally.booking, p_alloc text, p_stopped_by text, p_token bigint,
    OUT problem text, OUT message text, OUT hint text, OUT holder text
)
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF p_stopped_by = 'subscription' THEN
        SELECT o.problem, o.message, o.hint
        INTO problem, message, hint
        FROM retally.over_burst(p_booking.show, p_alloc, p_booking.cores) AS o;
    ELSIF p_stopped_by = 'job' THEN
        SELECT o.problem, o.message, o.hint
        INTO problem, message, hint
        FROM retally.over_job_max(p_booking.job, p_booking.cores, p_booking.gpus) AS o;
    ELSIF p_stopped_by = 'lease' THEN
        SELECT u.problem, u.message, u.hint
        INTO problem, message, hint
        FROM retally.unleased(p_booking.show, p_token) AS u;
    ELSIF p_stopped_by = 'move' THEN
        SELECT m.problem, m.message, m.hint
        INTO problem, message, hint
        FROM retally.moved(p_booking.host, p_booking.job) AS m;
    ELSE
        SELECT r.problem, r.message, r.hint, r.holder
        INTO problem, message, hint, holder
        FROM retally.refusal(
            p_booking.host, p_booking.job, p_booking.layer,
            -- where the host stopped it, another one may have the frame by now
            CASE WHEN p_stopped_by IS NULL OR p_stopped_by = 'frame' THEN p_booking.frame END,
            p_booking.cores, p_booking.mem_kb, p_booking.gpus, p_booking.gpu_mem_kb, p_booking.local
        ) AS r;
    END IF;
    IF problem IS NULL THEN
        problem := 'RT014';
        message := format('frame "%s" was booked a moment ago', p_booking.frame);
        hint := 'That is over: try again.';
    END IF;
END
$$;
COMMENT ON FUNCTION retally.why_not(retally.booking, text, text, bigint) IS
'Why an entry of a batch was not booked.';
