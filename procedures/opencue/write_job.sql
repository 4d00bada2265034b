-- Writes p_amounts into locked job totals of a show, where they differ.
-- Answers with the rows written, and with those whose amount does not fit its column (fits false).
-- The farm's trigger refuses a rise above a maximum, but only while the maximum stays the same: so
-- just such a row goes through maxima of one less, put back at once under the same row lock.
-- Locks: what lock_job() has locked before. Writes: public.job_resource.
CREATE OR REPLACE FUNCTION retally.write_job(p_show_id text, p_amounts retally.amount[])
RETURNS TABLE (key text, fits boolean)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('job_resource', 'int_cores');
    v_max_gpus numeric := retally.column_limit('job_resource', 'int_gpus');
    v_max_local_cores numeric := retally.column_limit('job_resource', 'int_local_cores');
    v_max_local_gpus numeric := retally.column_limit('job_resource', 'int_local_gpus');
    v_written text[];
    v_misfits text[];
    v_over text[];
    v_core_caps numeric [];
    v_gpu_caps numeric [];
BEGIN
    WITH wanted AS MATERIALIZED (
        SELECT
            a.*,
            r.int_max_cores AS core_cap,
            r.int_max_gpus AS gpu_cap,
            (a.cores > r.int_cores::numeric OR a.gpus > r.int_gpus::numeric)
            AND (a.cores > r.int_max_cores::numeric OR a.gpus > r.int_max_gpus::numeric) AS over_cap,
            abs(a.cores) <= v_max_cores
            AND abs(a.gpus) <= v_max_gpus
            AND abs(a.local_cores) <= v_max_local_cores
            AND abs(a.local_gpus) <= v_max_local_gpus AS fits
        FROM unnest(p_amounts) AS a
        INNER JOIN public.job_resource AS r ON a.key = r.pk_job::text
    ),

    written AS (
        UPDATE public.job_resource AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus,
            int_local_cores = a.local_cores,
            int_local_gpus = a.local_gpus,
            int_max_cores = a.core_cap - a.over_cap::integer,
            int_max_gpus = a.gpu_cap - a.over_cap::integer
        FROM wanted AS a
        WHERE
            r.pk_job::text = a.key
            AND a.fits
            AND (
                r.int_cores::numeric <> a.cores
                OR r.int_gpus::numeric <> a.gpus
                OR r.int_local_cores::numeric <> a.local_cores
                OR r.int_local_gpus::numeric <> a.local_gpus
            )
        RETURNING a.key, a.over_cap, a.core_cap, a.gpu_cap
    )

    SELECT
        (SELECT coalesce(array_agg(w.key), '{}') FROM written AS w),
        (SELECT array_agg(w.key ORDER BY w.key) FROM written AS w WHERE w.over_cap),
        (SELECT array_agg(w.core_cap ORDER BY w.key) FROM written AS w WHERE w.over_cap),
        (SELECT array_agg(w.gpu_cap ORDER BY w.key) FROM written AS w WHERE w.over_cap),
        (SELECT coalesce(array_agg(a.key), '{}') FROM wanted AS a WHERE NOT a.fits)
    INTO v_written, v_over, v_core_caps, v_gpu_caps, v_misfits;

    IF v_over IS NOT NULL THEN
        UPDATE public.job_resource AS r
        SET
            int_max_cores = o.core_cap,
            int_max_gpus = o.gpu_cap
        FROM unnest(v_over, v_core_caps, v_gpu_caps) AS o (key, core_cap, gpu_cap)
        WHERE r.pk_job::text = o.key;
    END IF;

    RETURN QUERY
    SELECT
        w.key,
        TRUE
    FROM unnest(v_written) AS w (key)
    UNION ALL
    SELECT
        m.key,
        FALSE
    FROM unnest(v_misfits) AS m (key);
END
$$;
COMMENT ON FUNCTION retally.write_job(text, retally.amount[]) IS
'Writes amounts into locked job totals of a show, where they differ.';
