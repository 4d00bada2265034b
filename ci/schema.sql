CREATE SCHEMA retally;

COMMENT ON SCHEMA retally IS 'retally: exact resource totals; dropped by `retally uninstall`.';

CREATE TYPE retally.finding AS (
	show_id text,
	total text,
	keys text[],
	rows_adrift bigint,
	rows_failed bigint,
	core_units numeric,
	gpus numeric,
	problems text[]
);

COMMENT ON TYPE retally.finding IS 'What one statement found of one total of a show: the keys adrift and by how much in all.';

CREATE FUNCTION retally.booked(p_show text) RETURNS TABLE(total text, key text, cores numeric, gpus numeric, local_cores numeric, local_gpus numeric)
    LANGUAGE plpgsql STABLE
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET enable_mergejoin TO 'off'
    AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
BEGIN
    RETURN QUERY
    SELECT
        b.total,
        b.key,
        b.cores,
        b.gpus,
        b.local_cores,
        b.local_gpus
    FROM retally.booked_in(ARRAY[v_show_id], retally.totals(), NULL) AS b
    WHERE retally.home(b.show_id, b.total, b.key) = v_show_id;
END
$$;

COMMENT ON FUNCTION retally.booked(p_show text) IS 'What the show''s procs say, by total and key.';

CREATE FUNCTION retally.booked_in(p_show_ids text[], p_totals text[], p_keys text[]) RETURNS TABLE(show_id text, total text, key text, cores numeric, gpus numeric, local_cores numeric, local_gpus numeric)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    -- the procs are read once, into one hash table for each key they are summed by; a key that
    -- these totals do not need is null for all and costs nothing
    WITH procs AS (
        SELECT
            p.local,
            p.cores,
            p.gpus,
            CASE WHEN 'layer' = any(p_totals) THEN p.layer_id END AS layer_id,
            CASE WHEN p_totals && ARRAY['job', 'folder', 'point'] THEN p.job_id END AS job_id,
            CASE WHEN 'subscription' = any(p_totals) AND p.own THEN p.show_id END AS show_id,
            CASE WHEN 'subscription' = any(p_totals) AND p.own THEN p.host_id END AS host_id
        FROM retally.procs_of(p_show_ids, p_totals, p_keys) AS p
    ),

    shares AS MATERIALIZED (
        SELECT
            p.layer_id,
            p.job_id,
            p.show_id,
            p.host_id,
            CASE
                WHEN grouping(p.layer_id) = 0 THEN 'layer'
                WHEN grouping(p.job_id) = 0 THEN 'job'
                ELSE 'host'
            END AS grouped_by,
            sum(p.cores) AS cores,
            sum(p.gpus) AS gpus,
            coalesce(sum(p.cores) FILTER (WHERE p.local), 0) AS local_cores,
            coalesce(sum(p.gpus) FILTER (WHERE p.local), 0) AS local_gpus
        FROM procs AS p
        GROUP BY GROUPING SETS ((p.layer_id), (p.job_id), (p.show_id, p.host_id))
    ),

    jobs AS MATERIALIZED (
        SELECT
            j.pk_show::text AS show_id,
            j.pk_folder::text AS folder_id,
            j.pk_dept::text AS dept_id,
            s.cores - s.local_cores AS cores,
            s.gpus - s.local_gpus AS gpus
        FROM shares AS s
        INNER JOIN public.job AS j ON s.job_id = j.pk_job::text
        WHERE
            s.grouped_by = 'job'
            AND p_totals && ARRAY['folder', 'point']
            AND s.cores > s.local_cores
    ),

    sums AS (
        SELECT
            s.show_id,
            'subscription' AS total,
            h.pk_alloc::text AS key,
            sum(s.cores - s.local_cores) AS cores,
            sum(s.gpus - s.local_gpus) AS gpus,
            NULL::numeric AS local_cores,
            NULL::numeric AS local_gpus
        FROM shares AS s
        INNER JOIN public.host AS h ON s.host_id = h.pk_host::text
        WHERE s.grouped_by = 'host' AND 'subscription' = any(p_totals) AND s.cores > s.local_cores
        GROUP BY s.show_id, h.pk_alloc
        UNION ALL
        SELECT
            NULL,
            'layer',
            s.layer_id,
            s.cores,
            s.gpus,
            NULL,
            NULL
        FROM shares AS s
        WHERE s.grouped_by = 'layer' AND 'layer' = any(p_totals)
        UNION ALL
        SELECT
            NULL,
            'job',
            s.job_id,
            s.cores - s.local_cores,
            s.gpus - s.local_gpus,
            s.local_cores,
            s.local_gpus
        FROM shares AS s
        WHERE s.grouped_by = 'job' AND 'job' = any(p_totals)
        UNION ALL
        SELECT
            NULL,
            'folder',
            j.folder_id,
            sum(j.cores),
            sum(j.gpus),
            NULL,
            NULL
        FROM jobs AS j
        WHERE 'folder' = any(p_totals)
        GROUP BY j.folder_id
        UNION ALL
        SELECT
            j.show_id,
            'point',
            j.dept_id,
            sum(j.cores),
            sum(j.gpus),
            NULL,
            NULL
        FROM jobs AS j
        WHERE j.show_id = any(p_show_ids) AND 'point' = any(p_totals)
        GROUP BY j.show_id, j.dept_id
    )

    SELECT
        s.show_id,
        s.total,
        s.key,
        s.cores,
        s.gpus,
        s.local_cores,
        s.local_gpus
    FROM sums AS s
    WHERE p_keys IS NULL OR s.key IN (SELECT k.key FROM unnest(p_keys) AS k (key))
$$;

COMMENT ON FUNCTION retally.booked_in(p_show_ids text[], p_totals text[], p_keys text[]) IS 'What the procs say, by total and key.';

CREATE FUNCTION retally.check_farm() RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_wanted CONSTANT text[] := ARRAY[
        'show.pk_show', 'show.str_name',
        'alloc.pk_alloc', 'alloc.str_name',
        'dept.pk_dept', 'dept.str_name',
        'folder.pk_folder', 'folder.pk_show', 'folder.str_name',
        'host.pk_host', 'host.pk_alloc',
        'job.pk_job', 'job.pk_show', 'job.pk_folder', 'job.pk_dept', 'job.str_name',
        'layer.pk_layer', 'layer.pk_job', 'layer.str_name',
        'proc.pk_proc', 'proc.pk_host', 'proc.pk_show', 'proc.pk_job', 'proc.pk_layer',
        'proc.int_cores_reserved', 'proc.int_gpus_reserved', 'proc.b_local',
        'subscription.pk_show', 'subscription.pk_alloc',
        'subscription.int_cores', 'subscription.int_gpus', 'subscription.int_burst',
        'layer_resource.pk_layer', 'layer_resource.pk_job',
        'layer_resource.int_cores', 'layer_resource.int_gpus',
        'job_resource.pk_job', 'job_resource.int_cores', 'job_resource.int_gpus',
        'job_resource.int_local_cores', 'job_resource.int_local_gpus',
        'job_resource.int_max_cores', 'job_resource.int_max_gpus',
        'folder_resource.pk_folder', 'folder_resource.int_cores', 'folder_resource.int_gpus',
        'point.pk_show', 'point.pk_dept', 'point.int_cores', 'point.int_gpus'
    ];
    v_missing text[];
BEGIN
    SELECT array_agg(w.name ORDER BY w.place)
    INTO v_missing
    FROM unnest(v_wanted) WITH ORDINALITY AS w (name, place)
    WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
        WHERE
            a.attrelid = to_regclass('public.' || split_part(w.name, '.', 1))
            AND a.attname = split_part(w.name, '.', 2)
            AND NOT a.attisdropped
    );
    IF cardinality(v_missing) = cardinality(v_wanted) THEN
        RAISE EXCEPTION 'database % holds no OpenCue farm', current_database()
            USING ERRCODE = 'RT007',
                HINT = 'Connect to the Cuebot''s database, or make a farm with'
                    || ' `retally farm create`.';
    ELSIF cardinality(v_missing) > 0 THEN
        RAISE EXCEPTION 'the farm schema lacks %', array_to_string(v_missing, ', ')
            USING ERRCODE = 'RT007',
                HINT = 'retally needs OpenCue''s schema from migration V11 on, which brought'
                    || ' the GPU columns; migrate the farm first.';
    END IF;
END
$$;

COMMENT ON FUNCTION retally.check_farm() IS 'Raises unless the schema public holds every farm column that retally uses.';

CREATE FUNCTION retally.claim_due(p_tick text, p_interval interval, p_scopes text[], p_worker text) RETURNS SETOF text
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    INSERT INTO retally.due (tick, scope, due_at, claimed_by)
    SELECT p_tick, s.scope, v_now, ''
    FROM unnest(p_scopes) AS s (scope)
    WHERE NOT EXISTS (
        SELECT FROM retally.due AS d WHERE d.tick = p_tick AND d.scope = s.scope
    )
    ON CONFLICT (tick, scope) DO NOTHING;

    RETURN QUERY
    WITH ready AS (
        SELECT d.scope
        FROM retally.due AS d
        WHERE
            d.tick = p_tick
            AND d.scope = ANY (p_scopes)
            -- a due time further away than one interval comes from a clock that was set back
            -- or from a longer interval: it is not believed
            AND (
                d.due_at <= v_now + p_interval / 10
                OR d.due_at > v_now + p_interval * 1.1
            )
        FOR UPDATE SKIP LOCKED
    )

    UPDATE retally.due AS d
    SET
        due_at = CASE
            WHEN d.due_at + p_interval BETWEEN v_now AND v_now + p_interval * 1.1
                THEN d.due_at + p_interval
            ELSE v_now + p_interval
        END,
        claimed_by = p_worker
    FROM ready AS r
    WHERE d.tick = p_tick AND d.scope = r.scope
    RETURNING d.scope;
