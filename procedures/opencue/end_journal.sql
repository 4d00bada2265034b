-- Journals no show any more, be it of this farm or gone, and takes the triggers away. The next tick
-- rebuilds the totals.
-- Locks: the writer locks of the shows, and as set_journal_triggers().
-- Writes: retally.scope_flag, retally.journal, the triggers. Raises RT003, RT005; 42501 unless
-- proc's owner, or a role with his rights, calls, where there are triggers.
CREATE OR REPLACE PROCEDURE retally.end_journal()
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM retally.hold_journal();
    PERFORM retally.hold_scope(f.scope, TRUE)
    FROM (
        SELECT j.scope
        FROM retally.scope_flag AS j
        WHERE j.journaled
        ORDER BY j.scope
    ) AS f;
    PERFORM retally.set_journal_triggers(FALSE);
    UPDATE retally.scope_flag AS f
    SET journaled = FALSE
    WHERE f.journaled;
    DELETE FROM retally.journal;
END
$$;
COMMENT ON PROCEDURE retally.end_journal () IS
'Journals no show any more, and takes the triggers away.';
