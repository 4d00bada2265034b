-- Writes p_amounts into locked subscription totals of a show, where they differ.
-- Answers with the rows written, and with those whose amount does not fit its column (fits false).
-- The farm's trigger refuses a rise above the burst, but only while the burst stays the same: so
-- just such a row goes through a burst of one less, put back at once under the same row lock.
-- Locks: what lock_subscription() has locked before. Writes: public.subscription.
CREATE OR REPLACE FUNCTION retally.write_subscription(p_show_id text, p_amounts retally.amount[])
RETURNS TABLE (key text, fits boolean)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('subscription', 'int_cores');
    v_max_gpus numeric := retally.column_limit('subscription', 'int_gpus');
    v_written text[];
    v_misfits text[];
    v_over text[];
    v_bursts numeric [];
BEGIN
    WITH wanted AS MATERIALIZED (
        SELECT
            a.*,
            r.int_burst AS burst,
            a.cores > r.int_cores::numeric AND a.cores > r.int_burst::numeric AS over_burst,
            abs(a.cores) <= v_max_cores AND abs(a.gpus) <= v_max_gpus AS fits
        FROM unnest(p_amounts) AS a
        INNER JOIN public.subscription AS r
            ON a.key = r.pk_alloc::text AND r.pk_show::text = p_show_id
    ),

    written AS (
        UPDATE public.subscription AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus,
            int_burst = a.burst - a.over_burst::integer
        FROM wanted AS a
        WHERE
            r.pk_show::text = p_show_id
            AND r.pk_alloc::text = a.key
            AND a.fits
            AND (r.int_cores::numeric <> a.cores OR r.int_gpus::numeric <> a.gpus)
        RETURNING a.key, a.over_burst, a.burst
    )

    SELECT
        (SELECT coalesce(array_agg(w.key), '{}') FROM written AS w),
        (SELECT array_agg(w.key ORDER BY w.key) FROM written AS w WHERE w.over_burst),
        (SELECT array_agg(w.burst ORDER BY w.key) FROM written AS w WHERE w.over_burst),
        (SELECT coalesce(array_agg(a.key), '{}') FROM wanted AS a WHERE NOT a.fits)
    INTO v_written, v_over, v_bursts, v_misfits;

    IF v_over IS NOT NULL THEN
        UPDATE public.subscription AS r
        SET int_burst = o.burst
        FROM unnest(v_over, v_bursts) AS o (key, burst)
        WHERE r.pk_show::text = p_show_id AND r.pk_alloc::text = o.key;
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
COMMENT ON FUNCTION retally.write_subscription(text, retally.amount[]) IS
'Writes amounts into locked subscription totals of a show, where they differ.';
