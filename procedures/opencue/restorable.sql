-- What undo() would meet: each slot that a run wrote, what it holds now (null: row gone), and
-- whether it would be put back: only where all of its row still holds what the run wrote.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.restorable(p_run bigint)
RETURNS TABLE (
    show_id text, total text, key text, slot text,
    before numeric, after numeric, now numeric, restorable boolean
)
LANGUAGE sql STABLE PARALLEL SAFE
-- hashing 12,000 slots takes a second; row by row, as it looks cheaper here, three minutes
SET enable_nestloop = off
SET enable_mergejoin = off
SET jit = off
AS $$
    WITH written AS (
        SELECT l.*
        FROM retally.ledger AS l
        WHERE l.run = p_run
    ),

    looked_at AS (
        SELECT
            array_agg(DISTINCT w.scope) AS scopes,
            array_agg(DISTINCT w.total) AS totals
        FROM written AS w
    ),

    held AS (
        SELECT
            s.show_id,
            s.total,
            s.key,
            v.slot,
            v.amount
        FROM looked_at AS o
        CROSS JOIN LATERAL retally.stored_in(o.scopes, o.totals, TRUE) AS s
        CROSS JOIN
            LATERAL (
                VALUES
                ('cores', s.cores),
                ('gpus', s.gpus),
                ('local_cores', s.local_cores),
                ('local_gpus', s.local_gpus)
            ) AS v (slot, amount)
    )

    SELECT
        w.scope,
        w.total,
        w.key,
        w.slot,
        w.before,
        w.after,
        h.amount,
        bool_and(coalesce(h.amount = w.after, FALSE)) OVER (PARTITION BY w.scope, w.total, w.key)
        -- of a key with several rows, the ledger knows one
        AND count(*) OVER (PARTITION BY w.scope, w.total, w.key, w.slot) = 1
    FROM written AS w
    LEFT JOIN held AS h
        ON
            w.scope = h.show_id
            AND w.total = h.total
            AND w.key = h.key
            AND w.slot = h.slot
    ORDER BY w.scope, array_position(retally.totals(), w.total), w.key, w.slot
$$;
COMMENT ON FUNCTION retally.restorable(bigint) IS
'What undo() would meet in the rows that a run wrote.';
