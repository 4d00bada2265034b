-- What had probably made these values wrong, where their pattern tells: one text per total, key and
-- slot, null where it does not. p_changes: what one repair of one scope wrote.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.likely_causes(p_changes retally.change[])
RETURNS TABLE (total text, key text, slot text, before numeric, after numeric, cause text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    WITH patterns AS (
        SELECT
            c.*,
            sum(c.after - c.before) OVER by_slot AS net,
            count(*) OVER by_slot AS changed
        FROM unnest(p_changes) AS c
        WINDOW by_slot AS (PARTITION BY c.total, c.slot)
    )

    SELECT
        p.total,
        p.key,
        p.slot,
        p.before,
        p.after,
        CASE
            WHEN p.before < 0 THEN 'more was released than booked'
            WHEN p.net = 0 AND p.changed > 1 AND p.total = 'subscription'
                THEN 'a host changed its allocation'
            WHEN p.net = 0 AND p.changed > 1 AND p.total = 'folder' THEN 'a job changed its folder'
            WHEN p.net = 0 AND p.changed > 1 AND p.total = 'point' THEN 'a job changed its department'
            WHEN p.after = 0 THEN 'a release was not counted: no proc is left'
            WHEN p.before = 0 THEN 'a booking was not counted'
        END
    FROM patterns AS p
$$;
COMMENT ON FUNCTION retally.likely_causes(retally.change[]) IS
'What had probably made these values wrong.';
