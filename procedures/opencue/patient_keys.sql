-- Those of the busy rows p_busy of a total that are worth waiting for, those first that were
-- busy in the fewest passes: one that is stuck must not use up the patience every time.
-- p_wait: all of them; otherwise those busy in setting.wait_after_passes passes running.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.patient_keys(
    p_show_id text, p_total text, p_busy text[], p_wait boolean
)
RETURNS text[]
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(array_agg(b.key ORDER BY d.passes ASC NULLS FIRST, b.key ASC), '{}')
    FROM unnest(p_busy) AS b (key)
    CROSS JOIN retally.setting AS s
    LEFT JOIN retally.deferred AS d
        ON b.key = d.key AND d.scope = p_show_id AND d.total = p_total
    WHERE p_wait OR d.passes >= s.wait_after_passes
$$;
COMMENT ON FUNCTION retally.patient_keys(text, text, text[], boolean) IS
'Those of the busy rows of a total that are worth waiting for.';
