-- note_passes(), waiting for nobody: where somebody holds what is to be written, the results are
-- not kept, and a WARNING says so. For who holds rows of the farm by now.
-- Writes: as note_passes().
CREATE OR REPLACE FUNCTION retally.keep_passes(p_passes retally.pass[])
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text;
BEGIN
    v_before := retally.set_lock_timeout(interval '50 milliseconds');
    PERFORM retally.note_passes(p_passes);
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE WARNING 'the results of passes are not kept: somebody has locked them';
END
$$;
COMMENT ON FUNCTION retally.keep_passes(retally.pass[]) IS
'Keeps the results of passes, waiting for nobody.';