END
$$;

COMMENT ON FUNCTION retally.claim_due(p_tick text, p_interval interval, p_scopes text[], p_worker text) IS 'Hands out the scopes that are due in this tick, each to one caller only.';

CREATE FUNCTION retally.column_limit(p_table text, p_column text) RETURNS numeric
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        CASE a.atttypid::regtype::text
            WHEN 'smallint' THEN 32767
            WHEN 'integer' THEN 2147483647
            WHEN 'bigint' THEN 9223372036854775807
            ELSE 'Infinity'::numeric
        END
    FROM pg_catalog.pg_attribute AS a
    WHERE
        a.attrelid = to_regclass('public.' || p_table)
        AND a.attname = p_column
        AND NOT a.attisdropped
$$;

COMMENT ON FUNCTION retally.column_limit(p_table text, p_column text) IS 'The largest value that a column of a farm''s table takes.';

CREATE FUNCTION retally.compared(p_show_ids text[], p_totals text[]) RETURNS TABLE(show_id text, total text, key text, kind text, was_cores numeric, was_gpus numeric, was_local_cores numeric, was_local_gpus numeric, cores numeric, gpus numeric, local_cores numeric, local_gpus numeric)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    WITH pairs AS (
        SELECT
            s.show_id,
            b.show_id AS told_show_id,
            coalesce(s.total, b.total) AS total,
            coalesce(s.key, b.key) AS key,
            s.cores AS was_cores,
            s.gpus AS was_gpus,
            s.local_cores AS was_local_cores,
            s.local_gpus AS was_local_gpus,
            coalesce(b.cores, 0) AS cores,
            coalesce(b.gpus, 0) AS gpus,
            coalesce(b.local_cores, 0) AS local_cores,
            coalesce(b.local_gpus, 0) AS local_gpus
        FROM retally.stored_in(p_show_ids, p_totals) AS s
        FULL JOIN retally.booked_in(p_show_ids, p_totals, NULL) AS b
            ON
                s.key = b.key
                AND s.total = b.total
                -- the other totals have keys that are unique in the farm
                AND CASE WHEN s.total IN ('subscription', 'point') THEN s.show_id ELSE '' END
                = coalesce(b.show_id, '')
        WHERE
            s.total IS NULL
            OR s.cores <> coalesce(b.cores, 0)
            OR s.gpus <> coalesce(b.gpus, 0)
            OR s.local_cores <> coalesce(b.local_cores, 0)
            OR s.local_gpus <> coalesce(b.local_gpus, 0)
    ),

    homes AS MATERIALIZED (
        SELECT
            p.*,
            coalesce(p.show_id, retally.home(p.told_show_id, p.total, p.key)) AS home
        FROM pairs AS p
    )

    SELECT
        h.home,
        h.total,
        h.key,
        CASE WHEN h.show_id IS NULL THEN 'missing' ELSE 'row' END,
        h.was_cores,
        h.was_gpus,
        h.was_local_cores,
        h.was_local_gpus,
        h.cores,
        h.gpus,
        h.local_cores,
        h.local_gpus
    FROM homes AS h
    WHERE h.home = any(p_show_ids)
    UNION ALL
    SELECT
        o.show_id,
        h.total,
        h.key,
        'orphan',
        NULL,
        NULL,
        NULL,
        NULL,
        o.cores,
        o.gpus,
        0,
        0
    FROM homes AS h
    CROSS JOIN LATERAL retally.orphans_in(p_show_ids, h.total, h.key) AS o
    WHERE h.home IS NULL
$$;

COMMENT ON FUNCTION retally.compared(p_show_ids text[], p_totals text[]) IS 'Where stored and booked differ, one row per key.';

CREATE FUNCTION retally.drift(p_show text) RETURNS TABLE(total text, key text, slot text, stored numeric, booked numeric)
    LANGUAGE plpgsql STABLE
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET enable_mergejoin TO 'off'
    AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
BEGIN
    RETURN QUERY
    SELECT
        d.total,
        d.key,
        d.slot,
        d.stored,
        d.booked
    FROM retally.drift_in(ARRAY[v_show_id], retally.totals()) AS d
    ORDER BY array_position(retally.totals(), d.total), d.key, d.slot;
END
$$;

COMMENT ON FUNCTION retally.drift(p_show text) IS 'Where the show''s totals are not what its procs say: one row per slot that differs.';

CREATE FUNCTION retally.drift_in(p_show_ids text[], p_totals text[]) RETURNS TABLE(show_id text, total text, key text, slot text, stored numeric, booked numeric)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        c.show_id,
        c.total,
        c.key,
        v.slot,
        v.stored,
        v.booked
    FROM retally.compared(p_show_ids, p_totals) AS c
    CROSS JOIN
        LATERAL (
            VALUES
            ('cores', c.was_cores, c.cores),
            ('gpus', c.was_gpus, c.gpus),
            ('local_cores', c.was_local_cores, c.local_cores),
            ('local_gpus', c.was_local_gpus, c.local_gpus)
        ) AS v (slot, stored, booked)
    WHERE
        (c.kind = 'row' AND v.stored <> v.booked)
        OR (c.kind = 'missing' AND v.booked <> 0)
$$;

COMMENT ON FUNCTION retally.drift_in(p_show_ids text[], p_totals text[]) IS 'Where totals are not what the procs say: one row per slot that differs.';

CREATE FUNCTION retally.findings(p_show_ids text[], p_totals text[]) RETURNS SETOF retally.finding
    LANGUAGE plpgsql STABLE
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
BEGIN
    IF NOT p_totals <@ retally.totals() OR cardinality(p_totals) = 0 THEN
        RAISE EXCEPTION 'unknown total in {%}', array_to_string(p_totals, ', ')
            USING ERRCODE = 'RT004',
                HINT = 'The totals are ' || array_to_string(retally.totals(), ', ') || '.';
    END IF;

    RETURN QUERY
    WITH sizes AS (
        SELECT
            c.*,
            c.kind = 'row' AS is_row,
            abs(c.was_cores - c.cores)
            + abs(coalesce(c.was_local_cores, 0) - c.local_cores) AS core_units,
            abs(c.was_gpus - c.gpus)
            + abs(coalesce(c.was_local_gpus, 0) - c.local_gpus) AS gpu_units
        FROM retally.compared(p_show_ids, p_totals) AS c
    ),

    found AS (
        SELECT
            z.show_id,
            z.total,
            array_agg(z.key ORDER BY z.key) FILTER (WHERE z.is_row) AS keys,
            count(*) FILTER (WHERE z.is_row) AS adrift,
            count(*) FILTER (WHERE z.kind = 'missing') AS failed,
            sum(z.core_units) FILTER (WHERE z.is_row) AS core_units,
            sum(z.gpu_units) FILTER (WHERE z.is_row) AS gpu_units,
            array_agg(retally.problem(z.kind, z.total, z.key, z.cores, z.gpus) ORDER BY z.key)
            FILTER (WHERE NOT z.is_row) AS problems
        FROM sizes AS z
        GROUP BY z.show_id, z.total
    )

    SELECT
        s.show_id,
        t.total,
        coalesce(f.keys, '{}'),
        coalesce(f.adrift, 0),
        coalesce(f.failed, 0),
        coalesce(f.core_units, 0),
        coalesce(f.gpu_units, 0),
        coalesce(f.problems, '{}')
    FROM unnest(p_show_ids) AS s (show_id)
    CROSS JOIN unnest(retally.totals()) WITH ORDINALITY AS t (total, place)
    LEFT JOIN found AS f ON s.show_id = f.show_id AND t.total = f.total
    WHERE t.total = ANY (p_totals)
    ORDER BY s.show_id, t.place;
END
$$;

COMMENT ON FUNCTION retally.findings(p_show_ids text[], p_totals text[]) IS 'What is adrift in these totals of these shows, one finding per show and total.';

