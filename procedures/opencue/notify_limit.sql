-- Tells the listeners of acct_limit_change of new caps, in OpenCue's wire form, when the
-- transaction commits; nothing where setting.notify is off.
-- p_vertex: which one. p_cores_name: what the wire calls p_cores (core units there: whole cores,
-- cut, but never to 0 where that would mean no limit). p_cores and p_gpus: null for as it is.
-- Beside the wire form: core_units, and xact, by which a listener knows whether what it has read
-- was newer. Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.notify_limit(
    p_vertex jsonb, p_cores_name text, p_cores bigint, p_gpus bigint
)
RETURNS void
LANGUAGE sql VOLATILE
AS $$
    SELECT
        pg_notify(
            'acct_limit_change',
            (
                p_vertex || jsonb_strip_nulls(
                    jsonb_build_object(
                        p_cores_name,
                        CASE
                            WHEN p_cores < 0 THEN -1
                            WHEN p_cores BETWEEN 1 AND 99 AND p_cores_name <> 'burst' THEN 1
                            ELSE p_cores / 100
                        END,
                        'max_gpus', p_gpus,
                        'core_units', p_cores,
                        'xact', pg_current_xact_id()::text
                    )
                )
            )::text
        )
    FROM retally.setting AS s
    WHERE s.notify
$$;
COMMENT ON FUNCTION retally.notify_limit(jsonb, text, bigint, bigint) IS
'Tells the listeners of acct_limit_change of new caps.';
