-- Writes p_amounts into locked layer totals of a show, where they differ.
-- Answers with the rows written, and with those whose amount does not fit its column (fits false).
-- Locks: what lock_layer() has locked before. Writes: public.layer_resource.
CREATE OR REPLACE FUNCTION retally.write_layer(p_show_id text, p_amounts retally.amount[])
RETURNS TABLE (key text, fits boolean)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('layer_resource', 'int_cores');
    v_max_gpus numeric := retally.column_limit('layer_resource', 'int_gpus');
BEGIN
    RETURN QUERY
    WITH wanted AS MATERIALIZED (
        SELECT
            a.*,
            abs(a.cores) <= v_max_cores AND abs(a.gpus) <= v_max_gpus AS fits
        FROM unnest(p_amounts) AS a
    ),

    written AS (
        UPDATE public.layer_resource AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus
        FROM wanted AS a
        WHERE
            r.pk_layer::text = a.key
            AND a.fits
            AND (r.int_cores::numeric <> a.cores OR r.int_gpus::numeric <> a.gpus)
        RETURNING a.key
    )

    SELECT
        w.key,
        TRUE
    FROM written AS w
    UNION ALL
    SELECT
        a.key,
        FALSE
    FROM wanted AS a
    WHERE NOT a.fits;
END
$$;
COMMENT ON FUNCTION retally.write_layer(text, retally.amount[]) IS
'Writes amounts into locked layer totals of a show, where they differ.';
