-- Deletes what is older than its age in retally.setting, at most p_rows of each kind, and what is
-- kept of shows that are gone and of workers not seen for a day.
-- Result: how many rows of the history and how many runs were deleted. Writes: retally.history,
-- run, ledger, pass, deferred, due, worker.
CREATE OR REPLACE PROCEDURE retally.prune(
    p_rows bigint DEFAULT 10000,
    INOUT history_rows bigint DEFAULT NULL,
    INOUT runs bigint DEFAULT NULL
)
LANGUAGE plpgsql
AS $$
DECLARE
    v_ages record;
BEGIN
    SELECT
        clock_timestamp() - s.history_age AS history,
        clock_timestamp() - s.ledger_age AS ledger
    INTO v_ages
    FROM retally.setting AS s;

    DELETE FROM retally.history AS h
    WHERE h.ctid IN (
        SELECT o.ctid
        FROM retally.history AS o
        WHERE o.finished_at < v_ages.history
        LIMIT p_rows
    );
    GET DIAGNOSTICS history_rows = ROW_COUNT;
    DELETE FROM retally.run AS r
    WHERE r.run IN (
        SELECT o.run
        FROM retally.run AS o
        WHERE o.begun_at < v_ages.ledger
        ORDER BY o.begun_at
        LIMIT p_rows
    );
    GET DIAGNOSTICS runs = ROW_COUNT;

    DELETE FROM retally.worker AS w
    WHERE w.seen_at < clock_timestamp() - interval '1 day';
    DELETE FROM retally.due AS d
    WHERE NOT EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = d.scope);
    DELETE FROM retally.pass AS p
    WHERE NOT EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = p.scope);
    DELETE FROM retally.deferred AS d
    WHERE NOT EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = d.scope);
END
$$;
COMMENT ON PROCEDURE retally.prune (bigint, bigint, bigint) IS
'Deletes what is older than its age in retally.setting.';
