-- Keeps the results of passes: the latest per scope, tick and total, and in the history one every
-- setting.history_every and each that found something adrift or changed something.
-- p_passes: rows for retally.pass; their passes and history_at are for those that are new there.
-- Writes: retally.pass, retally.history (both unlogged).
CREATE OR REPLACE FUNCTION retally.note_passes(p_passes retally.pass[])
RETURNS void
LANGUAGE sql VOLATILE
AS $$
    WITH noted AS (
        INSERT INTO retally.pass AS p
        SELECT n.*
        FROM unnest(p_passes) AS n
        -- two sessions that note the same rows must come to them in the same order
        ORDER BY n.scope, n.tick, n.total
        ON CONFLICT (scope, tick, total) DO UPDATE
            SET
                action = excluded.action,
                worker = excluded.worker,
                finished_at = excluded.finished_at,
                seconds = excluded.seconds,
                rows_adrift = excluded.rows_adrift,
                rows_changed = excluded.rows_changed,
                rows_deferred = excluded.rows_deferred,
                rows_failed = excluded.rows_failed,
                core_units_adrift = excluded.core_units_adrift,
                gpus_adrift = excluded.gpus_adrift,
                problems = excluded.problems,
                passes = p.passes + 1,
                history_at = CASE
                    WHEN
                        excluded.rows_adrift > 0
                        OR excluded.rows_changed > 0
                        -- a time ahead of ours comes from a clock that was set back
                        OR excluded.finished_at NOT BETWEEN p.history_at AND p.history_at + (
                            SELECT s.history_every FROM retally.setting AS s
                        )
                        THEN excluded.finished_at
                    ELSE p.history_at
                END
        RETURNING p.*
    )

    INSERT INTO retally.history (
        finished_at, scope, tick, total, action, worker, seconds, rows_adrift, rows_changed,
        rows_deferred, rows_failed, core_units_adrift, gpus_adrift
    )
    SELECT
        n.finished_at,
        n.scope,
        n.tick,
        n.total,
        n.action,
        n.worker,
        n.seconds,
        n.rows_adrift,
        n.rows_changed,
        n.rows_deferred,
        n.rows_failed,
        n.core_units_adrift,
        n.gpus_adrift
    FROM noted AS n
    WHERE n.history_at = n.finished_at
$$;
COMMENT ON FUNCTION retally.note_passes(retally.pass[]) IS
'Keeps the results of passes: the latest ones, and the history.';
