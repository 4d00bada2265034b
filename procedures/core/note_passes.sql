-- Keeps the results of passes: the latest per scope, tick and total, and in the history one every
-- setting.history_every, each that changed something and each that found something new adrift.
-- p_passes: rows for retally.pass, whose last two columns are ours to set; passes: 0 for what goes
-- on with the latest pass, otherwise null.
-- Writes: retally.pass, retally.history (both unlogged).
CREATE OR REPLACE FUNCTION retally.note_passes(p_passes retally.pass[])
RETURNS void
LANGUAGE sql VOLATILE
AS $$
    WITH noted AS (
        INSERT INTO retally.pass AS p (
            scope, tick, total, action, worker, finished_at, seconds, rows_adrift, rows_changed,
            rows_deferred, rows_failed, core_units_adrift, gpus_adrift, problems, passes,
            history_at, succeeded_at
        )
        SELECT
            n.scope,
            n.tick,
            n.total,
            n.action,
            n.worker,
            n.finished_at,
            n.seconds,
            n.rows_adrift,
            n.rows_changed,
            n.rows_deferred,
            n.rows_failed,
            n.core_units_adrift,
            n.gpus_adrift,
            n.problems,
            coalesce(n.passes, 1) AS passes,
            n.finished_at AS history_at,
            CASE WHEN n.action NOT IN ('refused', 'failed') THEN n.finished_at END AS succeeded_at
        FROM unnest(p_passes) AS n
        -- two sessions that note the same rows must come to them in the same order: mend()'s
        ORDER BY n.scope, array_position(retally.totals(), n.total), n.tick
        ON CONFLICT (scope, tick, total) DO UPDATE
            SET
                action = excluded.action,
                worker = excluded.worker,
                finished_at = excluded.finished_at,
                seconds = excluded.seconds,
                rows_adrift = CASE
                    WHEN excluded.passes = 0 THEN p.rows_adrift ELSE excluded.rows_adrift
                END,
                rows_changed = excluded.rows_changed
                + CASE WHEN excluded.passes = 0 THEN p.rows_changed ELSE 0 END,
                rows_deferred = excluded.rows_deferred,
                rows_failed = excluded.rows_failed,
                core_units_adrift = CASE
                    WHEN excluded.passes = 0 THEN p.core_units_adrift
                    ELSE excluded.core_units_adrift
                END,
                gpus_adrift = CASE
                    WHEN excluded.passes = 0 THEN p.gpus_adrift ELSE excluded.gpus_adrift
                END,
                problems = excluded.problems,
                passes = p.passes + excluded.passes,
                history_at = CASE
                    WHEN
                        excluded.rows_changed > 0
                        -- what nobody mends is found by each pass: it is new only once
                        OR excluded.rows_adrift + excluded.rows_failed > 0
                        AND (
                            excluded.rows_adrift, excluded.rows_deferred, excluded.rows_failed,
                            excluded.core_units_adrift, excluded.gpus_adrift
                        ) <> (
                            p.rows_adrift, p.rows_deferred, p.rows_failed, p.core_units_adrift,
                            p.gpus_adrift
                        )
                        -- a time ahead of ours comes from a clock that was set back
                        OR excluded.finished_at NOT BETWEEN p.history_at AND p.history_at + (
                            SELECT s.history_every FROM retally.setting AS s
                        )
                        THEN excluded.finished_at
                    ELSE p.history_at
                END,
                succeeded_at = coalesce(excluded.succeeded_at, p.succeeded_at)
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
        -- what goes on with a pass has a row of its own
        o.rows_adrift,
        o.rows_changed,
        o.rows_deferred,
        o.rows_failed,
        o.core_units_adrift,
        o.gpus_adrift
    FROM noted AS n
    INNER JOIN unnest(p_passes) AS o
        ON n.scope = o.scope AND n.tick = o.tick AND n.total = o.total
    WHERE n.history_at = n.finished_at
$$;
COMMENT ON FUNCTION retally.note_passes(retally.pass[]) IS
'Keeps the results of passes: the latest ones, and the history.';
