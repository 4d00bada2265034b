-- Locks the point totals p_keys of a show in key order and answers which of them are held now;
-- rows that are gone are not in the answer.
-- p_wait: wait for busy rows, as lock_timeout allows; otherwise skip them.
-- Locks: FOR NO KEY UPDATE on public.point. Writes nothing.
-- Raises 55P03 when the wait took too long.
CREATE OR REPLACE FUNCTION retally.lock_point(p_show_id text, p_keys text[], p_wait boolean)
RETURNS TABLE (key text, held boolean)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_held text[];
BEGIN
    IF p_wait THEN
        RETURN QUERY
        SELECT
            r.pk_dept::text,
            TRUE
        FROM public.point AS r
        WHERE
            r.pk_show::text = p_show_id
            AND r.pk_dept::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_dept
        FOR NO KEY UPDATE OF r;
        RETURN;
    END IF;

    v_held := ARRAY(
        SELECT r.pk_dept::text
        FROM public.point AS r
        WHERE
            r.pk_show::text = p_show_id
            AND r.pk_dept::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_dept
        FOR NO KEY UPDATE OF r SKIP LOCKED
    );
    RETURN QUERY
    SELECT
        h.key,
        TRUE
    FROM unnest(v_held) AS h (key);
    -- most often all are free, and the table need not be read again
    IF cardinality(v_held) < cardinality(p_keys) THEN
        RETURN QUERY
        SELECT
            r.pk_dept::text,
            FALSE
        FROM public.point AS r
        WHERE
            r.pk_show::text = p_show_id
            AND r.pk_dept::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
            AND r.pk_dept::text NOT IN (SELECT h.key FROM unnest(v_held) AS h (key));
    END IF;
END
$$;
COMMENT ON FUNCTION retally.lock_point(text, text[], boolean) IS
'Locks point totals of a show in key order and says which are held.';
