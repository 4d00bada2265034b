-- Where the show's totals are not what its procs say: one row per slot that differs.
-- p_show: name or id. slot: cores, gpus, local_cores, local_gpus; cores in core units.
-- stored is null where the row of the total is missing.
-- Locks and writes nothing.
-- Raises RT001, RT002.
CREATE OR REPLACE FUNCTION retally.drift(p_show text)
RETURNS TABLE (total text, key text, slot text, stored numeric, booked numeric)
LANGUAGE plpgsql STABLE
-- compiling the plan costs more than running it
SET jit = off
SET work_mem = '64MB'
-- hashing the keys is several times faster than sorting them
SET enable_mergejoin = off
AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
BEGIN
    RETURN QUERY
    SELECT
        c.total,
        c.key,
        v.slot,
        v.stored,
        v.booked
    FROM retally.compared(ARRAY[v_show_id], retally.totals()) AS c
    CROSS JOIN LATERAL (
        VALUES
        ('cores', c.was_cores, c.cores),
        ('gpus', c.was_gpus, c.gpus),
        ('local_cores', c.was_local_cores, c.local_cores),
        ('local_gpus', c.was_local_gpus, c.local_gpus)
    ) AS v (slot, stored, booked)
    WHERE
        (c.kind = 'row' AND v.stored <> v.booked)
        OR (c.kind = 'missing' AND v.booked <> 0)
    ORDER BY array_position(retally.totals(), c.total), c.key, v.slot;
END
$$;
COMMENT ON FUNCTION retally.drift(text) IS
'Where the show''s totals are not what its procs say: one row per slot that differs.';
