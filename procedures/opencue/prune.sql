-- Deletes what is older than its age in retally.setting, about p_rows of each kind and no more, and
-- what is kept of shows that are gone or not served any more, and of workers not seen for a day.
-- Of several at a time, one works. Result: how many rows of the history and how many runs.
-- Locks: what it deletes, waiting for nobody. Writes: retally.history, run, ledger, pass,
-- deferred, due, worker.
CREATE OR REPLACE PROCEDURE retally.prune(
    p_rows bigint DEFAULT 10000,
    INOUT history_rows bigint DEFAULT NULL,
    INOUT runs bigint DEFAULT NULL
)
LANGUAGE plpgsql
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_ages record;
BEGIN
    SELECT 0, 0 INTO history_rows, runs;
    IF NOT pg_try_advisory_xact_lock(hashtextextended('retally prunes', 0)) THEN
        RETURN;
    END IF;
    SELECT
        v_now - s.history_age AS history,
        v_now - s.ledger_age AS ledger
    INTO v_ages
    FROM retally.setting AS s;

    DELETE FROM retally.history AS h
    WHERE h.ctid = ANY (
        ARRAY(
            SELECT o.ctid
            FROM retally.history AS o
            WHERE o.finished_at < v_ages.history
            ORDER BY o.finished_at
            LIMIT p_rows
        )
    );
    GET DIAGNOSTICS history_rows = ROW_COUNT;

    -- a run goes with all of its rows, or undo() would put back half of it
    DELETE FROM retally.run AS r
    WHERE r.run IN (
        SELECT s.run
        FROM (
            SELECT
                o.run,
                sum(l.rows) OVER (ORDER BY o.begun_at, o.run) - l.rows AS rows_before
            FROM (
                SELECT
                    a.run,
                    a.begun_at
                FROM retally.run AS a
                WHERE a.begun_at < v_ages.ledger
                ORDER BY a.begun_at
                LIMIT p_rows
                FOR UPDATE SKIP LOCKED
            ) AS o
            CROSS JOIN LATERAL (
                SELECT count(*) AS rows FROM retally.ledger AS e WHERE e.run = o.run
            ) AS l
        ) AS s
        WHERE s.rows_before < p_rows
    );
    GET DIAGNOSTICS runs = ROW_COUNT;

    DELETE FROM retally.worker AS w
    WHERE w.ctid IN (
        SELECT o.ctid
        FROM retally.worker AS o
        WHERE o.seen_at < v_now - interval '1 day'
        FOR UPDATE SKIP LOCKED
    );
    DELETE FROM retally.due AS d
    WHERE d.ctid IN (
        SELECT o.ctid
        FROM retally.due AS o
        WHERE
            o.due_at < v_now - interval '1 day'
            OR NOT EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = o.scope)
        LIMIT p_rows
        FOR UPDATE SKIP LOCKED
    );
    DELETE FROM retally.pass AS p
    WHERE p.ctid IN (
        SELECT o.ctid
        FROM retally.pass AS o
        WHERE NOT EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = o.scope)
        LIMIT p_rows
        FOR UPDATE SKIP LOCKED
    );
    DELETE FROM retally.deferred AS d
    WHERE d.ctid IN (
        SELECT o.ctid
        FROM retally.deferred AS o
        WHERE NOT EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = o.scope)
        LIMIT p_rows
        FOR UPDATE SKIP LOCKED
    );
END
$$;
COMMENT ON PROCEDURE retally.prune (bigint, bigint, bigint) IS
'Deletes what is older than its age in retally.setting.';
