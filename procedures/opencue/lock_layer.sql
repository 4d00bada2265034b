-- Locks the layer totals p_keys of a show in key order; answers with those that it holds.
-- p_wait: wait for busy rows, as lock_timeout allows; otherwise skip them.
-- Locks: FOR NO KEY UPDATE on public.layer_resource. Writes nothing.
-- Raises 55P03 when a wait took too long.
CREATE OR REPLACE FUNCTION retally.lock_layer(p_show_id text, p_keys text[], p_wait boolean)
RETURNS SETOF text
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    IF p_wait THEN
        RETURN QUERY
        SELECT r.pk_layer::text
        FROM public.layer_resource AS r
        WHERE r.pk_layer::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_layer
        FOR NO KEY UPDATE OF r;
    ELSE
        RETURN QUERY
        SELECT r.pk_layer::text
        FROM public.layer_resource AS r
        WHERE r.pk_layer::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_layer
        FOR NO KEY UPDATE OF r SKIP LOCKED;
    END IF;
END
$$;
COMMENT ON FUNCTION retally.lock_layer(text, text[], boolean) IS
'Locks layer totals of a show in key order and answers with the keys it holds.';
