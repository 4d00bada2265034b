-- What the rows p_keys of one total of a show hold; a key without a row is left out.
-- Locks and writes nothing; reads all rows of this total of the show.
CREATE OR REPLACE FUNCTION retally.amounts_in(p_show_id text, p_total text, p_keys text[])
RETURNS SETOF retally.amount
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        s.key,
        s.cores,
        s.gpus,
        s.local_cores,
        s.local_gpus
    FROM retally.stored_in(ARRAY[p_show_id], ARRAY[p_total], TRUE) AS s
    WHERE s.key IN (SELECT k.key FROM unnest(p_keys) AS k (key))
$$;
COMMENT ON FUNCTION retally.amounts_in(text, text, text[]) IS
'What these rows of one total of a show hold.';