CREATE FUNCTION retally.hold_free_rows(p_show_id text, p_total text, p_keys text[], p_patient text[], OUT held text[], OUT busy text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
BEGIN
    SELECT
        coalesce(array_agg(l.key) FILTER (WHERE l.held), '{}'),
        coalesce(array_agg(l.key ORDER BY l.key) FILTER (WHERE NOT l.held), '{}')
    INTO held, busy
    FROM retally.lock_rows(p_show_id, p_total, p_keys, FALSE) AS l;
    IF busy && p_patient THEN
        RAISE EXCEPTION USING ERRCODE = 'RT000', MESSAGE = 'let go';
    END IF;
EXCEPTION
    WHEN SQLSTATE 'RT000' THEN
        -- the locks went with the subtransaction; what was learned of the busy rows did not
        held := '{}';
END
$$;

COMMENT ON FUNCTION retally.hold_free_rows(p_show_id text, p_total text, p_keys text[], p_patient text[], OUT held text[], OUT busy text[]) IS 'Locks those rows of a total that are free, or none when one is busy that is worth waiting for.';

CREATE FUNCTION retally.hold_row(p_show_id text, p_total text, p_key text, p_limit interval) RETURNS text
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_before text;
    v_held boolean;
BEGIN
    IF p_limit < interval '1 millisecond' THEN
        RETURN 'busy';
    END IF;
    v_before := retally.set_lock_timeout(p_limit);
    SELECT bool_and(l.held)
    INTO v_held
    FROM retally.lock_rows(p_show_id, p_total, ARRAY[p_key], TRUE) AS l;
    PERFORM set_config('lock_timeout', v_before, TRUE);
    RETURN CASE WHEN v_held THEN 'held' ELSE 'gone' END;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN 'busy';
END
$$;

COMMENT ON FUNCTION retally.hold_row(p_show_id text, p_total text, p_key text, p_limit interval) IS 'Waits for one busy row of a total.';

CREATE FUNCTION retally.hold_scope(p_scope text, p_wait boolean) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_lock bigint := hashtextextended('retally writes ' || p_scope, 0);
    v_before text;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'totals cannot be rebuilt at isolation level %',
            current_setting('transaction_isolation')
            USING ERRCODE = 'RT003',
                HINT = 'Use READ COMMITTED: the second sum has to see what was booked meanwhile.';
    END IF;
    IF pg_try_advisory_xact_lock(v_lock) THEN
        RETURN;
    END IF;
    BEGIN
        v_before := retally.set_lock_timeout(
            CASE WHEN p_wait THEN retally.lock_budget() ELSE interval '50 milliseconds' END
        );
        PERFORM pg_advisory_xact_lock(v_lock);
        PERFORM set_config('lock_timeout', v_before, TRUE);
        RETURN;
    EXCEPTION
        WHEN lock_not_available THEN NULL;
    END;
    RAISE EXCEPTION 'another session is rebuilding the totals of %', p_scope
        USING ERRCODE = 'RT005', HINT = 'Try again in a moment.';
END
$$;

COMMENT ON FUNCTION retally.hold_scope(p_scope text, p_wait boolean) IS 'Makes this transaction the only writer of the scope''s totals.';

CREATE FUNCTION retally.home(p_show_id text, p_total text, p_key text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT CASE p_total
        WHEN 'layer'
            THEN (
                SELECT j.pk_show::text
                FROM public.layer AS l
                INNER JOIN public.job AS j ON l.pk_job = j.pk_job
                WHERE l.pk_layer::text = p_key
            )
        WHEN 'job'
            THEN (
                SELECT j.pk_show::text
                FROM public.job AS j
                WHERE j.pk_job::text = p_key
            )
        WHEN 'folder'
            THEN (
                SELECT f.pk_show::text
                FROM public.folder AS f
                WHERE f.pk_folder::text = p_key
            )
        ELSE (
            SELECT s.pk_show::text
            FROM public.show AS s
            WHERE s.pk_show::text = p_show_id
        )
    END
$$;

COMMENT ON FUNCTION retally.home(p_show_id text, p_total text, p_key text) IS 'The show that the row of this total and key belongs to.';

CREATE FUNCTION retally.lock_budget() RETURNS interval
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT current_setting('deadlock_timeout')::interval / 2
$$;

COMMENT ON FUNCTION retally.lock_budget() IS 'How long a pass may wait after its first row lock: half of deadlock_timeout.';

CREATE FUNCTION retally.lock_folder(p_show_id text, p_keys text[], p_wait boolean) RETURNS SETOF text
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF p_wait THEN
        RETURN QUERY
        SELECT r.pk_folder::text
        FROM public.folder_resource AS r
        WHERE r.pk_folder::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_folder
        FOR NO KEY UPDATE OF r;
    ELSE
        RETURN QUERY
        SELECT r.pk_folder::text
        FROM public.folder_resource AS r
        WHERE r.pk_folder::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_folder
        FOR NO KEY UPDATE OF r SKIP LOCKED;
    END IF;
END
$$;

COMMENT ON FUNCTION retally.lock_folder(p_show_id text, p_keys text[], p_wait boolean) IS 'Locks folder totals of a show in key order and answers with the keys it holds.';

CREATE FUNCTION retally.lock_job(p_show_id text, p_keys text[], p_wait boolean) RETURNS SETOF text
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF p_wait THEN
        RETURN QUERY
        SELECT r.pk_job::text
        FROM public.job_resource AS r
        WHERE r.pk_job::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_job
        FOR NO KEY UPDATE OF r;
    ELSE
        RETURN QUERY
        SELECT r.pk_job::text
        FROM public.job_resource AS r
        WHERE r.pk_job::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_job
        FOR NO KEY UPDATE OF r SKIP LOCKED;
    END IF;
END
$$;

COMMENT ON FUNCTION retally.lock_job(p_show_id text, p_keys text[], p_wait boolean) IS 'Locks job totals of a show in key order and answers with the keys it holds.';

CREATE FUNCTION retally.lock_layer(p_show_id text, p_keys text[], p_wait boolean) RETURNS SETOF text
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF p_wait THEN
        RETURN QUERY
        SELECT r.pk_layer::text
        FROM public.layer_resource AS r
        WHERE r.pk_layer::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_layer
        FOR NO KEY UPDATE OF r;
    ELSE
        RETURN QUERY
        SELECT r.pk_layer::text
        FROM public.layer_resource AS r
        WHERE r.pk_layer::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_layer
        FOR NO KEY UPDATE OF r SKIP LOCKED;
    END IF;
END
$$;

COMMENT ON FUNCTION retally.lock_layer(p_show_id text, p_keys text[], p_wait boolean) IS 'Locks layer totals of a show in key order and answers with the keys it holds.';

CREATE FUNCTION retally.lock_point(p_show_id text, p_keys text[], p_wait boolean) RETURNS SETOF text
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF p_wait THEN
        RETURN QUERY
        SELECT r.pk_dept::text
        FROM public.point AS r
        WHERE
            r.pk_show::text = p_show_id
            AND r.pk_dept::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_dept
        FOR NO KEY UPDATE OF r;
    ELSE
        RETURN QUERY
        SELECT r.pk_dept::text
        FROM public.point AS r
        WHERE
            r.pk_show::text = p_show_id
            AND r.pk_dept::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_dept
        FOR NO KEY UPDATE OF r SKIP LOCKED;
    END IF;
END
$$;

COMMENT ON FUNCTION retally.lock_point(p_show_id text, p_keys text[], p_wait boolean) IS 'Locks point totals of a show in key order and answers with the keys it holds.';

CREATE FUNCTION retally.lock_rows(p_show_id text, p_total text, p_keys text[], p_wait boolean) RETURNS TABLE(key text, held boolean)
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_held text[];
BEGIN
    CASE p_total
        WHEN 'subscription' THEN
            v_held := ARRAY(SELECT retally.lock_subscription(p_show_id, p_keys, p_wait));
        WHEN 'layer' THEN
            v_held := ARRAY(SELECT retally.lock_layer(p_show_id, p_keys, p_wait));
        WHEN 'job' THEN
            v_held := ARRAY(SELECT retally.lock_job(p_show_id, p_keys, p_wait));
        WHEN 'folder' THEN
            v_held := ARRAY(SELECT retally.lock_folder(p_show_id, p_keys, p_wait));
        WHEN 'point' THEN
            v_held := ARRAY(SELECT retally.lock_point(p_show_id, p_keys, p_wait));
    END CASE;
    RETURN QUERY
    SELECT
        h.key,
        TRUE
    FROM unnest(v_held) AS h (key);
    -- most often all are free, and the totals need not be read again
    IF cardinality(v_held) < cardinality(p_keys) THEN
        RETURN QUERY
        SELECT
            s.key,
            FALSE
        FROM retally.stored_in(ARRAY[p_show_id], ARRAY[p_total]) AS s
        WHERE
            s.key IN (SELECT k.key FROM unnest(p_keys) AS k (key))
            AND s.key NOT IN (SELECT h.key FROM unnest(v_held) AS h (key));
    END IF;
END
$$;

COMMENT ON FUNCTION retally.lock_rows(p_show_id text, p_total text, p_keys text[], p_wait boolean) IS 'Locks rows of one total of a show and says of each whether it is held now.';

CREATE FUNCTION retally.lock_subscription(p_show_id text, p_keys text[], p_wait boolean) RETURNS SETOF text
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF p_wait THEN
        RETURN QUERY
        SELECT r.pk_alloc::text
        FROM public.subscription AS r
        WHERE
            r.pk_show::text = p_show_id
            AND r.pk_alloc::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_alloc
        FOR NO KEY UPDATE OF r;
    ELSE
        RETURN QUERY
        SELECT r.pk_alloc::text
        FROM public.subscription AS r
        WHERE
            r.pk_show::text = p_show_id
            AND r.pk_alloc::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_alloc
        FOR NO KEY UPDATE OF r SKIP LOCKED;
    END IF;
END
$$;

COMMENT ON FUNCTION retally.lock_subscription(p_show_id text, p_keys text[], p_wait boolean) IS 'Locks subscription totals of a show in key order and answers with the keys it holds.';

CREATE FUNCTION retally.mend(p_findings retally.finding[], p_wait boolean) RETURNS TABLE(show_id text, total text, rows_adrift bigint, rows_changed bigint, rows_deferred bigint, rows_failed bigint, core_units numeric, gpus numeric, seconds double precision, problems text[])
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
DECLARE
    v_started timestamptz := clock_timestamp();
    v_deadline timestamptz;
    v_finding retally.finding;
    v_done record;
BEGIN
    PERFORM retally.hold_scope(f.show_id, p_wait)
    FROM unnest(p_findings) AS f
    GROUP BY f.show_id;

    FOR v_finding IN
        SELECT f.*
        FROM unnest(p_findings) AS f
        ORDER BY f.show_id, array_position(retally.totals(), f.total)
    LOOP
        SELECT d.*
        INTO v_done
        FROM retally.mend_rows(
            v_finding.show_id, v_finding.total, v_finding.keys, p_wait, v_deadline
        ) AS d;
        v_deadline := v_done.deadline;
        show_id := v_finding.show_id;
        total := v_finding.total;
        rows_adrift := v_finding.rows_adrift;
        rows_changed := v_done.rows_changed;
        rows_deferred := cardinality(v_done.busy);
        rows_failed := v_finding.rows_failed + cardinality(v_done.problems);
        core_units := v_finding.core_units;
        gpus := v_finding.gpus;
        problems := v_finding.problems || v_done.problems;
        seconds := extract(EPOCH FROM clock_timestamp() - v_started);
        PERFORM retally.note_pass(
            show_id, total, seconds, rows_adrift, rows_changed, v_done.busy, rows_failed,
            core_units, gpus, problems
        );
        v_started := clock_timestamp();
        RETURN NEXT;
    END LOOP;
END
$$;

COMMENT ON FUNCTION retally.mend(p_findings retally.finding[], p_wait boolean) IS 'Lock, sum again, write: for what was found adrift in one show.';

CREATE FUNCTION retally.mend_in_one(p_findings retally.finding[], p_wait boolean, OUT rows_adrift bigint, OUT rows_changed bigint, OUT rows_deferred bigint, OUT rows_failed bigint, OUT core_units numeric, OUT gpus numeric, OUT problems text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_row record;
BEGIN
    SELECT 0, 0, 0, 0, 0, 0, '{}'
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems;
    FOR v_row IN SELECT m.* FROM retally.mend(p_findings, p_wait) AS m LOOP
        rows_adrift := rows_adrift + v_row.rows_adrift;
        rows_changed := rows_changed + v_row.rows_changed;
        rows_deferred := rows_deferred + v_row.rows_deferred;
        rows_failed := rows_failed + v_row.rows_failed;
        core_units := core_units + v_row.core_units;
        gpus := gpus + v_row.gpus;
        problems := problems || v_row.problems;
    END LOOP;
END
$$;

COMMENT ON FUNCTION retally.mend_in_one(p_findings retally.finding[], p_wait boolean, OUT rows_adrift bigint, OUT rows_changed bigint, OUT rows_deferred bigint, OUT rows_failed bigint, OUT core_units numeric, OUT gpus numeric, OUT problems text[]) IS 'What mend() says of its findings, added up to one row.';

CREATE FUNCTION retally.mend_rows(p_show_id text, p_total text, p_keys text[], p_wait boolean, INOUT deadline timestamp with time zone, OUT rows_changed bigint, OUT busy text[], OUT problems text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_patient text[] := p_keys;
    v_begun timestamptz := clock_timestamp();
    v_held text[];
    v_answer text;
    v_key text;
BEGIN
    rows_changed := 0;
    busy := '{}';
    problems := '{}';
    IF cardinality(p_keys) = 0 THEN
        RETURN;
    END IF;

    IF NOT p_wait THEN
        v_patient := ARRAY(
            SELECT d.key
            FROM retally.deferred AS d
            CROSS JOIN retally.setting AS s
            WHERE
                d.scope = p_show_id
                AND d.total = p_total
                AND d.passes >= s.wait_after_passes
        );
    END IF;
    SELECT h.held, h.busy
    INTO v_held, busy
    FROM retally.hold_free_rows(
        p_show_id, p_total, p_keys, CASE WHEN deadline IS NULL THEN v_patient END
    ) AS h;
    IF cardinality(v_held) > 0 THEN
        -- whoever waits for one of these rows began to wait after this moment
        deadline := coalesce(deadline, v_begun + retally.lock_budget());
    END IF;

    FOREACH v_key IN ARRAY busy LOOP
        CONTINUE WHEN v_key <> ALL (v_patient);
        v_answer := retally.hold_row(
            p_show_id, p_total, v_key,
            -- with empty hands nobody waits for us; with a lock in hand all the waits that a row
            -- can cost have to fit
            CASE
                WHEN deadline IS NULL THEN retally.lock_budget()
                ELSE (deadline - clock_timestamp()) / 4
            END
        );
        IF v_answer = 'held' THEN
            v_held := v_held || v_key;
            deadline := coalesce(deadline, clock_timestamp() + retally.lock_budget());
        END IF;
        IF v_answer <> 'busy' THEN
            busy := array_remove(busy, v_key);
        END IF;
    END LOOP;

    -- all again: those that were let go of, and those held already, which costs nothing
    IF cardinality(v_held) < cardinality(p_keys) - cardinality(busy) THEN
        SELECT h.held, h.busy
        INTO v_held, busy
        FROM retally.hold_free_rows(p_show_id, p_total, p_keys, NULL) AS h;
        deadline := coalesce(deadline, clock_timestamp() + retally.lock_budget());
    END IF;

    IF cardinality(v_held) > 0 THEN
        SELECT
            count(*) FILTER (WHERE w.fits),
            coalesce(array_agg(retally.problem('misfit', p_total, w.key, NULL, NULL))
            FILTER (WHERE NOT w.fits), '{}')
        INTO rows_changed, problems
        FROM retally.write_rows(p_show_id, p_total, v_held) AS w;
    END IF;
END
$$;

COMMENT ON FUNCTION retally.mend_rows(p_show_id text, p_total text, p_keys text[], p_wait boolean, INOUT deadline timestamp with time zone, OUT rows_changed bigint, OUT busy text[], OUT problems text[]) IS 'Lock, sum again, write: for rows of one total of a show.';

CREATE FUNCTION retally.named_drift(p_show_ids text[], p_totals text[]) RETURNS TABLE(show_name text, total text, name text, key text, slot text, stored numeric, booked numeric)
    LANGUAGE plpgsql STABLE
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
BEGIN
    RETURN QUERY
    WITH drift AS MATERIALIZED (
        SELECT * FROM retally.drift_in(p_show_ids, p_totals)
    )

    SELECT
        s.str_name::text,
        d.total,
        coalesce(
            a.str_name::text, k.str_name || '/' || l.str_name, j.str_name::text,
            f.str_name::text, t.str_name::text, d.key
        ),
        d.key,
        d.slot,
        d.stored,
        d.booked
    FROM drift AS d
    INNER JOIN public.show AS s ON d.show_id = s.pk_show::text
    LEFT JOIN public.alloc AS a ON d.total = 'subscription' AND d.key = a.pk_alloc::text
    LEFT JOIN public.layer AS l ON d.total = 'layer' AND d.key = l.pk_layer::text
    LEFT JOIN public.job AS k ON l.pk_job = k.pk_job
    LEFT JOIN public.job AS j ON d.total = 'job' AND d.key = j.pk_job::text
    LEFT JOIN public.folder AS f ON d.total = 'folder' AND d.key = f.pk_folder::text
    LEFT JOIN public.dept AS t ON d.total = 'point' AND d.key = t.pk_dept::text
    ORDER BY
        s.str_name, d.show_id, array_position(retally.totals(), d.total), d.key, d.slot;
END
$$;

COMMENT ON FUNCTION retally.named_drift(p_show_ids text[], p_totals text[]) IS 'drift_in() with the names that people know the shows and rows by.';

CREATE FUNCTION retally.nearest_names(p_wanted text, p_names text[]) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    WITH pairs AS (
        SELECT DISTINCT
            n.name,
            substr(' ' || lower(n.name) || ' ', g.i, 2) AS pair
        FROM unnest(p_names || p_wanted) AS n (name)
        CROSS JOIN LATERAL generate_series(1, length(n.name) + 1) AS g (i)
    ),

    sizes AS (
        SELECT
            p.name,
            count(*) AS pairs
        FROM pairs AS p
        GROUP BY p.name
    ),

    likeness AS (
        SELECT
            s.name,
            2.0 * (
                SELECT count(*)
                FROM pairs AS a
                INNER JOIN pairs AS b ON a.pair = b.pair AND b.name = p_wanted
                WHERE a.name = s.name
            ) / (s.pairs + w.pairs) AS score
        FROM sizes AS s
        INNER JOIN sizes AS w ON w.name = p_wanted
        WHERE s.name <> p_wanted
    ),

    best AS (
        SELECT
            l.name,
            l.score
        FROM likeness AS l
        WHERE l.score >= 0.3
        ORDER BY l.score DESC, l.name COLLATE "C" ASC
        LIMIT 3
    )

    SELECT coalesce(array_agg(b.name ORDER BY b.score DESC, b.name COLLATE "C" ASC), '{}')
    FROM best AS b
$$;

COMMENT ON FUNCTION retally.nearest_names(p_wanted text, p_names text[]) IS 'The up to three names that look most like the wanted one.';

CREATE FUNCTION retally.note_pass(p_scope text, p_total text, p_seconds double precision, p_rows_adrift bigint, p_rows_changed bigint, p_busy text[], p_rows_failed bigint, p_core_units numeric, p_gpus numeric, p_problems text[]) RETURNS void
    LANGUAGE plpgsql
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

COMMENT ON FUNCTION retally.note_pass(p_scope text, p_total text, p_seconds double precision, p_rows_adrift bigint, p_rows_changed bigint, p_busy text[], p_rows_failed bigint, p_core_units numeric, p_gpus numeric, p_problems text[]) IS 'Keeps the result of a pass over one total, and the rows that it left.';

CREATE FUNCTION retally.orphans() RETURNS TABLE(proc_id text, show_id text, cores bigint, gpus bigint, reason text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        p.pk_proc::text,
        p.pk_show::text,
        p.int_cores_reserved::bigint,
        p.int_gpus_reserved::bigint,
        concat_ws(
            ', ',
            CASE WHEN s.pk_show IS NULL THEN 'no show ' || coalesce(p.pk_show::text, 'null') END,
            CASE WHEN j.pk_job IS NULL THEN 'no job ' || coalesce(p.pk_job::text, 'null') END,
            CASE WHEN l.pk_layer IS NULL THEN 'no layer ' || coalesce(p.pk_layer::text, 'null') END
        )
    FROM public.proc AS p
    LEFT JOIN public.show AS s ON p.pk_show = s.pk_show
    LEFT JOIN public.job AS j ON p.pk_job = j.pk_job
    LEFT JOIN public.layer AS l ON p.pk_layer = l.pk_layer
    WHERE s.pk_show IS NULL OR j.pk_job IS NULL OR l.pk_layer IS NULL
    ORDER BY p.pk_proc
$$;

COMMENT ON FUNCTION retally.orphans() IS 'The procs that name a show, job or layer that the farm does not know.';

CREATE FUNCTION retally.orphans_in(p_show_ids text[], p_total text, p_key text) RETURNS TABLE(show_id text, cores numeric, gpus numeric)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        p.pk_show::text,
        sum(p.int_cores_reserved),
        sum(p.int_gpus_reserved)
    FROM public.proc AS p
    WHERE
        p.pk_show::text = any(p_show_ids)
        AND CASE p_total WHEN 'layer' THEN p.pk_layer::text ELSE p.pk_job::text END
        IS NOT DISTINCT FROM p_key
    GROUP BY p.pk_show
$$;

COMMENT ON FUNCTION retally.orphans_in(p_show_ids text[], p_total text, p_key text) IS 'How much the procs of shows book for a layer or job that the farm does not know.';

CREATE FUNCTION retally.problem(p_kind text, p_total text, p_key text, p_cores numeric, p_gpus numeric) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        p_total || ' ' || retally.row_name(p_total, p_key)
        || CASE WHEN p_key <> retally.row_name(p_total, p_key) THEN ' (' || p_key || ')' ELSE '' END
        || CASE p_kind
            WHEN 'misfit' THEN ': the sum of its procs does not fit the column'
            WHEN 'missing'
                THEN
                    ': its row is missing, while procs hold ' || p_cores
                    || ' core units and ' || p_gpus || ' GPUs'
            ELSE
                ': the farm knows no such ' || p_total || ', while procs hold ' || p_cores
                || ' core units and ' || p_gpus || ' GPUs for it'
        END
$$;

COMMENT ON FUNCTION retally.problem(p_kind text, p_total text, p_key text, p_cores numeric, p_gpus numeric) IS 'What keeps a total from being exact, in a sentence that names the thing.';

CREATE FUNCTION retally.procs_of(p_show_ids text[], p_totals text[], p_keys text[]) RETURNS TABLE(own boolean, show_id text, host_id text, layer_id text, job_id text, local boolean, cores bigint, gpus bigint)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    WITH chosen AS (
        SELECT
            p.*,
            TRUE AS retally_own -- p.* has whatever columns the farm will have
        FROM public.proc AS p
        WHERE
            p.pk_show::text = any(p_show_ids)
            AND (p_keys IS NULL OR 'subscription' = any(p_totals))
        UNION ALL
        -- strays on the shows' layers
        SELECT
            p.*,
            FALSE
        FROM public.proc AS p
        WHERE
            p_keys IS NULL
            AND 'layer' = any(p_totals)
            AND (p.pk_show IS NULL OR p.pk_show::text <> all(p_show_ids))
            AND p.pk_layer IN (
                SELECT r.pk_layer
                FROM public.layer_resource AS r
                INNER JOIN public.job AS j ON r.pk_job = j.pk_job
                WHERE j.pk_show::text = any(p_show_ids)
            )
        UNION ALL
        -- strays on the shows' jobs, save those that the branch above has already brought
        SELECT
            p.*,
            FALSE
        FROM public.proc AS p
        WHERE
            p_keys IS NULL
            AND p_totals && ARRAY['job', 'folder', 'point']
            AND (p.pk_show IS NULL OR p.pk_show::text <> all(p_show_ids))
            AND p.pk_job IN (
                SELECT j.pk_job
                FROM public.job AS j
                INNER JOIN public.folder AS f ON j.pk_folder = f.pk_folder
                WHERE
                    j.pk_show::text = any(p_show_ids)
                    OR f.pk_show::text = any(p_show_ids)
            )
            AND NOT (
                'layer' = any(p_totals)
                AND EXISTS (
                    SELECT
                    FROM public.layer_resource AS r
                    INNER JOIN public.job AS j ON r.pk_job = j.pk_job
                    WHERE r.pk_layer = p.pk_layer AND j.pk_show::text = any(p_show_ids)
                )
            )
        UNION ALL
        SELECT
            p.*,
            FALSE
        FROM public.proc AS p
        WHERE
            p_totals = ARRAY['layer']
            AND p.pk_layer::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        UNION ALL
        SELECT
            p.*,
            FALSE
        FROM public.proc AS p
        WHERE
            p_totals = ARRAY['job']
            AND p.pk_job::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        UNION ALL
        SELECT
            p.*,
            FALSE
        FROM public.proc AS p
        WHERE
            p_totals = ARRAY['folder']
            AND p.pk_job IN (
                SELECT j.pk_job
                FROM public.job AS j
                WHERE j.pk_folder::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
            )
        UNION ALL
        SELECT
            p.*,
            FALSE
        FROM public.proc AS p
        WHERE
            p_totals = ARRAY['point']
            AND p.pk_job IN (
                SELECT j.pk_job
                FROM public.job AS j
                WHERE
                    j.pk_show::text = any(p_show_ids)
                    AND j.pk_dept::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
            )
    )

    SELECT
        c.retally_own,
        c.pk_show::text,
        c.pk_host::text,
        c.pk_layer::text,
        c.pk_job::text,
        c.b_local::boolean,
        c.int_cores_reserved::bigint,
        c.int_gpus_reserved::bigint
    FROM chosen AS c
$$;

COMMENT ON FUNCTION retally.procs_of(p_show_ids text[], p_totals text[], p_keys text[]) IS 'The procs that can bear on these totals of these shows.';

CREATE PROCEDURE retally.recompute_all(IN p_wait boolean DEFAULT true, IN p_unmanaged_too boolean DEFAULT false, INOUT shows bigint DEFAULT NULL::bigint, INOUT shows_failed bigint DEFAULT NULL::bigint, INOUT rows_adrift bigint DEFAULT NULL::bigint, INOUT rows_changed bigint DEFAULT NULL::bigint, INOUT rows_deferred bigint DEFAULT NULL::bigint, INOUT rows_failed bigint DEFAULT NULL::bigint, INOUT core_units numeric DEFAULT NULL::numeric, INOUT gpus numeric DEFAULT NULL::numeric, INOUT problems text[] DEFAULT NULL::text[])
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_ids text[];
    v_id text;
    v_findings retally.finding[];
    v_one record;
    v_failure text;
BEGIN
    SELECT 0, 0, 0, 0, 0, 0, 0, 0, '{}'
    INTO
        shows, shows_failed, rows_adrift, rows_changed, rows_deferred, rows_failed, core_units,
        gpus, problems;
    SELECT coalesce(array_agg(s.show_id ORDER BY s.name, s.show_id), '{}')
    INTO v_ids
    FROM retally.shows() AS s
    WHERE s.rebuilt OR p_unmanaged_too;
    v_findings := ARRAY(SELECT f FROM retally.findings(v_ids, retally.totals()) AS f);

    FOREACH v_id IN ARRAY v_ids LOOP
        BEGIN
            SELECT m.*
            INTO v_one
            FROM retally.mend_in_one(
                ARRAY(SELECT f FROM unnest(v_findings) AS f WHERE f.show_id = v_id), p_wait
            ) AS m;
            shows := shows + 1;
            rows_adrift := rows_adrift + v_one.rows_adrift;
            rows_changed := rows_changed + v_one.rows_changed;
            rows_deferred := rows_deferred + v_one.rows_deferred;
            rows_failed := rows_failed + v_one.rows_failed;
            core_units := core_units + v_one.core_units;
            gpus := gpus + v_one.gpus;
            problems := problems || v_one.problems;
        EXCEPTION
            WHEN OTHERS THEN
                -- kept with its SQLSTATE; the next show must not suffer for this one
                v_failure := format('show %s: %s (SQLSTATE %s)', v_id, sqlerrm, sqlstate);
                RAISE WARNING '%', v_failure;
                shows_failed := shows_failed + 1;
                problems := problems || v_failure;
        END;
        COMMIT;
    END LOOP;
END
$$;

COMMENT ON PROCEDURE retally.recompute_all(IN p_wait boolean, IN p_unmanaged_too boolean, INOUT shows bigint, INOUT shows_failed bigint, INOUT rows_adrift bigint, INOUT rows_changed bigint, INOUT rows_deferred bigint, INOUT rows_failed bigint, INOUT core_units numeric, INOUT gpus numeric, INOUT problems text[]) IS 'Rebuilds the totals of every show that the ticks serve, one transaction per show.';

CREATE PROCEDURE retally.recompute_folder(IN p_show text, IN p_wait boolean DEFAULT true, INOUT rows_adrift bigint DEFAULT NULL::bigint, INOUT rows_changed bigint DEFAULT NULL::bigint, INOUT rows_deferred bigint DEFAULT NULL::bigint, INOUT rows_failed bigint DEFAULT NULL::bigint, INOUT core_units numeric DEFAULT NULL::numeric, INOUT gpus numeric DEFAULT NULL::numeric, INOUT problems text[] DEFAULT NULL::text[])
    LANGUAGE plpgsql
    AS $$
BEGIN
    SELECT s.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.recompute_in_one(p_show, ARRAY['folder'], p_wait) AS s;
END
$$;

COMMENT ON PROCEDURE retally.recompute_folder(IN p_show text, IN p_wait boolean, INOUT rows_adrift bigint, INOUT rows_changed bigint, INOUT rows_deferred bigint, INOUT rows_failed bigint, INOUT core_units numeric, INOUT gpus numeric, INOUT problems text[]) IS 'Rebuilds the folder totals of a show from its procs.';

CREATE FUNCTION retally.recompute_in_one(p_show text, p_totals text[], p_wait boolean, OUT rows_adrift bigint, OUT rows_changed bigint, OUT rows_deferred bigint, OUT rows_failed bigint, OUT core_units numeric, OUT gpus numeric, OUT problems text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
BEGIN
    -- before the findings, so that of two recomputes of a show the second finds nothing left
    PERFORM retally.hold_scope(v_show_id, p_wait);
    SELECT m.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.mend_in_one(
        ARRAY(SELECT f FROM retally.findings(ARRAY[v_show_id], p_totals) AS f), p_wait
    ) AS m;
END
$$;

COMMENT ON FUNCTION retally.recompute_in_one(p_show text, p_totals text[], p_wait boolean, OUT rows_adrift bigint, OUT rows_changed bigint, OUT rows_deferred bigint, OUT rows_failed bigint, OUT core_units numeric, OUT gpus numeric, OUT problems text[]) IS 'Rebuilds these totals of a show from its procs.';

CREATE PROCEDURE retally.recompute_job(IN p_show text, IN p_wait boolean DEFAULT true, INOUT rows_adrift bigint DEFAULT NULL::bigint, INOUT rows_changed bigint DEFAULT NULL::bigint, INOUT rows_deferred bigint DEFAULT NULL::bigint, INOUT rows_failed bigint DEFAULT NULL::bigint, INOUT core_units numeric DEFAULT NULL::numeric, INOUT gpus numeric DEFAULT NULL::numeric, INOUT problems text[] DEFAULT NULL::text[])
    LANGUAGE plpgsql
    AS $$
BEGIN
    SELECT s.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.recompute_in_one(p_show, ARRAY['job'], p_wait) AS s;
END
$$;

COMMENT ON PROCEDURE retally.recompute_job(IN p_show text, IN p_wait boolean, INOUT rows_adrift bigint, INOUT rows_changed bigint, INOUT rows_deferred bigint, INOUT rows_failed bigint, INOUT core_units numeric, INOUT gpus numeric, INOUT problems text[]) IS 'Rebuilds the job totals of a show from its procs.';

CREATE PROCEDURE retally.recompute_layer(IN p_show text, IN p_wait boolean DEFAULT true, INOUT rows_adrift bigint DEFAULT NULL::bigint, INOUT rows_changed bigint DEFAULT NULL::bigint, INOUT rows_deferred bigint DEFAULT NULL::bigint, INOUT rows_failed bigint DEFAULT NULL::bigint, INOUT core_units numeric DEFAULT NULL::numeric, INOUT gpus numeric DEFAULT NULL::numeric, INOUT problems text[] DEFAULT NULL::text[])
    LANGUAGE plpgsql
    AS $$
BEGIN
    SELECT s.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.recompute_in_one(p_show, ARRAY['layer'], p_wait) AS s;
END
$$;

COMMENT ON PROCEDURE retally.recompute_layer(IN p_show text, IN p_wait boolean, INOUT rows_adrift bigint, INOUT rows_changed bigint, INOUT rows_deferred bigint, INOUT rows_failed bigint, INOUT core_units numeric, INOUT gpus numeric, INOUT problems text[]) IS 'Rebuilds the layer totals of a show from its procs.';

CREATE PROCEDURE retally.recompute_point(IN p_show text, IN p_wait boolean DEFAULT true, INOUT rows_adrift bigint DEFAULT NULL::bigint, INOUT rows_changed bigint DEFAULT NULL::bigint, INOUT rows_deferred bigint DEFAULT NULL::bigint, INOUT rows_failed bigint DEFAULT NULL::bigint, INOUT core_units numeric DEFAULT NULL::numeric, INOUT gpus numeric DEFAULT NULL::numeric, INOUT problems text[] DEFAULT NULL::text[])
    LANGUAGE plpgsql
    AS $$
BEGIN
    SELECT s.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.recompute_in_one(p_show, ARRAY['point'], p_wait) AS s;
END
$$;

COMMENT ON PROCEDURE retally.recompute_point(IN p_show text, IN p_wait boolean, INOUT rows_adrift bigint, INOUT rows_changed bigint, INOUT rows_deferred bigint, INOUT rows_failed bigint, INOUT core_units numeric, INOUT gpus numeric, INOUT problems text[]) IS 'Rebuilds the point totals of a show from its procs.';

CREATE PROCEDURE retally.recompute_show(IN p_show text, IN p_wait boolean DEFAULT true, INOUT rows_adrift bigint DEFAULT NULL::bigint, INOUT rows_changed bigint DEFAULT NULL::bigint, INOUT rows_deferred bigint DEFAULT NULL::bigint, INOUT rows_failed bigint DEFAULT NULL::bigint, INOUT core_units numeric DEFAULT NULL::numeric, INOUT gpus numeric DEFAULT NULL::numeric, INOUT problems text[] DEFAULT NULL::text[])
    LANGUAGE plpgsql
    AS $$
BEGIN
    SELECT s.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.recompute_in_one(p_show, retally.totals(), p_wait) AS s;
END
$$;

COMMENT ON PROCEDURE retally.recompute_show(IN p_show text, IN p_wait boolean, INOUT rows_adrift bigint, INOUT rows_changed bigint, INOUT rows_deferred bigint, INOUT rows_failed bigint, INOUT core_units numeric, INOUT gpus numeric, INOUT problems text[]) IS 'Rebuilds all five totals of a show from its procs.';

CREATE PROCEDURE retally.recompute_subscription(IN p_show text, IN p_wait boolean DEFAULT true, INOUT rows_adrift bigint DEFAULT NULL::bigint, INOUT rows_changed bigint DEFAULT NULL::bigint, INOUT rows_deferred bigint DEFAULT NULL::bigint, INOUT rows_failed bigint DEFAULT NULL::bigint, INOUT core_units numeric DEFAULT NULL::numeric, INOUT gpus numeric DEFAULT NULL::numeric, INOUT problems text[] DEFAULT NULL::text[])
    LANGUAGE plpgsql
    AS $$
BEGIN
    SELECT s.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.recompute_in_one(p_show, ARRAY['subscription'], p_wait) AS s;
END
$$;

COMMENT ON PROCEDURE retally.recompute_subscription(IN p_show text, IN p_wait boolean, INOUT rows_adrift bigint, INOUT rows_changed bigint, INOUT rows_deferred bigint, INOUT rows_failed bigint, INOUT core_units numeric, INOUT gpus numeric, INOUT problems text[]) IS 'Rebuilds the subscription totals of a show from its procs.';

CREATE FUNCTION retally.row_name(p_total text, p_key text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT coalesce(CASE p_total
        WHEN 'subscription'
            THEN (
                SELECT a.str_name::text
                FROM public.alloc AS a
                WHERE a.pk_alloc::text = p_key
            )
        WHEN 'layer'
            THEN (
                SELECT j.str_name || '/' || l.str_name
                FROM public.layer AS l
                INNER JOIN public.job AS j ON l.pk_job = j.pk_job
                WHERE l.pk_layer::text = p_key
            )
        WHEN 'job'
            THEN (
                SELECT j.str_name::text
                FROM public.job AS j
                WHERE j.pk_job::text = p_key
            )
        WHEN 'folder'
            THEN (
                SELECT f.str_name::text
                FROM public.folder AS f
                WHERE f.pk_folder::text = p_key
            )
        WHEN 'point' THEN (
            SELECT d.str_name::text
            FROM public.dept AS d
            WHERE d.pk_dept::text = p_key
        )
    END, p_key, 'none')
$$;

COMMENT ON FUNCTION retally.row_name(p_total text, p_key text) IS 'What a person calls the row of this total and key.';

CREATE FUNCTION retally.set_lock_timeout(p_limit interval) RETURNS text
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_before text := current_setting('lock_timeout');
    v_before_ms numeric := 1000 * extract(EPOCH FROM v_before::interval);
    v_limit_ms numeric := greatest(1, round(1000 * extract(EPOCH FROM p_limit)));
BEGIN
    IF v_before_ms = 0 OR v_before_ms > v_limit_ms THEN
        PERFORM set_config('lock_timeout', v_limit_ms::text, TRUE);
    END IF;
    RETURN v_before;
END
$$;

COMMENT ON FUNCTION retally.set_lock_timeout(p_limit interval) IS 'Bounds the lock waits of this transaction; returns the former lock_timeout.';

CREATE PROCEDURE retally.set_managed(IN p_show text, IN p_managed boolean)
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
    v_busy bigint;
BEGIN
    PERFORM retally.hold_scope(v_show_id, TRUE);
    IF p_managed THEN
        INSERT INTO retally.managed_scope (scope) VALUES (v_show_id)
        ON CONFLICT (scope) DO NOTHING;
    ELSE
        DELETE FROM retally.managed_scope AS m
        WHERE m.scope = v_show_id;
    END IF;
    SELECT r.rows_deferred
    INTO v_busy
    FROM retally.recompute_in_one(v_show_id, retally.totals(), TRUE) AS r;
    IF v_busy > 0 THEN
        RAISE EXCEPTION 'show "%" stays as it is: % of its totals are locked by others',
            p_show, v_busy
            USING ERRCODE = 'RT006', HINT = 'Try again in a moment.';
    END IF;
END
$$;

COMMENT ON PROCEDURE retally.set_managed(IN p_show text, IN p_managed boolean) IS 'Sets retally''s own flag of a show and rebuilds its totals in the same transaction.';

CREATE FUNCTION retally.show_id(p_show text) RETURNS text
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_ids text[];
    v_near text[];
BEGIN
    SELECT coalesce(array_agg(s.pk_show::text ORDER BY s.pk_show), '{}')
    INTO v_ids
    FROM public.show AS s
    WHERE s.pk_show::text = p_show OR s.str_name::text = p_show;

    IF cardinality(v_ids) = 1 THEN
        RETURN v_ids[1];
    ELSIF cardinality(v_ids) > 1 THEN
        RAISE EXCEPTION 'show "%" is ambiguous: %', p_show, array_to_string(v_ids, ', ')
            USING ERRCODE = 'RT002', HINT = 'Name it by one of these ids.';
    END IF;

    SELECT retally.nearest_names(coalesce(p_show, ''), array_agg(s.str_name::text))
    INTO v_near
    FROM public.show AS s;
    RAISE EXCEPTION 'there is no show "%"', p_show
        USING ERRCODE = 'RT001',
            HINT = CASE
                WHEN cardinality(v_near) > 0
                    THEN 'Did you mean ' || array_to_string(v_near, ' or ') || '?'
                ELSE 'SELECT * FROM retally.shows() lists them.'
            END;
END
$$;

COMMENT ON FUNCTION retally.show_id(p_show text) IS 'The id of the show with this id or name.';

CREATE FUNCTION retally.shows() RETURNS TABLE(show_id text, name text, managed boolean, farm_flag boolean, rebuilt boolean)
    LANGUAGE sql STABLE
    AS $$
    WITH flags AS (
        SELECT
            s.pk_show::text AS show_id,
            s.str_name::text AS show_name,
            m.scope IS NOT NULL AS managed,
            (to_jsonb(s) ->> 'b_scheduler_managed')::boolean AS farm_flag
        FROM public.show AS s
        LEFT JOIN retally.managed_scope AS m ON s.pk_show::text = m.scope
    )

    SELECT
        f.show_id,
        f.show_name,
        f.managed,
        f.farm_flag,
        f.managed OR (coalesce(f.farm_flag, FALSE) AND t.follow_farm_flag)
    FROM flags AS f
    CROSS JOIN retally.setting AS t
    ORDER BY f.show_name, f.show_id
$$;

COMMENT ON FUNCTION retally.shows() IS 'Every show, its flags, and whether the ticks rebuild its totals.';

CREATE FUNCTION retally.stored(p_show text) RETURNS TABLE(total text, key text, cores numeric, gpus numeric, local_cores numeric, local_gpus numeric)
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
BEGIN
    RETURN QUERY
    SELECT
        s.total,
        s.key,
        s.cores,
        s.gpus,
        s.local_cores,
        s.local_gpus
    FROM retally.stored_in(ARRAY[v_show_id], retally.totals()) AS s;
END
$$;

COMMENT ON FUNCTION retally.stored(p_show text) IS 'What the rows of the show''s totals hold.';

CREATE FUNCTION retally.stored_in(p_show_ids text[], p_totals text[]) RETURNS TABLE(show_id text, total text, key text, cores numeric, gpus numeric, local_cores numeric, local_gpus numeric)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        s.pk_show::text AS show_id,
        'subscription' AS total,
        s.pk_alloc::text AS key,
        s.int_cores::numeric AS cores,
        s.int_gpus::numeric AS gpus,
        NULL::numeric AS local_cores,
        NULL::numeric AS local_gpus
    FROM public.subscription AS s
    WHERE s.pk_show::text = any(p_show_ids) AND 'subscription' = any(p_totals)
    UNION ALL
    SELECT
        j.pk_show::text,
        'layer',
        r.pk_layer::text,
        r.int_cores::numeric,
        r.int_gpus::numeric,
        NULL,
        NULL
    FROM public.layer_resource AS r
    INNER JOIN public.job AS j ON r.pk_job = j.pk_job
    WHERE j.pk_show::text = any(p_show_ids) AND 'layer' = any(p_totals)
    UNION ALL
    SELECT
        j.pk_show::text,
        'job',
        r.pk_job::text,
        r.int_cores::numeric,
        r.int_gpus::numeric,
        r.int_local_cores::numeric,
        r.int_local_gpus::numeric
    FROM public.job_resource AS r
    INNER JOIN public.job AS j ON r.pk_job = j.pk_job
    WHERE j.pk_show::text = any(p_show_ids) AND 'job' = any(p_totals)
    UNION ALL
    SELECT
        f.pk_show::text,
        'folder',
        r.pk_folder::text,
        r.int_cores::numeric,
        r.int_gpus::numeric,
        NULL,
        NULL
    FROM public.folder_resource AS r
    INNER JOIN public.folder AS f ON r.pk_folder = f.pk_folder
    WHERE f.pk_show::text = any(p_show_ids) AND 'folder' = any(p_totals)
    UNION ALL
    SELECT
        t.pk_show::text,
        'point',
        t.pk_dept::text,
        t.int_cores::numeric,
        t.int_gpus::numeric,
        NULL,
        NULL
    FROM public.point AS t
    WHERE t.pk_show::text = any(p_show_ids) AND 'point' = any(p_totals)
$$;

COMMENT ON FUNCTION retally.stored_in(p_show_ids text[], p_totals text[]) IS 'What the rows of the shows'' totals hold, in the shape of booked_in().';

CREATE FUNCTION retally.sum_again(p_show_id text, p_total text, p_keys text[]) RETURNS TABLE(key text, cores numeric, gpus numeric, local_cores numeric, local_gpus numeric)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        k.key,
        coalesce(b.cores, 0),
        coalesce(b.gpus, 0),
        coalesce(b.local_cores, 0),
        coalesce(b.local_gpus, 0)
    FROM unnest(p_keys) AS k (key)
    LEFT JOIN retally.booked_in(ARRAY[p_show_id], ARRAY[p_total], p_keys) AS b ON k.key = b.key
$$;

COMMENT ON FUNCTION retally.sum_again(p_show_id text, p_total text, p_keys text[]) IS 'The second sum: what the procs say now of rows that this transaction has locked.';

CREATE FUNCTION retally.totals() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT ARRAY['subscription', 'layer', 'job', 'folder', 'point']
$$;

COMMENT ON FUNCTION retally.totals() IS 'The five totals, in the order of the booking path.';

CREATE FUNCTION retally.write_folder(p_show_id text, p_keys text[]) RETURNS TABLE(key text, fits boolean)
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('folder_resource', 'int_cores');
    v_max_gpus numeric := retally.column_limit('folder_resource', 'int_gpus');
BEGIN
    RETURN QUERY
    WITH again AS MATERIALIZED (
        SELECT
            a.*,
            abs(a.cores) <= v_max_cores AND abs(a.gpus) <= v_max_gpus AS fits
        FROM retally.sum_again(p_show_id, 'folder', p_keys) AS a
    ),

    written AS (
        UPDATE public.folder_resource AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus
        FROM again AS a
        WHERE
            r.pk_folder::text = a.key
            AND a.fits
            AND (r.int_cores <> a.cores OR r.int_gpus <> a.gpus)
        RETURNING a.key
    )

    SELECT
        w.key,
        TRUE
    FROM written AS w
    UNION ALL
    SELECT
        a.key,
        FALSE
    FROM again AS a
    WHERE NOT a.fits;
END
$$;

COMMENT ON FUNCTION retally.write_folder(p_show_id text, p_keys text[]) IS 'Sums locked folder totals again and writes those that are still different.';

CREATE FUNCTION retally.write_job(p_show_id text, p_keys text[]) RETURNS TABLE(key text, fits boolean)
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('job_resource', 'int_cores');
    v_max_gpus numeric := retally.column_limit('job_resource', 'int_gpus');
    v_max_local_cores numeric := retally.column_limit('job_resource', 'int_local_cores');
    v_max_local_gpus numeric := retally.column_limit('job_resource', 'int_local_gpus');
    v_written text[];
    v_misfits text[];
    v_over text[];
    v_core_caps numeric [];
    v_gpu_caps numeric [];
BEGIN
    WITH again AS MATERIALIZED (
        SELECT
            a.*,
            r.int_max_cores AS core_cap,
            r.int_max_gpus AS gpu_cap,
            (a.cores > r.int_cores OR a.gpus > r.int_gpus)
            AND (a.cores > r.int_max_cores OR a.gpus > r.int_max_gpus) AS over_cap,
            abs(a.cores) <= v_max_cores
            AND abs(a.gpus) <= v_max_gpus
            AND abs(a.local_cores) <= v_max_local_cores
            AND abs(a.local_gpus) <= v_max_local_gpus AS fits
        FROM retally.sum_again(p_show_id, 'job', p_keys) AS a
        INNER JOIN public.job_resource AS r ON a.key = r.pk_job::text
    ),

    written AS (
        UPDATE public.job_resource AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus,
            int_local_cores = a.local_cores,
            int_local_gpus = a.local_gpus,
            int_max_cores = a.core_cap - a.over_cap::integer,
            int_max_gpus = a.gpu_cap - a.over_cap::integer
        FROM again AS a
        WHERE
            r.pk_job::text = a.key
            AND a.fits
            AND (
                r.int_cores <> a.cores
                OR r.int_gpus <> a.gpus
                OR r.int_local_cores <> a.local_cores
                OR r.int_local_gpus <> a.local_gpus
            )
        RETURNING a.key, a.over_cap, a.core_cap, a.gpu_cap
    )

    SELECT
        (SELECT coalesce(array_agg(w.key), '{}') FROM written AS w),
        (SELECT array_agg(w.key ORDER BY w.key) FROM written AS w WHERE w.over_cap),
        (SELECT array_agg(w.core_cap ORDER BY w.key) FROM written AS w WHERE w.over_cap),
        (SELECT array_agg(w.gpu_cap ORDER BY w.key) FROM written AS w WHERE w.over_cap),
        (SELECT coalesce(array_agg(a.key), '{}') FROM again AS a WHERE NOT a.fits)
    INTO v_written, v_over, v_core_caps, v_gpu_caps, v_misfits;

    IF v_over IS NOT NULL THEN
        UPDATE public.job_resource AS r
        SET
            int_max_cores = o.core_cap,
            int_max_gpus = o.gpu_cap
        FROM unnest(v_over, v_core_caps, v_gpu_caps) AS o (key, core_cap, gpu_cap)
        WHERE r.pk_job::text = o.key;
    END IF;

    RETURN QUERY
    SELECT
        w.key,
        TRUE
    FROM unnest(v_written) AS w (key)
    UNION ALL
    SELECT
        m.key,
        FALSE
    FROM unnest(v_misfits) AS m (key);
END
$$;

COMMENT ON FUNCTION retally.write_job(p_show_id text, p_keys text[]) IS 'Sums locked job totals again and writes those that are still different.';

CREATE FUNCTION retally.write_layer(p_show_id text, p_keys text[]) RETURNS TABLE(key text, fits boolean)
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('layer_resource', 'int_cores');
    v_max_gpus numeric := retally.column_limit('layer_resource', 'int_gpus');
BEGIN
    RETURN QUERY
    WITH again AS MATERIALIZED (
        SELECT
            a.*,
            abs(a.cores) <= v_max_cores AND abs(a.gpus) <= v_max_gpus AS fits
        FROM retally.sum_again(p_show_id, 'layer', p_keys) AS a
    ),

    written AS (
        UPDATE public.layer_resource AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus
        FROM again AS a
        WHERE
            r.pk_layer::text = a.key
            AND a.fits
            AND (r.int_cores <> a.cores OR r.int_gpus <> a.gpus)
        RETURNING a.key
    )

    SELECT
        w.key,
        TRUE
    FROM written AS w
    UNION ALL
    SELECT
        a.key,
        FALSE
    FROM again AS a
    WHERE NOT a.fits;
END
$$;

COMMENT ON FUNCTION retally.write_layer(p_show_id text, p_keys text[]) IS 'Sums locked layer totals again and writes those that are still different.';

CREATE FUNCTION retally.write_point(p_show_id text, p_keys text[]) RETURNS TABLE(key text, fits boolean)
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('point', 'int_cores');
    v_max_gpus numeric := retally.column_limit('point', 'int_gpus');
BEGIN
    RETURN QUERY
    WITH again AS MATERIALIZED (
        SELECT
            a.*,
            abs(a.cores) <= v_max_cores AND abs(a.gpus) <= v_max_gpus AS fits
        FROM retally.sum_again(p_show_id, 'point', p_keys) AS a
    ),

    written AS (
        UPDATE public.point AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus
        FROM again AS a
        WHERE
            r.pk_show::text = p_show_id
            AND r.pk_dept::text = a.key
            AND a.fits
            AND (r.int_cores <> a.cores OR r.int_gpus <> a.gpus)
        RETURNING a.key
    )

    SELECT
        w.key,
        TRUE
    FROM written AS w
    UNION ALL
    SELECT
        a.key,
        FALSE
    FROM again AS a
    WHERE NOT a.fits;
END
$$;

COMMENT ON FUNCTION retally.write_point(p_show_id text, p_keys text[]) IS 'Sums locked point totals again and writes those that are still different.';

CREATE FUNCTION retally.write_rows(p_show_id text, p_total text, p_keys text[]) RETURNS TABLE(key text, fits boolean)
    LANGUAGE plpgsql
    AS $$
BEGIN
    CASE p_total
        WHEN 'subscription' THEN
            RETURN QUERY SELECT * FROM retally.write_subscription(p_show_id, p_keys);
        WHEN 'layer' THEN
            RETURN QUERY SELECT * FROM retally.write_layer(p_show_id, p_keys);
        WHEN 'job' THEN
            RETURN QUERY SELECT * FROM retally.write_job(p_show_id, p_keys);
        WHEN 'folder' THEN
            RETURN QUERY SELECT * FROM retally.write_folder(p_show_id, p_keys);
        WHEN 'point' THEN
            RETURN QUERY SELECT * FROM retally.write_point(p_show_id, p_keys);
    END CASE;
END
$$;

COMMENT ON FUNCTION retally.write_rows(p_show_id text, p_total text, p_keys text[]) IS 'Writes locked rows of one total of a show, by the total''s name.';

CREATE FUNCTION retally.write_subscription(p_show_id text, p_keys text[]) RETURNS TABLE(key text, fits boolean)
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('subscription', 'int_cores');
    v_max_gpus numeric := retally.column_limit('subscription', 'int_gpus');
    v_written text[];
    v_misfits text[];
    v_over text[];
    v_bursts numeric [];
BEGIN
    WITH again AS MATERIALIZED (
        SELECT
            a.*,
            r.int_burst AS burst,
            a.cores > r.int_cores AND a.cores > r.int_burst AS over_burst,
            abs(a.cores) <= v_max_cores AND abs(a.gpus) <= v_max_gpus AS fits
        FROM retally.sum_again(p_show_id, 'subscription', p_keys) AS a
        INNER JOIN public.subscription AS r
            ON a.key = r.pk_alloc::text AND r.pk_show::text = p_show_id
    ),

    written AS (
        UPDATE public.subscription AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus,
            int_burst = a.burst - a.over_burst::integer
        FROM again AS a
        WHERE
            r.pk_show::text = p_show_id
            AND r.pk_alloc::text = a.key
            AND a.fits
            AND (r.int_cores <> a.cores OR r.int_gpus <> a.gpus)
        RETURNING a.key, a.over_burst, a.burst
    )

    SELECT
        (SELECT coalesce(array_agg(w.key), '{}') FROM written AS w),
        (SELECT array_agg(w.key ORDER BY w.key) FROM written AS w WHERE w.over_burst),
        (SELECT array_agg(w.burst ORDER BY w.key) FROM written AS w WHERE w.over_burst),
        (SELECT coalesce(array_agg(a.key), '{}') FROM again AS a WHERE NOT a.fits)
    INTO v_written, v_over, v_bursts, v_misfits;

    IF v_over IS NOT NULL THEN
        UPDATE public.subscription AS r
        SET int_burst = o.burst
        FROM unnest(v_over, v_bursts) AS o (key, burst)
        WHERE r.pk_show::text = p_show_id AND r.pk_alloc::text = o.key;
    END IF;

    RETURN QUERY
    SELECT
        w.key,
        TRUE
    FROM unnest(v_written) AS w (key)
    UNION ALL
    SELECT
        m.key,
        FALSE
    FROM unnest(v_misfits) AS m (key);
END
$$;

COMMENT ON FUNCTION retally.write_subscription(p_show_id text, p_keys text[]) IS 'Sums locked subscription totals again and writes those that are still different.';

CREATE UNLOGGED TABLE retally.deferred (
    scope text NOT NULL,
    total text NOT NULL,
    key text NOT NULL,
    passes integer NOT NULL,
    since timestamp with time zone NOT NULL
);

COMMENT ON TABLE retally.deferred IS 'Rows that the latest passes left because they were locked, and how many passes running.';

CREATE UNLOGGED TABLE retally.due (
    tick text NOT NULL,
    scope text NOT NULL,
    due_at timestamp with time zone NOT NULL,
    claimed_by text NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE retally.due IS 'When each scope is due again in each tick. Claiming a scope moves its due time on.';

CREATE TABLE retally.managed_scope (
    scope text NOT NULL,
    managed_since timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    managed_by text DEFAULT CURRENT_USER NOT NULL
);

COMMENT ON TABLE retally.managed_scope IS 'The feature flag: a row for each scope whose bookings through retally write no total.';

CREATE TABLE retally.migration (
    version integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

COMMENT ON TABLE retally.migration IS 'The migrations of retally''s own tables that were applied.';

CREATE UNLOGGED TABLE retally.pass (
    scope text NOT NULL,
    total text NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    seconds double precision NOT NULL,
    rows_adrift bigint NOT NULL,
    rows_changed bigint NOT NULL,
    rows_deferred bigint NOT NULL,
    rows_failed bigint NOT NULL,
    core_units_adrift numeric NOT NULL,
    gpus_adrift numeric NOT NULL,
    problems text[] NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE retally.pass IS 'The latest pass over each total of each scope. Unlogged: a tick should cost no WAL.';

CREATE TABLE retally.setting (
    only_row boolean DEFAULT true NOT NULL,
    follow_farm_flag boolean DEFAULT true NOT NULL,
    wait_after_passes integer DEFAULT 3 NOT NULL,
    CONSTRAINT setting_has_one_row CHECK (only_row),
    CONSTRAINT setting_wait_after_passes_is_positive CHECK ((wait_after_passes > 0))
);

COMMENT ON TABLE retally.setting IS 'What holds for the whole farm; one row, changed by UPDATE.';

COMMENT ON COLUMN retally.setting.follow_farm_flag IS 'Ticks also rebuild the shows that the farm itself flags (show.b_scheduler_managed).';

COMMENT ON COLUMN retally.setting.wait_after_passes IS 'A row that was busy in this many passes running is waited for by the next one.';

ALTER TABLE ONLY retally.deferred
    ADD CONSTRAINT deferred_pk PRIMARY KEY (scope, total, key);

ALTER TABLE ONLY retally.due
    ADD CONSTRAINT due_pk PRIMARY KEY (tick, scope);

ALTER TABLE ONLY retally.managed_scope
    ADD CONSTRAINT managed_scope_pk PRIMARY KEY (scope);

ALTER TABLE ONLY retally.migration
    ADD CONSTRAINT migration_pk PRIMARY KEY (version);

ALTER TABLE ONLY retally.pass
    ADD CONSTRAINT pass_pk PRIMARY KEY (scope, total);

ALTER TABLE ONLY retally.setting
    ADD CONSTRAINT setting_pk PRIMARY KEY (only_row);
