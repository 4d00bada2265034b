-- Where totals are not what the procs say: one row per slot that differs.
-- p_show_ids: pk_show of each show; null: of all. p_totals: which totals. slot: cores, gpus,
-- local_cores, local_gpus; cores in core units. stored is null where the total's row is missing.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.drift_in(p_show_ids text[], p_totals text[])
RETURNS TABLE (show_id text, total text, key text, slot text, stored numeric, booked numeric)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        c.show_id,
        c.total,
        c.key,
        v.slot,
        v.stored,
        v.booked
    FROM retally.compared(p_show_ids, p_totals, 'procs') AS c
    CROSS JOIN
        LATERAL (
            VALUES
            ('cores', c.was_cores, c.cores),
            ('gpus', c.was_gpus, c.gpus),
            ('local_cores', c.was_local_cores, c.local_cores),
            ('local_gpus', c.was_local_gpus, c.local_gpus)
        ) AS v (slot, stored, booked)
    WHERE
        (c.kind = 'row' AND v.stored <> v.booked)
        OR (c.kind = 'missing' AND v.booked <> 0)
$$;
COMMENT ON FUNCTION retally.drift_in(text[], text[]) IS
'Where totals are not what the procs say: one row per slot that differs.';
