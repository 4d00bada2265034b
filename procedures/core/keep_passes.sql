-- Keeps the results of passes, and which rows they left because they were busy. Who rebuilds holds
-- rows of the farm by now and waits for nobody: where somebody holds what is to be written here,
-- the results are not kept, and a WARNING says so.
-- p_seizures: of the totals that were rebuilt, busy the rows left.
-- Writes: as note_passes() and note_deferred().
CREATE OR REPLACE FUNCTION retally.keep_passes(
    p_passes retally.pass[], p_seizures retally.seizure[] DEFAULT '{}'
)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text;
BEGIN
    v_before := retally.set_lock_timeout(interval '50 milliseconds');
    PERFORM retally.note_deferred(s.scope, s.total, s.busy)
    FROM unnest(p_seizures) AS s
    WHERE
        cardinality(s.busy) > 0
        OR EXISTS (
            SELECT FROM retally.deferred AS d
            WHERE d.scope = s.scope AND d.total = s.total
        );
    PERFORM retally.note_passes(p_passes);
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE WARNING 'the results of passes are not kept: somebody has locked them';
END
$$;
COMMENT ON FUNCTION retally.keep_passes(retally.pass[], retally.seizure[]) IS
'Keeps the results of passes, and which rows they left, waiting for nobody.';
