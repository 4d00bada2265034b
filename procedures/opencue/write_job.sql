-- Writes into those job totals of p_rows that nobody has locked and that still hold what was found
-- (was_…; null: whatever they hold), where they differ.
-- Answers with the rows written, and with those whose amount does not fit its column (fits false).
-- The farm's trigger refuses a rise above a maximum, but only while the maximum stays the same: so
-- just such a row goes through maxima of one less, put back at once under the same row lock.
-- Locks: these rows, FOR NO KEY UPDATE, waiting for none. Writes: public.job_resource.
CREATE OR REPLACE FUNCTION retally.write_job(p_rows retally.comparison[])
RETURNS TABLE (show_id text, key text, fits boolean)
LANGUAGE plpgsql VOLATILE
-- a plan for one row by index, whatever their number: they come in the order of the index
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('job_resource', 'int_cores');
    v_max_gpus numeric := retally.column_limit('job_resource', 'int_gpus');
    v_max_local_cores numeric := retally.column_limit('job_resource', 'int_local_cores');
    v_max_local_gpus numeric := retally.column_limit('job_resource', 'int_local_gpus');
    v_shows text[];
    v_keys text[];
    v_over boolean[];
BEGIN
    WITH wanted AS (
        SELECT a.*
        FROM unnest(p_rows) AS a
        WHERE
            a.total = 'job'
            AND a.kind = 'row'
            AND abs(a.cores) <= v_max_cores
            AND abs(a.gpus) <= v_max_gpus
            AND abs(a.local_cores) <= v_max_local_cores
            AND abs(a.local_gpus) <= v_max_local_gpus
        -- neighbours in the index, one after the other
        ORDER BY a.key COLLATE "C"
    ),

    held AS MATERIALIZED (
        SELECT
            r.ctid AS place,
            a.show_id,
            a.key,
            a.cores,
            a.gpus,
            a.local_cores,
            a.local_gpus,
            r.int_max_cores AS core_cap,
            r.int_max_gpus AS gpu_cap,
            (a.cores > r.int_cores::numeric OR a.gpus > r.int_gpus::numeric)
            AND (a.cores > r.int_max_cores::numeric OR a.gpus > r.int_max_gpus::numeric) AS over_cap
        FROM wanted AS a
        INNER JOIN public.job_resource AS r ON a.key = r.pk_job::text
        WHERE
            (
                r.int_cores::numeric <> a.cores
                OR r.int_gpus::numeric <> a.gpus
                OR r.int_local_cores::numeric <> a.local_cores
                OR r.int_local_gpus::numeric <> a.local_gpus
            )
            AND (a.was_cores IS NULL OR r.int_cores::numeric = a.was_cores)
            AND (a.was_gpus IS NULL OR r.int_gpus::numeric = a.was_gpus)
            AND (a.was_local_cores IS NULL OR r.int_local_cores::numeric = a.was_local_cores)
            AND (a.was_local_gpus IS NULL OR r.int_local_gpus::numeric = a.was_local_gpus)
        FOR NO KEY UPDATE OF r SKIP LOCKED
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
        FROM held AS a
        -- just the rows that are held: a key may have several
        WHERE r.ctid = a.place
        RETURNING a.show_id, a.key, a.over_cap
    )

    SELECT
        coalesce(array_agg(w.show_id), '{}'),
        coalesce(array_agg(w.key), '{}'),
        coalesce(array_agg(w.over_cap), '{}')
    INTO v_shows, v_keys, v_over
    FROM written AS w;

    IF TRUE = any(v_over) THEN
        UPDATE public.job_resource AS r
        SET
            int_max_cores = r.int_max_cores + 1,
            int_max_gpus = r.int_max_gpus + 1
        FROM unnest(v_keys, v_over) AS w (key, over_cap)
        WHERE w.over_cap AND r.pk_job::text = w.key;
    END IF;

    RETURN QUERY
    SELECT
        w.show_id,
        w.key,
        TRUE
    FROM unnest(v_shows, v_keys) AS w (show_id, key)
    UNION ALL
    SELECT
        a.show_id,
        a.key,
        FALSE
    FROM unnest(p_rows) AS a
    WHERE
        a.total = 'job'
        AND a.kind = 'row'
        AND (
            abs(a.cores) > v_max_cores
            OR abs(a.gpus) > v_max_gpus
            OR abs(a.local_cores) > v_max_local_cores
            OR abs(a.local_gpus) > v_max_local_gpus
        );
END
$$;
COMMENT ON FUNCTION retally.write_job(retally.comparison[]) IS
'Writes into job totals that still hold what was found.';
