-- Raises the reason that refusal() finds against this booking.
-- Parameters as of book_proc(). Locks and writes nothing.
-- Raises RT008 to RT011, RT010 with the proc that holds the frame as its detail; RT014 when the
-- reason is gone by now.
CREATE OR REPLACE FUNCTION retally.refuse(
    p_host text, p_job text, p_layer text, p_frame text, p_cores bigint, p_mem_kb bigint,
    p_gpus bigint, p_gpu_mem_kb bigint, p_local boolean
)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM retally.refuse_with(
        coalesce(r.problem, 'RT014'),
        coalesce(
            r.message,
            CASE
                WHEN p_frame IS NOT NULL THEN format('frame "%s" was booked a moment ago', p_frame)
                ELSE format('host "%s", or its local share, was full a moment ago', p_host)
            END
        ),
        coalesce(r.hint, 'That is over: try again.'),
        r.holder
    )
    FROM retally.refusal(
        p_host, p_job, p_layer, p_frame, p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb, p_local
    ) AS r;
END
$$;
COMMENT ON FUNCTION retally.refuse(
    text, text, text, text, bigint, bigint, bigint, bigint, boolean
) IS 'Raises the reason against this booking.';
