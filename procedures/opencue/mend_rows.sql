-- Lock, sum again, write: for the rows p_keys of one total of a show.
-- p_wait: wait for all busy rows; otherwise for those busy in setting.wait_after_passes passes
-- running. p_deadline: when waiting has to end, see lock_budget(). busy: the keys left.
-- Locks: these rows, in key order; a row waited for comes after them, which is safe because the
-- wait gives way before anybody looks for a deadlock. Writes: the table of the total.
CREATE OR REPLACE FUNCTION retally.mend_rows(
    p_show_id text, p_total text, p_keys text[], p_wait boolean, p_deadline timestamptz,
    OUT rows_changed bigint, OUT busy text[], OUT problems text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_held text[];
    v_waited text[];
    v_answer text;
    v_key text;
BEGIN
    rows_changed := 0;
    busy := '{}';
    problems := '{}';
    IF cardinality(p_keys) = 0 THEN
        RETURN;
    END IF;

    SELECT
        coalesce(array_agg(l.key) FILTER (WHERE l.held), '{}'),
        coalesce(array_agg(l.key ORDER BY l.key) FILTER (WHERE NOT l.held), '{}')
    INTO v_held, busy
    FROM retally.lock_rows(p_show_id, p_total, p_keys, FALSE) AS l;

    SELECT coalesce(array_agg(b.key ORDER BY b.key), '{}')
    INTO v_waited
    FROM unnest(busy) AS b (key)
    CROSS JOIN retally.setting AS s
    WHERE p_wait OR EXISTS (
        SELECT
        FROM retally.deferred AS d
        WHERE
            d.scope = p_show_id
            AND d.total = p_total
            AND d.key = b.key
            AND d.passes >= s.wait_after_passes
    );
    FOREACH v_key IN ARRAY v_waited LOOP
        v_answer := retally.hold_row(p_show_id, p_total, v_key, p_deadline);
        IF v_answer <> 'busy' THEN
            busy := array_remove(busy, v_key);
        END IF;
        IF v_answer = 'held' THEN
            v_held := v_held || v_key;
        END IF;
    END LOOP;

    IF cardinality(v_held) > 0 THEN
        SELECT
            count(*) FILTER (WHERE w.fits),
            coalesce(array_agg(retally.problem('misfit', p_total, w.key, NULL, NULL))
            FILTER (WHERE NOT w.fits), '{}')
        INTO rows_changed, problems
        FROM retally.write_rows(p_show_id, p_total, v_held) AS w;
    END IF;
END
$$;
COMMENT ON FUNCTION retally.mend_rows(text, text, text[], boolean, timestamptz) IS
'Lock, sum again, write: for rows of one total of a show.';
