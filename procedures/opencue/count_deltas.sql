-- How many rows of one total p_deltas are to be added to. p_lock: just those that are free, locked.
-- Locks: these rows, FOR NO KEY UPDATE, or nothing. Writes nothing.
CREATE OR REPLACE FUNCTION retally.count_deltas(
    p_deltas retally.delta[], p_total text, p_lock boolean
)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_number bigint;
BEGIN
    -- one statement for five tables, as in lock_keys()
    EXECUTE format(
        'SELECT count(*)
        FROM (
            SELECT
            FROM unnest($1) AS d
            INNER JOIN public.%I AS r ON r.%I::text = d.key AND %s
            WHERE d.total = $2
            %s
        ) AS found',
        CASE WHEN p_total IN ('layer', 'job', 'folder') THEN p_total || '_resource' ELSE p_total END,
        CASE p_total
            WHEN 'subscription' THEN 'pk_alloc'
            WHEN 'point' THEN 'pk_dept'
            ELSE 'pk_' || p_total
        END,
        CASE
            WHEN p_total IN ('subscription', 'point') THEN 'r.pk_show::text = d.scope'
            ELSE 'TRUE'
        END,
        CASE WHEN p_lock THEN 'FOR NO KEY UPDATE OF r SKIP LOCKED' ELSE '' END
    )
    INTO v_number
    USING p_deltas, p_total;
    RETURN v_number;
END
$$;
COMMENT ON FUNCTION retally.count_deltas(retally.delta[], text, boolean) IS
'How many rows of one total deltas are to be added to, or can be locked.';
