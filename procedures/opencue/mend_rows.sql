-- Lock, sum again, write: for the rows p_keys of one total of a show.
-- p_wait: wait for all busy rows; otherwise for those busy in setting.wait_after_passes passes
-- running. deadline: when waiting with a lock in hand has to end, see lock_budget(); null while
-- this transaction holds none. busy: the keys left.
-- Locks: these rows, free ones in key order. Writes: the table of the total.
CREATE OR REPLACE FUNCTION retally.mend_rows(
    p_show_id text, p_total text, p_keys text[], p_wait boolean,
    INOUT deadline timestamptz,
    OUT rows_changed bigint, OUT busy text[], OUT problems text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_patient text[] := p_keys;
    v_begun timestamptz := clock_timestamp();
    v_held text[];
    v_answer text;
    v_key text;
BEGIN
    rows_changed := 0;
    busy := '{}';
    problems := '{}';
    IF cardinality(p_keys) = 0 THEN
        RETURN;
    END IF;

    IF NOT p_wait THEN
        v_patient := ARRAY(
            SELECT d.key
            FROM retally.deferred AS d
            CROSS JOIN retally.setting AS s
            WHERE
                d.scope = p_show_id
                AND d.total = p_total
                AND d.passes >= s.wait_after_passes
        );
    END IF;
    SELECT h.held, h.busy
    INTO v_held, busy
    FROM retally.hold_free_rows(
        p_show_id, p_total, p_keys, CASE WHEN deadline IS NULL THEN v_patient END
    ) AS h;
    IF cardinality(v_held) > 0 THEN
        -- whoever waits for one of these rows began to wait after this moment
        deadline := coalesce(deadline, v_begun + retally.lock_budget());
    END IF;

    FOREACH v_key IN ARRAY busy LOOP
        CONTINUE WHEN v_key <> ALL (v_patient);
        v_answer := retally.hold_row(
            p_show_id, p_total, v_key,
            -- with empty hands nobody waits for us; with a lock in hand all the waits that a row
            -- can cost have to fit
            CASE
                WHEN deadline IS NULL THEN retally.lock_budget()
                ELSE (deadline - clock_timestamp()) / 4
            END
        );
        IF v_answer = 'held' THEN
            v_held := v_held || v_key;
            deadline := coalesce(deadline, clock_timestamp() + retally.lock_budget());
        END IF;
        IF v_answer <> 'busy' THEN
            busy := array_remove(busy, v_key);
        END IF;
    END LOOP;

    -- all again: those that were let go of, and those held already, which costs nothing
    IF cardinality(v_held) < cardinality(p_keys) - cardinality(busy) THEN
        SELECT h.held, h.busy
        INTO v_held, busy
        FROM retally.hold_free_rows(p_show_id, p_total, p_keys, NULL) AS h;
        deadline := coalesce(deadline, clock_timestamp() + retally.lock_budget());
    END IF;

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
