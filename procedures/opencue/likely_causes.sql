-- What had probably made these values wrong, where their pattern tells, in the order of p_changes;
-- null where it does not. p_changes: what one repair of one show wrote.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.likely_causes(p_changes retally.change[])
RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    WITH patterns AS (
        SELECT
            c.total,
            c.before,
            c.after,
            c.place,
            sum(c.after - c.before) OVER by_slot AS net,
            count(*) OVER by_slot AS changed,
            bool_and(c.after < c.before) OVER by_slot AS all_fell,
            bool_and(c.after > c.before) OVER by_slot AS all_rose
        FROM unnest(p_changes) WITH ORDINALITY AS c (total, key, slot, before, after, place)
        WINDOW by_slot AS (PARTITION BY c.total, c.slot)
    )

    SELECT
        array_agg(
            CASE
                WHEN p.before < 0 THEN 'more was released than booked'
                WHEN p.net = 0 AND p.total = 'subscription' THEN 'a host changed its allocation'
                WHEN p.net = 0 AND p.total = 'folder' THEN 'a job changed its folder'
                WHEN p.net = 0 AND p.total = 'point' THEN 'a job changed its department'
                -- where some rose and some fell, what is at 0 now may have moved
                WHEN p.after = 0 AND p.all_fell THEN 'a release was not counted: no proc is left'
                WHEN p.before = 0 AND p.all_rose THEN 'a booking was not counted'
            END
            ORDER BY p.place
        )
    FROM patterns AS p
$$;
COMMENT ON FUNCTION retally.likely_causes(retally.change[]) IS
'What had probably made these values wrong.';
