-- What the rows p_now of a total held before a run, slot by slot: only rows of which every slot
-- that the run wrote still holds what it wrote, and no key with several rows, of which the ledger
-- knows one.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.former_amounts(
    p_run bigint, p_scope text, p_total text, p_now retally.amount[]
)
RETURNS SETOF retally.amount
LANGUAGE sql STABLE
AS $$
    WITH slots AS (
        SELECT
            n.key,
            s.slot,
            s.now,
            l.before,
            l.after
        FROM unnest(p_now) AS n
        CROSS JOIN
            LATERAL (
                VALUES
                ('cores', n.cores),
                ('gpus', n.gpus),
                ('local_cores', n.local_cores),
                ('local_gpus', n.local_gpus)
            ) AS s (slot, now)
        LEFT JOIN retally.ledger AS l
            ON
                l.run = p_run
                AND l.scope = p_scope
                AND l.total = p_total
                AND n.key = l.key
                AND s.slot = l.slot
    )

    SELECT
        s.key,
        max(coalesce(s.before, s.now)) FILTER (WHERE s.slot = 'cores'),
        max(coalesce(s.before, s.now)) FILTER (WHERE s.slot = 'gpus'),
        max(coalesce(s.before, s.now)) FILTER (WHERE s.slot = 'local_cores'),
        max(coalesce(s.before, s.now)) FILTER (WHERE s.slot = 'local_gpus')
    FROM slots AS s
    GROUP BY s.key
    HAVING bool_and(s.after IS NULL OR s.now = s.after) AND count(*) = 4
$$;
COMMENT ON FUNCTION retally.former_amounts(bigint, text, text, retally.amount[]) IS
'What the rows of a total held before a run, where they still hold what it wrote.';
