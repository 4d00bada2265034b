-- Keeps what was found as passes that wrote nothing: of quiet scopes and of watched ones.
-- p_action: as in retally.pass. p_seconds: how long finding took.
-- Writes: as note_passes(), and takes these totals out of retally.deferred.
CREATE OR REPLACE FUNCTION retally.note_findings(
    p_findings retally.finding[], p_action text, p_tick text, p_worker text,
    p_seconds double precision
)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    PERFORM retally.note_passes(
        ARRAY(
            SELECT
                ROW(
                    f.show_id, p_tick, f.total, p_action, p_worker, v_now, p_seconds,
                    f.rows_adrift, 0, 0, f.rows_failed, f.core_units, f.gpus, f.problems,
                    NULL, NULL, NULL
                )::retally.pass
            FROM unnest(p_findings) AS f
        )
    );
    -- a row that is locked belongs to a pass that is under way, and knows better
    DELETE FROM retally.deferred AS d
    WHERE d.ctid IN (
        SELECT o.ctid
        FROM retally.deferred AS o
        INNER JOIN unnest(p_findings) AS f ON o.scope = f.show_id AND o.total = f.total
        FOR UPDATE OF o SKIP LOCKED
    );
END
$$;
COMMENT ON FUNCTION retally.note_findings(
    retally.finding[], text, text, text, double precision
) IS 'Keeps what was found as passes that wrote nothing.';
