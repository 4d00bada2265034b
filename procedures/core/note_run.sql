-- Writes into the ledger what a run changed in a scope. p_run: the run that it belongs to, null for
-- a new one. p_cause: what asked for it. p_undoes: the run that was put back, null for a repair.
-- p_causes: what had made each of the values wrong, in the order of p_changes.
-- Answers with the run, null when nothing was changed and none was given. Writes: retally.run,
-- retally.ledger. Raises 55P03 when these are locked for longer than the lock budget.
CREATE OR REPLACE FUNCTION retally.note_run(
    p_run bigint, p_worker text, p_cause text, p_forced boolean, p_undoes bigint, p_scope text,
    p_changes retally.change[], p_causes text[]
)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_run bigint := p_run;
    v_before text;
BEGIN
    IF coalesce(cardinality(p_changes), 0) = 0 THEN
        RETURN v_run;
    END IF;
    -- rows of the farm are locked by now, and bookings wait for them
    v_before := retally.set_lock_timeout(retally.lock_budget());
    IF v_run IS NULL THEN
        INSERT INTO retally.run (worker, cause, forced, undoes)
        VALUES (p_worker, p_cause, p_forced, p_undoes)
        RETURNING run INTO v_run;
    END IF;
    INSERT INTO retally.ledger AS l (run, scope, total, key, slot, before, after, cause)
    SELECT
        v_run,
        p_scope,
        c.total,
        c.key,
        c.slot,
        c.before,
        c.after,
        p_causes[c.place]
    FROM unnest(p_changes) WITH ORDINALITY AS c (total, key, slot, before, after, place)
    -- A scope is come back to within the same run. What bookings did between the two is no part of
    -- it: before stays as far from after as the run itself has moved the value.
    ON CONFLICT ON CONSTRAINT ledger_pk DO UPDATE SET
        before = l.before + excluded.before - l.after,
        after = excluded.after,
        changed_at = excluded.changed_at;
    PERFORM set_config('lock_timeout', v_before, TRUE);
    RETURN v_run;
END
$$;
COMMENT ON FUNCTION retally.note_run(
    bigint, text, text, boolean, bigint, text, retally.change[], text[]
) IS 'Writes into the ledger what a run changed in a scope.';
