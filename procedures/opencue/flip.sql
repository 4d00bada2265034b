-- Waits for a show's bookings in flight, sets its flag and rebuilds its totals, so that they are
-- exact at that instant and no booking straddles it. p_show_id: pk_show. p_asked: the show's own
-- flag, null for as it is; the override decides what is in force. All null when nothing changes.
-- Its lease ends. Locks: the show's writer lock and flag, as mend().
-- Writes as mend(), retally.scope_flag, lease, journal.
-- Result as of recompute_in_one(). Raises RT003, RT005; RT006 when a row stayed busy.
CREATE OR REPLACE FUNCTION retally.flip(
    p_show_id text, p_asked boolean,
    OUT rows_adrift bigint, OUT rows_changed bigint, OUT rows_deferred bigint,
    OUT rows_failed bigint, OUT core_units numeric, OUT gpus numeric, OUT problems text[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_name text := (
        SELECT s.str_name::text FROM public.show AS s
        WHERE s.pk_show::text = p_show_id
    );
    v_flag record;
BEGIN
    -- First the lock that ticks and flips take, and bookings never wait for. Whoever flips the show
    -- has it until his commit, so from here on its flag, and an override that concerns it, stay.
    PERFORM retally.hold_scope(p_show_id, TRUE);
    SELECT
        coalesce(p_asked, f.asked, FALSE) AS asked,
        retally.overridden(coalesce(p_asked, f.asked, FALSE), s.override) AS managed,
        f.managed AS was_managed
    INTO v_flag
    FROM retally.setting AS s
    LEFT JOIN retally.scope_flag AS f ON f.scope = p_show_id;
    IF p_asked IS NULL AND v_flag.managed = v_flag.was_managed THEN
        RETURN;
    END IF;

    PERFORM retally.hold_flag(p_show_id, v_name);
    -- before the recompute: who has written stands in no queue from then on. A booking that waits
    -- for this flip may hold a row that others wait for, and must not become a deadlock's victim.
    PERFORM retally.set_flag(p_show_id, v_flag.asked, v_flag.managed);
    -- whoever has it does not count what others book until the show is managed again
    PERFORM retally.drop_lease(p_show_id);
    IF NOT v_flag.managed THEN
        -- set_flag() has ended its journal, and the recompute counts the procs themselves
        DELETE FROM retally.journal AS j
        WHERE j.scope = p_show_id;
    END IF;
    SELECT r.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.recompute_in_one(p_show_id, retally.totals(), TRUE) AS r;
    IF rows_deferred > 0 THEN
        RAISE EXCEPTION 'show "%" stays as it is: rows of its totals locked by others: %',
            v_name, rows_deferred
            USING ERRCODE = 'RT006', HINT = 'Try again in a moment.';
    END IF;
END
$$;
COMMENT ON FUNCTION retally.flip(text, boolean) IS
'Waits for a show''s bookings in flight, sets its flag and rebuilds its totals.';
