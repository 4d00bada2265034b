-- Waits for a show's bookings in flight, sets its flag and rebuilds its totals, so that they are
-- exact at that instant and no booking straddles it.
-- p_show_id: pk_show. p_asked: the show's own flag; the override decides what is in force.
-- Locks: the show's writer lock and flag, setting, as mend(). Writes as mend(), retally.scope_flag.
-- Result as of recompute_in_one(). Raises RT003, RT005; RT006 when a row stayed busy.
CREATE OR REPLACE FUNCTION retally.flip(
    p_show_id text, p_asked boolean,
    OUT rows_adrift bigint, OUT rows_changed bigint, OUT rows_deferred bigint,
    OUT rows_failed bigint, OUT core_units numeric, OUT gpus numeric, OUT problems text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_override text;
BEGIN
    -- first the ticks, which bookings never wait for: the flag is held for the recompute only
    PERFORM retally.hold_scope(p_show_id, TRUE);
    PERFORM retally.hold_flag(p_show_id);
    -- shared with other flips: an override is changed before them or after them
    SELECT s.override
    INTO v_override
    FROM retally.setting AS s
    FOR SHARE;
    -- before the recompute: who has written stands in no queue from then on. A booking that waits
    -- for this flip may hold a row that others wait for, and must not become a deadlock's victim.
    INSERT INTO retally.scope_flag AS f (scope, asked, managed)
    VALUES (p_show_id, p_asked, retally.overridden(p_asked, v_override))
    ON CONFLICT (scope) DO UPDATE
        SET asked = excluded.asked, managed = excluded.managed,
            set_at = clock_timestamp(), set_by = current_user
        WHERE (f.asked, f.managed) <> (excluded.asked, excluded.managed);
    SELECT r.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.recompute_in_one(p_show_id, retally.totals(), TRUE) AS r;
    IF rows_deferred > 0 THEN
        RAISE EXCEPTION 'show "%" stays as it is: rows of its totals locked by others: %',
            (SELECT s.str_name FROM public.show AS s WHERE s.pk_show::text = p_show_id),
            rows_deferred
            USING ERRCODE = 'RT006', HINT = 'Try again in a moment.';
    END IF;
END
$$;
COMMENT ON FUNCTION retally.flip(text, boolean) IS
'Waits for a show''s bookings in flight, sets its flag and rebuilds its totals.';
