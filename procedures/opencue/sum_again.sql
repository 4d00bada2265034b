-- The second sum: what the procs say now of rows that this transaction has locked, 0 where none.
-- p_show_id: pk_show. p_total: one total. p_keys: its locked rows. Units as of booked_in().
-- Has to stand in a statement of its own after the lock: only its snapshot holds every booking
-- that committed before the lock was granted.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.sum_again(p_show_id text, p_total text, p_keys text[])
RETURNS SETOF retally.amount
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        k.key,
        coalesce(b.cores, 0),
        coalesce(b.gpus, 0),
        coalesce(b.local_cores, 0),
        coalesce(b.local_gpus, 0)
    FROM unnest(p_keys) AS k (key)
    LEFT JOIN retally.booked_in(ARRAY[p_show_id], ARRAY[p_total], p_keys) AS b ON k.key = b.key
$$;
COMMENT ON FUNCTION retally.sum_again(text, text, text[]) IS
'The second sum: what the procs say now of rows that this transaction has locked.';
