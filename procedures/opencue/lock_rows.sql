-- Locks rows of one total of a show: lock_subscription(), lock_layer() … by the total's name.
-- Parameters, locks, writes and errors as there.
CREATE OR REPLACE FUNCTION retally.lock_rows(
    p_show_id text, p_total text, p_keys text[], p_wait boolean
)
RETURNS TABLE (key text, held boolean)
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    CASE p_total
        WHEN 'subscription' THEN
            RETURN QUERY SELECT * FROM retally.lock_subscription(p_show_id, p_keys, p_wait);
        WHEN 'layer' THEN
            RETURN QUERY SELECT * FROM retally.lock_layer(p_show_id, p_keys, p_wait);
        WHEN 'job' THEN
            RETURN QUERY SELECT * FROM retally.lock_job(p_show_id, p_keys, p_wait);
        WHEN 'folder' THEN
            RETURN QUERY SELECT * FROM retally.lock_folder(p_show_id, p_keys, p_wait);
        WHEN 'point' THEN
            RETURN QUERY SELECT * FROM retally.lock_point(p_show_id, p_keys, p_wait);
    END CASE;
END
$$;
COMMENT ON FUNCTION retally.lock_rows(text, text, text[], boolean) IS
'Locks rows of one total of a show, by the total''s name.';
