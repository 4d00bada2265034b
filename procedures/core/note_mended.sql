-- Keeps the result of a pass over one total, and which rows it left because they were busy. Who
-- mends holds rows of the farm by now and waits for nobody: where somebody holds what is to be
-- written here, the result is not kept, and a WARNING says so.
-- Writes: as note_passes() and note_deferred().
CREATE OR REPLACE FUNCTION retally.note_mended(p_pass retally.pass, p_busy text[])
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text;
BEGIN
    v_before := retally.set_lock_timeout(interval '50 milliseconds');
    PERFORM retally.note_deferred(p_pass.scope, p_pass.total, p_busy);
    PERFORM retally.note_passes(ARRAY[p_pass]);
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE WARNING 'the result of the pass over % of % is not kept: somebody has locked it',
            p_pass.total, p_pass.scope;
END
$$;
COMMENT ON FUNCTION retally.note_mended(retally.pass, text[]) IS
'Keeps the result of a pass over one total, waiting for nobody.';
