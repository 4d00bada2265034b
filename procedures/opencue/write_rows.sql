-- Writes locked rows of one total of a show: write_subscription(), write_layer() … by its name.
-- Parameters, locks, writes and errors as there.
CREATE OR REPLACE FUNCTION retally.write_rows(
    p_show_id text, p_total text, p_keys text[]
)
RETURNS TABLE (key text, fits boolean)
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    CASE p_total
        WHEN 'subscription' THEN
            RETURN QUERY SELECT * FROM retally.write_subscription(p_show_id, p_keys);
        WHEN 'layer' THEN
            RETURN QUERY SELECT * FROM retally.write_layer(p_show_id, p_keys);
        WHEN 'job' THEN
            RETURN QUERY SELECT * FROM retally.write_job(p_show_id, p_keys);
        WHEN 'folder' THEN
            RETURN QUERY SELECT * FROM retally.write_folder(p_show_id, p_keys);
        WHEN 'point' THEN
            RETURN QUERY SELECT * FROM retally.write_point(p_show_id, p_keys);
    END CASE;
END
$$;
COMMENT ON FUNCTION retally.write_rows(text, text, text[]) IS
'Writes locked rows of one total of a show, by the total''s name.';
