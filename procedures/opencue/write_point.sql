-- Writes into those point totals of p_rows that nobody has locked and that still hold what was
-- found (was_…; null: whatever they hold), where they differ.
-- Answers with the rows written, and with those whose amount does not fit its column (fits false).
-- Locks: these rows, FOR NO KEY UPDATE, waiting for none. Writes: public.point.
CREATE OR REPLACE FUNCTION retally.write_point(p_rows retally.comparison[])
RETURNS TABLE (show_id text, key text, fits boolean)
LANGUAGE plpgsql VOLATILE
-- a plan for one row by index, whatever their number: they come in the order of the index
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('point', 'int_cores');
    v_max_gpus numeric := retally.column_limit('point', 'int_gpus');
BEGIN
    RETURN QUERY
    WITH wanted AS (
        SELECT a.*
        FROM unnest(p_rows) AS a
        WHERE
            a.total = 'point'
            AND a.kind = 'row'
            AND abs(a.cores) <= v_max_cores
            AND abs(a.gpus) <= v_max_gpus
        -- neighbours in the index, one after the other
        ORDER BY a.key COLLATE "C"
    ),

    held AS MATERIALIZED (
        SELECT
            r.ctid AS place,
            a.show_id,
            a.key,
            a.cores,
            a.gpus
        FROM wanted AS a
        INNER JOIN public.point AS r ON a.key = r.pk_dept::text AND a.show_id = r.pk_show::text
        WHERE
            (r.int_cores::numeric <> a.cores OR r.int_gpus::numeric <> a.gpus)
            AND (a.was_cores IS NULL OR r.int_cores::numeric = a.was_cores)
            AND (a.was_gpus IS NULL OR r.int_gpus::numeric = a.was_gpus)
        FOR NO KEY UPDATE OF r SKIP LOCKED
    ),

    written AS (
        UPDATE public.point AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus
        FROM held AS a
        -- just the rows that are held: a key may have several
        WHERE r.ctid = a.place
        RETURNING a.show_id, a.key
    )

    SELECT
        w.show_id,
        w.key,
        TRUE
    FROM written AS w
    UNION ALL
    SELECT
        a.show_id,
        a.key,
        FALSE
    FROM unnest(p_rows) AS a
    WHERE
        a.total = 'point'
        AND a.kind = 'row'
        AND (abs(a.cores) > v_max_cores OR abs(a.gpus) > v_max_gpus);
END
$$;
COMMENT ON FUNCTION retally.write_point(retally.comparison[]) IS
'Writes into point totals that still hold what was found.';
