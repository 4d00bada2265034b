-- Sets retally's own flag of a show and rebuilds its totals in the same transaction, so that they
-- are exact at the instant of the flip.
-- p_show: name or id. p_managed: true, bookings through retally write no total of this show.
-- Locks and writes as recompute(), and retally.managed_scope.
-- Raises RT001 to RT005, RT006 when a row stayed busy: then nothing has changed.
CREATE OR REPLACE PROCEDURE retally.set_managed(p_show text, p_managed boolean)
LANGUAGE plpgsql
AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
    v_busy bigint;
BEGIN
    PERFORM retally.hold_scope(v_show_id, TRUE);
    IF p_managed THEN
        INSERT INTO retally.managed_scope (scope) VALUES (v_show_id)
        ON CONFLICT (scope) DO NOTHING;
    ELSE
        DELETE FROM retally.managed_scope AS m
        WHERE m.scope = v_show_id;
    END IF;
    SELECT r.rows_deferred
    INTO v_busy
    FROM retally.recompute_in_one(v_show_id, retally.totals(), TRUE) AS r;
    IF v_busy > 0 THEN
        RAISE EXCEPTION 'show "%" stays as it is: % of its totals are locked by others',
            p_show, v_busy
            USING ERRCODE = 'RT006', HINT = 'Try again in a moment.';
    END IF;
END
$$;
COMMENT ON PROCEDURE retally.set_managed (text, boolean) IS
'Sets retally''s own flag of a show and rebuilds its totals in the same transaction.';
