-- Sets retally's own flag of a show and rebuilds its totals in the same transaction, so that they
-- are exact at the instant of the flip; problems names those that cannot be. Under an override
-- (see set_override()) the wish is kept, and in force once the override is gone.
-- p_show: name or id. p_managed: true, bookings through retally write no total of this show.
-- Locks, writes and result as of flip(). Raises RT001 to RT006; 22004 for null.
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
BEGIN
    IF p_managed IS NULL THEN
        RAISE EXCEPTION 'is show "%" to be managed or not?', p_show
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Say true or false.';
    END IF;
    -- the flag of a show that is gone can still be taken down, by its id
    DELETE FROM retally.scope_flag AS f
    WHERE
        f.scope = p_show
        AND NOT p_managed
        AND NOT EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = p_show);
    IF FOUND THEN
        RETURN;
    END IF;

    SELECT f.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.flip(retally.show_id(p_show), p_managed) AS f;
END
$$;
COMMENT ON PROCEDURE retally.set_managed (
    text, boolean, bigint, bigint, bigint, bigint, numeric, numeric, text []
) IS 'Sets retally''s own flag of a show and rebuilds its totals in the same transaction.';
