-- Where the triggers on the totals' tables and on proc are not as OpenCue's migrations leave them,
-- from V11 on. fault: unknown (it may write totals behind the ticks, or refuse theirs), disabled or
-- missing (one of OpenCue's own: a tier or a cap is not kept).
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.odd_triggers()
RETURNS TABLE (table_name text, trigger_name text, function_name text, fault text)
LANGUAGE sql STABLE
AS $$
    WITH known AS (
        SELECT
            k.table_name,
            k.trigger_name,
            'trigger__' || k.trigger_name AS function_name
        FROM (
            VALUES
            ('subscription', 'tier_subscription'),
            ('subscription', 'verify_subscription'),
            ('job_resource', 'tier_job'),
            ('job_resource', 'verify_job_resources'),
            ('folder_resource', 'tier_folder'),
            ('point', 'point_tier'),
            ('proc', 'before_insert_proc'),
            ('proc', 'update_proc_update_layer'),
            ('proc', 'upgrade_proc_memory_usage')
        ) AS k (table_name, trigger_name)
    ),

    present AS (
        SELECT
            c.relname::text AS table_name,
            t.tgname::text AS trigger_name,
            p.proname::text AS function_name,
            t.tgenabled IN ('D', 'R') AS disabled
        FROM pg_catalog.pg_trigger AS t
        INNER JOIN pg_catalog.pg_class AS c ON t.tgrelid = c.oid
        INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
        INNER JOIN pg_catalog.pg_proc AS p ON t.tgfoid = p.oid
        WHERE
            NOT t.tgisinternal
            AND n.nspname = 'public'
            -- the journal's own
            AND p.pronamespace <> 'retally'::regnamespace
            AND c.relname IN (
                'subscription', 'layer_resource', 'job_resource', 'folder_resource', 'point', 'proc'
            )
    )

    SELECT
        coalesce(p.table_name, k.table_name) AS table_name,
        coalesce(p.trigger_name, k.trigger_name) AS trigger_name,
        coalesce(p.function_name, k.function_name) AS function_name,
        CASE
            WHEN k.trigger_name IS NULL THEN 'unknown'
            WHEN p.trigger_name IS NULL THEN 'missing'
            ELSE 'disabled'
        END AS fault
    FROM present AS p
    FULL JOIN known AS k
        ON
            p.table_name = k.table_name
            AND p.trigger_name = k.trigger_name
            AND p.function_name = k.function_name
    -- an unknown one that is disabled does nothing
    WHERE (k.trigger_name IS NULL) <> coalesce(p.disabled, TRUE)
    ORDER BY 1, 2, 3
$$;
COMMENT ON FUNCTION retally.odd_triggers() IS
'Where the triggers on the totals'' tables and on proc are not as OpenCue leaves them.';
