-- The entries of a batch as bookings: nr is the place in the arrays, from 1; show is null where
-- job, layer, frame and host do not belong together or an amount is no amount (see refusal()).
-- proc is a new id, alloc is null. Arrays as of book_procs(). Locks and writes nothing.
-- Raises RT008 when the arrays differ in length.
CREATE OR REPLACE FUNCTION retally.asked_for(
    p_hosts text[], p_jobs text[], p_layers text[], p_frames text[], p_cores bigint[],
    p_mem_kb bigint[], p_gpus integer[], p_gpu_mem_kb bigint[], p_local boolean[]
)
RETURNS SETOF retally.booking
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM retally.require_lengths(
        ARRAY[
            cardinality(p_hosts), cardinality(p_jobs), cardinality(p_layers),
            cardinality(p_frames), cardinality(p_cores), cardinality(p_mem_kb)
        ],
        ARRAY[cardinality(p_gpus), cardinality(p_gpu_mem_kb), cardinality(p_local)]
    );
    RETURN QUERY
    SELECT
        e.nr::integer,
        gen_random_uuid()::text,
        CASE
            WHEN
                e.cores > 0 AND e.mem_kb >= 0 AND e.gpus >= 0 AND e.gpu_mem_kb >= 0
                AND e.local IS NOT NULL AND h.pk_host IS NOT NULL
                AND coalesce(f.pk_frame, l.pk_layer) IS NOT NULL
                THEN j.pk_show::text
        END,
        NULL::text,
        e.host,
        e.job,
        e.layer,
        e.frame,
        e.cores,
        e.mem_kb,
        e.gpus::bigint,
        e.gpu_mem_kb,
        e.local
    FROM (
        SELECT
            u.nr,
            u.host,
            u.job,
            u.layer,
            u.frame,
            u.cores,
            u.mem_kb,
            CASE WHEN p_gpus IS NULL THEN 0 ELSE u.gpus END AS gpus,
            CASE WHEN p_gpu_mem_kb IS NULL THEN 0 ELSE u.gpu_mem_kb END AS gpu_mem_kb,
            CASE WHEN p_local IS NULL THEN FALSE ELSE u.local END AS local
        FROM unnest(
            p_hosts, p_jobs, p_layers, p_frames, p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb, p_local
        ) WITH ORDINALITY AS u (
            host, job, layer, frame, cores, mem_kb, gpus, gpu_mem_kb, local, nr
        )
    ) AS e
    LEFT JOIN public.host AS h ON e.host = h.pk_host::text
    LEFT JOIN public.job AS j ON e.job = j.pk_job::text
    -- a frame's own row says whose it is; without one, the layer's does
    LEFT JOIN public.frame AS f
        ON
            e.frame = f.pk_frame::text
            AND e.layer = f.pk_layer::text
            AND e.job = f.pk_job::text
    LEFT JOIN public.layer AS l
        ON
            CASE WHEN e.frame IS NULL THEN e.layer END = l.pk_layer::text
            AND e.job = l.pk_job::text;
END
$$;
COMMENT ON FUNCTION retally.asked_for(
    text[], text[], text[], text[], bigint[], bigint[], integer[], bigint[], boolean[]
) IS 'The entries of a batch as bookings.';
