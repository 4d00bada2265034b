-- mend() by hand, as passes; shows in which nothing is adrift are kept as passes in one go.
-- Parameters, locks, writes and errors as of mend().
CREATE OR REPLACE FUNCTION retally.mend_by_hand(
    p_findings retally.finding[], p_wait boolean, p_goes_on boolean DEFAULT FALSE
)
RETURNS SETOF retally.pass
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_adrift text[] := ARRAY(
        SELECT DISTINCT f.show_id FROM unnest(p_findings) AS f WHERE f.rows_adrift > 0
    );
    v_quiet retally.finding[] := ARRAY(
        SELECT f FROM unnest(p_findings) AS f WHERE f.show_id <> ALL (v_adrift)
    );
BEGIN
    PERFORM retally.keep_quiet(v_quiet);
    RETURN QUERY
    SELECT
        m.show_id,
        'by hand',
        m.total,
        'rebuilt',
        current_user::text,
        clock_timestamp(),
        m.seconds,
        m.rows_adrift,
        m.rows_changed,
        m.rows_deferred,
        m.rows_failed,
        m.core_units,
        m.gpus,
        m.problems,
        NULL::bigint,
        NULL::timestamptz,
        NULL::timestamptz
    FROM
        retally.mend(
            ARRAY(SELECT f FROM unnest(p_findings) AS f WHERE f.show_id = ANY (v_adrift)), p_wait,
            p_goes_on => p_goes_on
        ) AS m
    UNION ALL
    SELECT
        q.show_id,
        'by hand',
        q.total,
        'rebuilt',
        current_user::text,
        clock_timestamp(),
        0,
        0,
        0,
        0,
        q.rows_failed,
        0,
        0,
        q.problems,
        NULL,
        NULL,
        NULL
    FROM unnest(v_quiet) AS q;
END
$$;
COMMENT ON FUNCTION retally.mend_by_hand(retally.finding[], boolean, boolean) IS
'mend() by hand, as passes.';
