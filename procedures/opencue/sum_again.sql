-- The second sum: what the procs say now of rows that this transaction has locked, 0 where none.
-- p_seizures: the rows of each show and total, held. Units as of booked_in().
-- Has to stand in a statement of its own after the locks: only its snapshot holds every booking
-- that committed before they were granted.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.sum_again(p_seizures retally.seizure[])
RETURNS TABLE (show_id text, total text, amount retally.amount)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_show_ids text[] := ARRAY(
        SELECT DISTINCT s.scope FROM unnest(p_seizures) AS s WHERE cardinality(s.held) > 0
    );
    v_layers text[] := ARRAY(
        SELECT h.key
        FROM unnest(p_seizures) AS s
        CROSS JOIN LATERAL unnest(s.held) AS h (key)
        WHERE s.total = 'layer'
    );
    v_totals text[] := ARRAY(
        SELECT DISTINCT s.total FROM unnest(p_seizures) AS s WHERE cardinality(s.held) > 0
    );
    v_read text[] := retally.read_for(v_show_ids);
BEGIN
    -- The other totals are a good part of their shows, whose procs are read once for all of these.
    -- Layers are found by their keys, unless they are many.
    IF v_read IS NOT NULL AND cardinality(v_layers) <= 2000 THEN
        v_totals := array_remove(v_totals, 'layer');
    ELSE
        v_layers := '{}';
    END IF;

    RETURN QUERY
    WITH held AS (
        SELECT
            s.scope,
            s.total,
            h.key,
            CASE WHEN s.total IN ('subscription', 'point') THEN s.scope ELSE '' END AS of_show
        FROM unnest(p_seizures) AS s
        CROSS JOIN LATERAL unnest(s.held) AS h (key)
    )

    SELECT
        h.scope,
        h.total,
        ROW(
            h.key, coalesce(b.cores, 0), coalesce(b.gpus, 0), coalesce(b.local_cores, 0),
            coalesce(b.local_gpus, 0)
        )::retally.amount
    FROM held AS h
    LEFT JOIN (
        SELECT w.*
        FROM retally.booked_in(v_read, v_totals, NULL, 'owed') AS w
        UNION ALL
        SELECT l.*
        FROM retally.booked_in(v_show_ids, ARRAY['layer'], v_layers, 'owed') AS l
    ) AS b ON h.key = b.key AND h.total = b.total AND h.of_show = coalesce(b.show_id, '');
END
$$;
COMMENT ON FUNCTION retally.sum_again(retally.seizure[]) IS
'The second sum: what the procs say now of rows that this transaction has locked.';
