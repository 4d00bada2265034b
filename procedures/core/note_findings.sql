-- Keeps what was found as passes that wrote nothing: of quiet scopes and of watched ones.
-- p_action: rebuilt, watched or repaired. p_seconds: how long finding took.
-- Writes: as note_passes(), and takes these totals out of retally.deferred.
CREATE OR REPLACE FUNCTION retally.note_findings(
    p_findings retally.finding[], p_action text, p_tick text, p_worker text,
    p_seconds double precision
)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM retally.note_passes(
        ARRAY(
            SELECT
                ROW(
                    f.show_id, p_tick, f.total, p_action, p_worker, clock_timestamp(), p_seconds,
                    f.rows_adrift, 0, 0, f.rows_failed, f.core_units, f.gpus, f.problems, 1,
                    clock_timestamp()
                )::retally.pass
            FROM unnest(p_findings) AS f
        )
    );
    DELETE FROM retally.deferred AS d
    USING unnest(p_findings) AS f
    WHERE d.scope = f.show_id AND d.total = f.total;
END
$$;
COMMENT ON FUNCTION retally.note_findings(
    retally.finding[], text, text, text, double precision
) IS 'Keeps what was found as passes that wrote nothing.';
