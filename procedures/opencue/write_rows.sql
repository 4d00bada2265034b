-- Writes into the rows of one total: write_subscription(), write_layer() … by the total's name.
-- Parameters, answer, locks and writes as there.
CREATE OR REPLACE FUNCTION retally.write_rows(p_total text, p_rows retally.comparison[])
RETURNS TABLE (show_id text, key text, fits boolean)
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    CASE p_total
        WHEN 'subscription' THEN
            RETURN QUERY SELECT * FROM retally.write_subscription(p_rows);
        WHEN 'layer' THEN
            RETURN QUERY SELECT * FROM retally.write_layer(p_rows);
        WHEN 'job' THEN
            RETURN QUERY SELECT * FROM retally.write_job(p_rows);
        WHEN 'folder' THEN
            RETURN QUERY SELECT * FROM retally.write_folder(p_rows);
        WHEN 'point' THEN
            RETURN QUERY SELECT * FROM retally.write_point(p_rows);
    END CASE;
END
$$;
COMMENT ON FUNCTION retally.write_rows(text, retally.comparison[]) IS
'Writes into the rows of one total, by the total''s name.';
