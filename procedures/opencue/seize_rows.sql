-- Step 2 of a pass: locks the rows p_keys of one total of a show, as many as can be had.
-- p_wait: as in patient_keys(). p_deadline: when waiting ends. p_holding: this transaction may
-- hold rows already; then nothing is queued for, busy rows are only looked at again and again.
-- held and busy: the keys had and not had; keys whose rows are gone are in neither.
-- Locks: the rows, FOR NO KEY UPDATE, free ones in key order. Writes nothing.
CREATE OR REPLACE FUNCTION retally.seize_rows(
    p_show_id text, p_total text, p_keys text[], p_wait boolean, p_deadline timestamptz,
    p_holding boolean,
    OUT held text[], OUT busy text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_patient text[];
    v_key text;
BEGIN
    IF NOT p_holding THEN
        v_patient := retally.patient_keys(p_show_id, p_total, p_keys, p_wait);
    END IF;
    SELECT f.held, f.busy
    INTO held, busy
    FROM retally.lock_free_rows(p_show_id, p_total, p_keys, v_patient) AS f;

    IF busy && v_patient THEN
        -- all was let go of
        FOREACH v_key IN ARRAY retally.patient_keys(p_show_id, p_total, busy, p_wait) LOOP
            -- the first one that is had ends this: from then on there is a lock in hand
            EXIT WHEN retally.wait_for_row(
                p_show_id, p_total, v_key, p_deadline - clock_timestamp()
            );
        END LOOP;
        SELECT f.held, f.busy
        INTO held, busy
        FROM retally.lock_free_rows(p_show_id, p_total, p_keys, NULL) AS f;
    END IF;

    -- who never stands in a queue is never part of a cycle of locks
    WHILE clock_timestamp() < p_deadline
        AND cardinality(retally.patient_keys(p_show_id, p_total, busy, p_wait)) > 0
    LOOP
        PERFORM pg_sleep(0.005);
        SELECT seize_rows.held || f.held, f.busy
        INTO held, busy
        FROM retally.lock_free_rows(p_show_id, p_total, busy, NULL) AS f;
    END LOOP;
END
$$;
COMMENT ON FUNCTION retally.seize_rows(text, text, text[], boolean, timestamptz, boolean) IS
'Step 2 of a pass: locks rows of one total of a show, as many as can be had.';
