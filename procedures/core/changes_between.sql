-- Which slots of the rows of a total differ between two states of them, by key and slot.
-- A slot that the total does not have, and a key that is only in one of the two, is left out; of
-- several rows of one key, one stands for all.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.changes_between(
    p_total text, p_before retally.amount[], p_after retally.amount[]
)
RETURNS SETOF retally.change
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT DISTINCT ON (b.key, s.slot)
        p_total,
        b.key,
        s.slot,
        s.was,
        s.now
    FROM unnest(p_before) AS b
    INNER JOIN unnest(p_after) AS a ON b.key = a.key
    CROSS JOIN
        LATERAL (
            VALUES
            ('cores', b.cores, a.cores),
            ('gpus', b.gpus, a.gpus),
            ('local_cores', b.local_cores, a.local_cores),
            ('local_gpus', b.local_gpus, a.local_gpus)
        ) AS s (slot, was, now)
    WHERE s.was <> s.now
    ORDER BY b.key, s.slot, s.was
$$;
COMMENT ON FUNCTION retally.changes_between(text, retally.amount[], retally.amount[]) IS
'Which slots of the rows of a total differ between two states of them.';
