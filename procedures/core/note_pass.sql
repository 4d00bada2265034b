-- Keeps the result of a pass over one total, and which rows it left because they were busy.
-- p_seconds: duration. p_busy: the keys left. Rows not left any more are forgotten.
-- Writes: retally.pass, retally.deferred (both unlogged).
CREATE OR REPLACE FUNCTION retally.note_pass(
    p_scope text,
    p_total text,
    p_seconds double precision,
    p_rows_adrift bigint,
    p_rows_changed bigint,
    p_busy text[],
    p_rows_failed bigint,
    p_core_units numeric,
    p_gpus numeric,
    p_problems text[]
)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    INSERT INTO retally.pass AS p (
        scope, total, finished_at, seconds, rows_adrift, rows_changed, rows_deferred, rows_failed,
        core_units_adrift, gpus_adrift, problems
    )
    VALUES (
        p_scope, p_total, clock_timestamp(), p_seconds, p_rows_adrift, p_rows_changed,
        cardinality(p_busy), p_rows_failed, p_core_units, p_gpus, p_problems
    )
    ON CONFLICT (scope, total) DO UPDATE SET
        finished_at = excluded.finished_at,
        seconds = excluded.seconds,
        rows_adrift = excluded.rows_adrift,
        rows_changed = excluded.rows_changed,
        rows_deferred = excluded.rows_deferred,
        rows_failed = excluded.rows_failed,
        core_units_adrift = excluded.core_units_adrift,
        gpus_adrift = excluded.gpus_adrift,
        problems = excluded.problems;

    DELETE FROM retally.deferred AS d
    WHERE d.scope = p_scope AND d.total = p_total AND d.key <> ALL (p_busy);
    IF cardinality(p_busy) > 0 THEN
        INSERT INTO retally.deferred AS d (scope, total, key, passes, since)
        SELECT p_scope, p_total, b.key, 1, clock_timestamp()
        FROM unnest(p_busy) AS b (key)
        ON CONFLICT (scope, total, key) DO UPDATE SET passes = d.passes + 1;
    END IF;
END
$$;
COMMENT ON FUNCTION retally.note_pass(
    text, text, double precision, bigint, bigint, text[], bigint, numeric, numeric, text[]
) IS 'Keeps the result of a pass over one total, and the rows that it left.';
