-- Locks the rows of totals that p_deltas are to be added to, without waiting; whether all were had.
-- Rows that are missing do not count.
-- Locks: the rows, FOR NO KEY UPDATE. Writes nothing.
CREATE OR REPLACE FUNCTION retally.hold_deltas(p_deltas retally.delta[])
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_total text;
    v_all boolean;
BEGIN
    FOREACH v_total IN ARRAY retally.totals() LOOP
        -- one statement for five tables, as in lock_keys()
        EXECUTE format(
            'WITH there AS MATERIALIZED (
                SELECT r.ctid
                FROM unnest($1) AS d
                INNER JOIN public.%1$I AS r ON r.%2$I::text = d.key AND %3$s
                WHERE d.total = $2
            ),

            held AS MATERIALIZED (
                SELECT r.ctid
                FROM unnest($1) AS d
                INNER JOIN public.%1$I AS r ON r.%2$I::text = d.key AND %3$s
                WHERE d.total = $2
                FOR NO KEY UPDATE OF r SKIP LOCKED
            )

            SELECT (SELECT count(*) FROM held) = (SELECT count(*) FROM there)',
            CASE
                WHEN v_total IN ('layer', 'job', 'folder') THEN v_total || '_resource'
                ELSE v_total
            END,
            CASE v_total
                WHEN 'subscription' THEN 'pk_alloc'
                WHEN 'point' THEN 'pk_dept'
                ELSE 'pk_' || v_total
            END,
            CASE
                WHEN v_total IN ('subscription', 'point') THEN 'r.pk_show::text = d.scope'
                ELSE 'TRUE'
            END
        )
        INTO v_all
        USING p_deltas, v_total;
        IF NOT v_all THEN
            RETURN FALSE;
        END IF;
    END LOOP;
    RETURN TRUE;
END
$$;
COMMENT ON FUNCTION retally.hold_deltas(retally.delta[]) IS
'Locks the rows that deltas are to be added to, without waiting; whether all were had.';
