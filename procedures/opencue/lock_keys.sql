-- Locks rows of one total of a show, in key order; answers with the keys locked, once per row.
-- p_wait: wait for busy rows, as lock_timeout allows; otherwise skip them.
-- Locks: the rows, FOR NO KEY UPDATE. Writes nothing.
-- Raises 55P03 when a wait took too long.
CREATE OR REPLACE FUNCTION retally.lock_keys(
    p_show_id text, p_total text, p_keys text[], p_wait boolean
)
RETURNS text[]
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    -- one statement for five tables, whose rows are found in the same way
    v_table text := CASE
        WHEN p_total IN ('layer', 'job', 'folder') THEN p_total || '_resource'
        ELSE p_total
    END;
    v_key text := CASE p_total
        WHEN 'subscription' THEN 'pk_alloc'
        WHEN 'point' THEN 'pk_dept'
        ELSE 'pk_' || p_total
    END;
    v_of_show text := CASE
        WHEN p_total IN ('subscription', 'point') THEN 'r.pk_show::text = $2'
        ELSE 'TRUE'
    END;
    v_locked text[];
BEGIN
    EXECUTE format(
        'SELECT ARRAY(
            SELECT r.%1$I::text
            FROM public.%2$I AS r
            WHERE %3$s AND r.%1$I::text IN (SELECT k.key FROM unnest($1) AS k (key))
            ORDER BY r.%1$I
            FOR NO KEY UPDATE OF r %4$s
        )',
        v_key, v_table, v_of_show, CASE WHEN p_wait THEN '' ELSE 'SKIP LOCKED' END
    )
    INTO v_locked
    USING p_keys, p_show_id;
    RETURN v_locked;
END
$$;
COMMENT ON FUNCTION retally.lock_keys(text, text, text[], boolean) IS
'Locks rows of one total of a show, in key order; answers with the keys locked.';
