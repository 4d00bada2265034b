-- Sets retally's own flag of a show and rebuilds its totals in the same transaction, so that they
-- are exact at the instant of the flip; problems names those that cannot be.
-- p_show: name or id. p_managed: true, bookings through retally write no total of this show.
-- Locks and writes as mend(), and retally.managed_scope. Result as of recompute_show().
-- Raises RT001 to RT005; 22004 for null; RT006 when a row stayed busy, then nothing has changed.
CREATE OR REPLACE PROCEDURE retally.set_managed(
    p_show text,
    p_managed boolean,
    INOUT rows_adrift bigint DEFAULT NULL,
    INOUT rows_changed bigint DEFAULT NULL,
    INOUT rows_deferred bigint DEFAULT NULL,
    INOUT rows_failed bigint DEFAULT NULL,
    INOUT core_units numeric DEFAULT NULL,
    INOUT gpus numeric DEFAULT NULL,
    INOUT problems text[] DEFAULT NULL
)
LANGUAGE plpgsql
AS $$
DECLARE
    v_show_id text;
BEGIN
    IF p_managed IS NULL THEN
        RAISE EXCEPTION 'is show "%" to be managed or not?', p_show
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Say true or false.';
    END IF;
    -- the flag of a show that is gone can still be taken down, by its id
    DELETE FROM retally.managed_scope AS m
    WHERE
        m.scope = p_show
        AND NOT p_managed
        AND NOT EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = p_show);
    IF FOUND THEN
        RETURN;
    END IF;

    v_show_id := retally.show_id(p_show);
    SELECT r.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.recompute_in_one(v_show_id, retally.totals(), TRUE) AS r;
    IF rows_deferred > 0 THEN
        RAISE EXCEPTION 'show "%" stays as it is: rows of its totals locked by others: %',
            (SELECT s.str_name FROM public.show AS s WHERE s.pk_show::text = v_show_id),
            rows_deferred
            USING ERRCODE = 'RT006', HINT = 'Try again in a moment.';
    END IF;
    -- after the recompute: a transaction that has written waits for no row
    IF p_managed THEN
        INSERT INTO retally.managed_scope (scope) VALUES (v_show_id)
        ON CONFLICT (scope) DO NOTHING;
    ELSE
        DELETE FROM retally.managed_scope AS m
        WHERE m.scope = v_show_id;
    END IF;
END
$$;
COMMENT ON PROCEDURE retally.set_managed (
    text, boolean, bigint, bigint, bigint, bigint, numeric, numeric, text []
) IS 'Sets retally''s own flag of a show and rebuilds its totals in the same transaction.';
