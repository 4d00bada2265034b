-- Locks rows of one total of a show and says of each whether it is held now; rows that are gone
-- are not in the answer.
-- Parameters, locks and errors as of lock_subscription(), lock_layer() … . Writes nothing.
CREATE OR REPLACE FUNCTION retally.lock_rows(
    p_show_id text, p_total text, p_keys text[], p_wait boolean
)
RETURNS TABLE (key text, held boolean)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_held text[];
BEGIN
    CASE p_total
        WHEN 'subscription' THEN
            v_held := ARRAY(SELECT retally.lock_subscription(p_show_id, p_keys, p_wait));
        WHEN 'layer' THEN
            v_held := ARRAY(SELECT retally.lock_layer(p_show_id, p_keys, p_wait));
        WHEN 'job' THEN
            v_held := ARRAY(SELECT retally.lock_job(p_show_id, p_keys, p_wait));
        WHEN 'folder' THEN
            v_held := ARRAY(SELECT retally.lock_folder(p_show_id, p_keys, p_wait));
        WHEN 'point' THEN
            v_held := ARRAY(SELECT retally.lock_point(p_show_id, p_keys, p_wait));
    END CASE;
    RETURN QUERY
    SELECT
        h.key,
        TRUE
    FROM unnest(v_held) AS h (key);
    -- most often all are free, and the totals need not be read again
    IF cardinality(v_held) < cardinality(p_keys) THEN
        RETURN QUERY
        SELECT
            s.key,
            FALSE
        FROM retally.stored_in(ARRAY[p_show_id], ARRAY[p_total]) AS s
        WHERE
            s.key IN (SELECT k.key FROM unnest(p_keys) AS k (key))
            AND s.key NOT IN (SELECT h.key FROM unnest(v_held) AS h (key));
    END IF;
END
$$;
COMMENT ON FUNCTION retally.lock_rows(text, text, text[], boolean) IS
'Locks rows of one total of a show and says of each whether it is held now.';
