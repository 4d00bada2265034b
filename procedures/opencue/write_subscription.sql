-- Writes into those subscription totals of p_rows that nobody has locked and that still hold what
-- was found (was_…; null: whatever they hold), where they differ.
-- Answers with the rows written, and with those whose amount does not fit its column (fits false).
-- The farm's trigger refuses a rise above the burst, but only while the burst stays the same: so
-- just such a row goes through a burst of one less, put back at once under the same row lock.
-- Locks: these rows, FOR NO KEY UPDATE, waiting for none. Writes: public.subscription.
CREATE OR REPLACE FUNCTION retally.write_subscription(p_rows retally.comparison[])
RETURNS TABLE (show_id text, key text, fits boolean)
LANGUAGE plpgsql VOLATILE
-- a plan for one row by index, whatever their number: they come in the order of the index
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('subscription', 'int_cores');
    v_max_gpus numeric := retally.column_limit('subscription', 'int_gpus');
    v_shows text[];
    v_keys text[];
    v_over boolean[];
BEGIN
    WITH wanted AS (
        SELECT a.*
        FROM unnest(p_rows) AS a
        WHERE
            a.total = 'subscription'
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
            a.gpus,
            r.int_burst AS burst,
            a.cores > r.int_cores::numeric AND a.cores > r.int_burst::numeric AS over_burst
        FROM wanted AS a
        INNER JOIN public.subscription AS r
            ON a.show_id = r.pk_show::text AND a.key = r.pk_alloc::text
        WHERE
            (r.int_cores::numeric <> a.cores OR r.int_gpus::numeric <> a.gpus)
            AND (a.was_cores IS NULL OR r.int_cores::numeric = a.was_cores)
            AND (a.was_gpus IS NULL OR r.int_gpus::numeric = a.was_gpus)
        FOR NO KEY UPDATE OF r SKIP LOCKED
    ),

    written AS (
        UPDATE public.subscription AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus,
            int_burst = a.burst - a.over_burst::integer
        FROM held AS a
        -- just the rows that are held: a key may have several
        WHERE r.ctid = a.place
        RETURNING a.show_id, a.key, a.over_burst
    )

    SELECT
        coalesce(array_agg(w.show_id), '{}'),
        coalesce(array_agg(w.key), '{}'),
        coalesce(array_agg(w.over_burst), '{}')
    INTO v_shows, v_keys, v_over
    FROM written AS w;

    IF TRUE = any(v_over) THEN
        UPDATE public.subscription AS r
        SET int_burst = r.int_burst + 1
        FROM unnest(v_shows, v_keys, v_over) AS w (show_id, key, over_burst)
        WHERE w.over_burst AND r.pk_show::text = w.show_id AND r.pk_alloc::text = w.key;
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
        a.total = 'subscription'
        AND a.kind = 'row'
        AND (abs(a.cores) > v_max_cores OR abs(a.gpus) > v_max_gpus);
END
$$;
COMMENT ON FUNCTION retally.write_subscription(retally.comparison[]) IS
'Writes into subscription totals that still hold what was found.';
