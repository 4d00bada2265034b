-- Journals a show, or does so no more. On: from the commit on, each proc that is booked, released
-- or changed leaves an entry, and ticks fold these into the totals; what the totals lack at that
-- moment is found by the next recompute of the show. Off: the next tick rebuilds the totals.
-- p_show: name or id; it has to be managed, since only then nobody else adds to its totals.
-- Locks: the show's writer lock; on, as set_journal_triggers(); off for the last show, as
-- end_journal().
-- Writes: retally.scope_flag, retally.journal, the triggers. Raises RT001 to RT003, RT005, RT018,
-- 55P03; 42501 unless proc's owner, or a role with his rights, calls.
CREATE OR REPLACE PROCEDURE retally.set_journal(p_show text, p_on boolean)
LANGUAGE plpgsql
AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
    v_before text;
BEGIN
    IF p_on IS NULL THEN
        RAISE EXCEPTION 'is show "%" to be journaled or not?', p_show
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Say true or false.';
    END IF;
    -- what is looked at below stays so
    PERFORM retally.hold_journal();
    PERFORM retally.hold_scope(v_show_id, TRUE);
    IF p_on AND EXISTS (
        SELECT FROM retally.scope_flag AS f WHERE f.scope = v_show_id AND f.journaled
    ) THEN
        RETURN;
    END IF;
    IF p_on AND NOT retally.is_managed(v_show_id) THEN
        RAISE EXCEPTION 'show "%" is not managed: its bookings keep the totals themselves', p_show
            USING ERRCODE = 'RT018',
                HINT = format('`retally managed --show %s on` first.', p_show);
    END IF;
    DELETE FROM retally.journal AS j
    WHERE j.scope = v_show_id;
    IF p_on THEN
        -- a show that is managed by the override alone has no row yet
        v_before := retally.set_lock_timeout(retally.lock_budget());
        INSERT INTO retally.scope_flag AS f (scope, asked, managed, journaled)
        VALUES (v_show_id, FALSE, TRUE, TRUE)
        ON CONFLICT (scope) DO UPDATE SET journaled = TRUE;
        PERFORM set_config('lock_timeout', v_before, TRUE);
        -- last of all, since who books waits from here on; of those who began before, in READ
        -- COMMITTED, nobody is about to commit procs without an entry
        PERFORM retally.set_journal_triggers(TRUE);
        RETURN;
    END IF;
    UPDATE retally.scope_flag AS f
    SET journaled = FALSE
    WHERE f.scope = v_show_id AND f.journaled;
    -- the flag of a show that is gone keeps nothing
    IF NOT EXISTS (SELECT FROM retally.shows() AS s WHERE s.journaled) THEN
        CALL retally.end_journal();
    END IF;
END
$$;
COMMENT ON PROCEDURE retally.set_journal (text, boolean) IS
'Journals a show, or does so no more.';
