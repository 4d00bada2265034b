-- note_findings() for who rebuilds by hand and found nothing to write: waits for nobody. Where
-- somebody holds what is to be written, the results are not kept, and a WARNING says so.
-- Writes: as note_findings().
CREATE OR REPLACE FUNCTION retally.keep_quiet(p_findings retally.finding[])
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text;
BEGIN
    v_before := retally.set_lock_timeout(interval '50 milliseconds');
    PERFORM retally.note_findings(p_findings, 'rebuilt', 'by hand', current_user, 0);
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE WARNING 'the results of quiet passes are not kept: somebody has locked them';
END
$$;
COMMENT ON FUNCTION retally.keep_quiet(retally.finding[]) IS
'Keeps the results of passes that had nothing to write, waiting for nobody.';
