-- Writes p_amounts into locked rows of one total of a show: write_subscription(), write_layer() …
-- by the total's name.
-- Parameters, locks, writes and errors as there.
CREATE OR REPLACE FUNCTION retally.write_rows(
    p_show_id text, p_total text, p_amounts retally.amount[]
)
RETURNS TABLE (key text, fits boolean)
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    CASE p_total
        WHEN 'subscription' THEN
            RETURN QUERY SELECT * FROM retally.write_subscription(p_show_id, p_amounts);
        WHEN 'layer' THEN
            RETURN QUERY SELECT * FROM retally.write_layer(p_show_id, p_amounts);
        WHEN 'job' THEN
            RETURN QUERY SELECT * FROM retally.write_job(p_show_id, p_amounts);
        WHEN 'folder' THEN
            RETURN QUERY SELECT * FROM retally.write_folder(p_show_id, p_amounts);
        WHEN 'point' THEN
            RETURN QUERY SELECT * FROM retally.write_point(p_show_id, p_amounts);
    END CASE;
END
$$;
COMMENT ON FUNCTION retally.write_rows(text, text, retally.amount[]) IS
'Writes amounts into locked rows of one total of a show, by the total''s name.';
