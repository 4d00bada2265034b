CREATE SCHEMA retally;

COMMENT ON SCHEMA retally IS 'retally: exact resource totals; dropped by `retally uninstall`.';

CREATE TYPE retally.amount AS (
	key text,
	cores numeric,
	gpus numeric,
	local_cores numeric,
	local_gpus numeric
);

COMMENT ON TYPE retally.amount IS 'What a row of a total holds, or is to hold; cores in core units, local slots null where none.';

CREATE TYPE retally.booking AS (
	nr integer,
	proc text,
	show text,
	alloc text,
	host text,
	job text,
	layer text,
	frame text,
	cores bigint,
	mem_kb bigint,
	gpus bigint,
	gpu_mem_kb bigint,
	local boolean
);

COMMENT ON TYPE retally.booking IS 'A proc that a batch books or releases: nr is its place in the batch, the others are ids and amounts; cores in core units.';

CREATE TYPE retally.change AS (
	total text,
	key text,
	slot text,
	before numeric,
	after numeric
);

COMMENT ON TYPE retally.change IS 'A slot of a total that was written, before and after.';

CREATE TYPE retally.comparison AS (
	show_id text,
	total text,
	key text,
	kind text,
	was_cores numeric,
	was_gpus numeric,
	was_local_cores numeric,
	was_local_gpus numeric,
	cores numeric,
	gpus numeric,
	local_cores numeric,
	local_gpus numeric
);

COMMENT ON TYPE retally.comparison IS 'What a row of a total holds (was_…, null: whatever that is) and what its procs say.';

CREATE TYPE retally.delta AS (
	scope text,
	total text,
	key text,
	cores numeric,
	gpus numeric,
	local_cores numeric,
	local_gpus numeric
);

COMMENT ON TYPE retally.delta IS 'What is to be added to a row of a total; cores in core units, local slots null where none.';

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

CREATE TYPE retally.seizure AS (
	scope text,
	total text,
	held text[],
	busy text[]
);

COMMENT ON TYPE retally.seizure IS 'Rows of a total of a scope, by key: those that a pass has locked, and those that others hold.';

CREATE FUNCTION retally.add_batch_to_totals(p_bookings retally.booking[], p_managed text[], p_sign integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    v_counted retally.booking[] := ARRAY(
        SELECT b FROM unnest(p_bookings) AS b
        WHERE NOT b.show = any(p_managed)
    );
    v_refused boolean;
BEGIN
    IF cardinality(v_counted) = 0 THEN
        RETURN;
    END IF;

    WITH asked AS (
        SELECT
            b.show,
            b.alloc,
            p_sign * sum(b.cores) AS cores,
            p_sign * sum(b.gpus) AS gpus
        FROM unnest(v_counted) AS b
        WHERE NOT b.local
        GROUP BY b.show, b.alloc
    ),

    done AS (
        UPDATE public.subscription AS s
        SET int_cores = s.int_cores + a.cores, int_gpus = s.int_gpus + a.gpus
        FROM asked AS a
        WHERE
            s.pk_show::text = a.show
            AND s.pk_alloc::text = a.alloc
            AND (p_sign < 0 OR s.int_cores + a.cores <= s.int_burst)
        RETURNING s.pk_subscription
    )

    SELECT p_sign > 0 AND (SELECT count(*) FROM asked) > (SELECT count(*) FROM done)
    INTO v_refused;
    PERFORM retally.refuse_with(
        CASE WHEN v_refused THEN 'RT012' END, 'a burst would be passed', 'Wait for a release.'
    );

    UPDATE public.layer_resource AS r
    SET int_cores = r.int_cores + a.cores, int_gpus = r.int_gpus + a.gpus
    FROM (
        SELECT
            b.layer,
            p_sign * sum(b.cores) AS cores,
            p_sign * sum(b.gpus) AS gpus
        FROM unnest(v_counted) AS b
        GROUP BY b.layer
    ) AS a
    WHERE r.pk_layer::text = a.layer;

    WITH asked AS (
        SELECT
            b.job,
            p_sign * coalesce(sum(b.cores) FILTER (WHERE NOT b.local), 0) AS cores,
            p_sign * coalesce(sum(b.gpus) FILTER (WHERE NOT b.local), 0) AS gpus,
            p_sign * coalesce(sum(b.cores) FILTER (WHERE b.local), 0) AS local_cores,
            p_sign * coalesce(sum(b.gpus) FILTER (WHERE b.local), 0) AS local_gpus
        FROM unnest(v_counted) AS b
        GROUP BY b.job
    ),

    done AS (
        UPDATE public.job_resource AS r
        SET
            int_cores = r.int_cores + a.cores,
            int_gpus = r.int_gpus + a.gpus,
            int_local_cores = r.int_local_cores + a.local_cores,
            int_local_gpus = r.int_local_gpus + a.local_gpus
        FROM asked AS a
        WHERE
            r.pk_job::text = a.job
            -- a maximum of -1 refuses everything, as the farm's own trigger does
            AND (
                a.cores <= 0
                OR (
                    r.int_cores + a.cores <= r.int_max_cores
                    AND r.int_gpus + a.gpus <= r.int_max_gpus
                )
            )
        RETURNING r.pk_job
    )

    SELECT EXISTS (
        SELECT
        FROM asked AS a
        INNER JOIN public.job_resource AS r ON a.job = r.pk_job::text
        WHERE a.job NOT IN (SELECT d.pk_job::text FROM done AS d)
    )
    INTO v_refused;
    PERFORM retally.refuse_with(
        CASE WHEN v_refused THEN 'RT012' END, 'a maximum would be passed', 'Wait for a release.'
    );

    UPDATE public.folder_resource AS r
    SET int_cores = r.int_cores + a.cores, int_gpus = r.int_gpus + a.gpus
    FROM (
        SELECT
            j.pk_folder::text AS folder,
            p_sign * sum(b.cores) AS cores,
            p_sign * sum(b.gpus) AS gpus
        FROM unnest(v_counted) AS b
        INNER JOIN public.job AS j ON b.job = j.pk_job::text
        WHERE NOT b.local
        GROUP BY j.pk_folder
    ) AS a
    WHERE r.pk_folder::text = a.folder;

    UPDATE public.point AS t
    SET int_cores = t.int_cores + a.cores, int_gpus = t.int_gpus + a.gpus
    FROM (
        SELECT
            j.pk_show::text AS show,
            j.pk_dept::text AS dept,
            p_sign * sum(b.cores) AS cores,
            p_sign * sum(b.gpus) AS gpus
        FROM unnest(v_counted) AS b
        INNER JOIN public.job AS j ON b.job = j.pk_job::text
        WHERE NOT b.local
        GROUP BY j.pk_show, j.pk_dept
    ) AS a
    WHERE t.pk_show::text = a.show AND t.pk_dept::text = a.dept;
END
$$;

COMMENT ON FUNCTION retally.add_batch_to_totals(p_bookings retally.booking[], p_managed text[], p_sign integer) IS 'What a batch adds to the totals of unmanaged shows, or takes away.';

CREATE FUNCTION retally.add_deltas(p_deltas retally.delta[]) RETURNS SETOF retally.delta
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_done record;
BEGIN
    WITH written AS (
        UPDATE public.subscription AS r
        SET
            int_cores = r.int_cores::numeric + d.cores,
            int_gpus = r.int_gpus::numeric + d.gpus,
            int_burst = r.int_burst
            - (d.cores > 0::numeric AND r.int_cores::numeric + d.cores > r.int_burst::numeric)::integer
        FROM unnest(p_deltas) AS d
        WHERE
            d.total = 'subscription'
            AND r.pk_show::text = d.scope
            AND r.pk_alloc::text = d.key
            AND abs(r.int_cores::numeric + d.cores)
            <= (SELECT retally.column_limit('subscription', 'int_cores'))
            AND abs(r.int_gpus::numeric + d.gpus)
            <= (SELECT retally.column_limit('subscription', 'int_gpus'))
        RETURNING d AS delta, d.cores > 0::numeric AND r.int_cores > r.int_burst AS over
    )

    SELECT
        array_agg(w.delta) AS written,
        array_agg(w.delta) FILTER (WHERE w.over) AS over
    INTO v_done
    FROM written AS w;
    UPDATE public.subscription AS r
    SET int_burst = r.int_burst + 1
    FROM unnest(v_done.over) AS o
    WHERE r.pk_show::text = o.scope AND r.pk_alloc::text = o.key;
    RETURN QUERY SELECT w.* FROM unnest(v_done.written) AS w;

    RETURN QUERY
    UPDATE public.layer_resource AS r
    SET
        int_cores = r.int_cores::numeric + d.cores,
        int_gpus = r.int_gpus::numeric + d.gpus
    FROM unnest(p_deltas) AS d
    WHERE
        d.total = 'layer'
        AND r.pk_layer::text = d.key
        AND abs(r.int_cores::numeric + d.cores)
        <= (SELECT retally.column_limit('layer_resource', 'int_cores'))
        AND abs(r.int_gpus::numeric + d.gpus)
        <= (SELECT retally.column_limit('layer_resource', 'int_gpus'))
    RETURNING d.*;

    WITH written AS (
        UPDATE public.job_resource AS r
        SET
            int_cores = r.int_cores::numeric + d.cores,
            int_gpus = r.int_gpus::numeric + d.gpus,
            int_local_cores = r.int_local_cores::numeric + d.local_cores,
            int_local_gpus = r.int_local_gpus::numeric + d.local_gpus,
            int_max_cores = r.int_max_cores - (
                (d.cores > 0::numeric OR d.gpus > 0::numeric)
                AND (
                    r.int_cores::numeric + d.cores > r.int_max_cores::numeric
                    OR r.int_gpus::numeric + d.gpus > r.int_max_gpus::numeric
                )
            )::integer,
            int_max_gpus = r.int_max_gpus - (
                (d.cores > 0::numeric OR d.gpus > 0::numeric)
                AND (
                    r.int_cores::numeric + d.cores > r.int_max_cores::numeric
                    OR r.int_gpus::numeric + d.gpus > r.int_max_gpus::numeric
                )
            )::integer
        FROM unnest(p_deltas) AS d
        WHERE
            d.total = 'job'
            AND r.pk_job::text = d.key
            AND abs(r.int_cores::numeric + d.cores)
            <= (SELECT retally.column_limit('job_resource', 'int_cores'))
            AND abs(r.int_gpus::numeric + d.gpus)
            <= (SELECT retally.column_limit('job_resource', 'int_gpus'))
            AND abs(r.int_local_cores::numeric + d.local_cores)
            <= (SELECT retally.column_limit('job_resource', 'int_local_cores'))
            AND abs(r.int_local_gpus::numeric + d.local_gpus)
            <= (SELECT retally.column_limit('job_resource', 'int_local_gpus'))
        RETURNING
            d AS delta,
            (d.cores > 0::numeric OR d.gpus > 0::numeric)
            AND (r.int_cores > r.int_max_cores OR r.int_gpus > r.int_max_gpus) AS over
    )

    SELECT
        array_agg(w.delta) AS written,
        array_agg(w.delta) FILTER (WHERE w.over) AS over
    INTO v_done
    FROM written AS w;
    UPDATE public.job_resource AS r
    SET
        int_max_cores = r.int_max_cores + 1,
        int_max_gpus = r.int_max_gpus + 1
    FROM unnest(v_done.over) AS o
    WHERE r.pk_job::text = o.key;
    RETURN QUERY SELECT w.* FROM unnest(v_done.written) AS w;

    RETURN QUERY
    UPDATE public.folder_resource AS r
    SET
        int_cores = r.int_cores::numeric + d.cores,
        int_gpus = r.int_gpus::numeric + d.gpus
    FROM unnest(p_deltas) AS d
    WHERE
        d.total = 'folder'
        AND r.pk_folder::text = d.key
        AND abs(r.int_cores::numeric + d.cores)
        <= (SELECT retally.column_limit('folder_resource', 'int_cores'))
        AND abs(r.int_gpus::numeric + d.gpus)
        <= (SELECT retally.column_limit('folder_resource', 'int_gpus'))
    RETURNING d.*;

    RETURN QUERY
    UPDATE public.point AS r
    SET
        int_cores = r.int_cores::numeric + d.cores,
        int_gpus = r.int_gpus::numeric + d.gpus
    FROM unnest(p_deltas) AS d
    WHERE
        d.total = 'point'
        AND r.pk_show::text = d.scope
        AND r.pk_dept::text = d.key
        AND abs(r.int_cores::numeric + d.cores)
        <= (SELECT retally.column_limit('point', 'int_cores'))
        AND abs(r.int_gpus::numeric + d.gpus)
        <= (SELECT retally.column_limit('point', 'int_gpus'))
    RETURNING d.*;
END
$$;

COMMENT ON FUNCTION retally.add_deltas(p_deltas retally.delta[]) IS 'Adds amounts to the totals.';

CREATE FUNCTION retally.add_to_totals(p_show text, p_alloc text, p_layer text, p_job text, p_cores bigint, p_gpus bigint, p_local boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    IF NOT p_local THEN
        UPDATE public.subscription AS s
        SET int_cores = s.int_cores + p_cores, int_gpus = s.int_gpus + p_gpus
        WHERE
            s.pk_show::text = p_show
            AND s.pk_alloc::text = p_alloc
            AND (p_cores <= 0 OR s.int_cores + p_cores <= s.int_burst);
        IF NOT FOUND AND p_cores > 0 THEN
            PERFORM retally.refuse_with(o.problem, o.message, o.hint)
            FROM retally.over_burst(p_show, p_alloc, p_cores) AS o;
        END IF;
    END IF;

    UPDATE public.layer_resource AS r
    SET int_cores = r.int_cores + p_cores, int_gpus = r.int_gpus + p_gpus
    WHERE r.pk_layer::text = p_layer;

    IF p_local THEN
        UPDATE public.job_resource AS r
        SET int_local_cores = r.int_local_cores + p_cores, int_local_gpus = r.int_local_gpus + p_gpus
        WHERE r.pk_job::text = p_job;
        RETURN;
    END IF;

    -- a maximum of -1 refuses everything, as the farm's own trigger does
    UPDATE public.job_resource AS r
    SET int_cores = r.int_cores + p_cores, int_gpus = r.int_gpus + p_gpus
    WHERE
        r.pk_job::text = p_job
        AND (
            p_cores <= 0
            OR (
                r.int_cores + p_cores <= r.int_max_cores
                AND r.int_gpus + p_gpus <= r.int_max_gpus
            )
        );
    IF NOT FOUND AND p_cores > 0 THEN
        PERFORM retally.refuse_with(o.problem, o.message, o.hint)
        FROM retally.over_job_max(p_job, p_cores, p_gpus) AS o;
    END IF;

    UPDATE public.folder_resource AS r
    SET int_cores = r.int_cores + p_cores, int_gpus = r.int_gpus + p_gpus
    WHERE
        r.pk_folder::text = (
            SELECT j.pk_folder::text FROM public.job AS j
            WHERE j.pk_job::text = p_job
        );

    UPDATE public.point AS t
    SET int_cores = t.int_cores + p_cores, int_gpus = t.int_gpus + p_gpus
    FROM public.job AS j
    WHERE
        j.pk_job::text = p_job
        AND t.pk_show::text = j.pk_show::text
        AND t.pk_dept::text = j.pk_dept::text;
END
$$;

COMMENT ON FUNCTION retally.add_to_totals(p_show text, p_alloc text, p_layer text, p_job text, p_cores bigint, p_gpus bigint, p_local boolean) IS 'What a booking adds to the totals of an unmanaged show, and a release takes away.';

CREATE FUNCTION retally.add_what_fits(p_deltas retally.delta[]) RETURNS SETOF retally.delta
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_added retally.delta[] := '{}';
    v_delta retally.delta;
BEGIN
    BEGIN
        v_added := ARRAY(SELECT a FROM retally.add_deltas(p_deltas) AS a);
        RETURN QUERY SELECT a.* FROM unnest(v_added) AS a;
        RETURN;
    EXCEPTION
        WHEN data_exception OR raise_exception OR integrity_constraint_violation THEN NULL;
    END;
    -- in the order of the booking path
    FOR v_delta IN
        SELECT d.*
        FROM unnest(p_deltas) AS d
        ORDER BY array_position(retally.totals(), d.total), d.scope, d.key
    LOOP
        BEGIN
            RETURN QUERY SELECT a.* FROM retally.add_deltas(ARRAY[v_delta]) AS a;
        EXCEPTION
            WHEN data_exception OR raise_exception OR integrity_constraint_violation THEN NULL;
        END;
    END LOOP;
END
$$;

COMMENT ON FUNCTION retally.add_what_fits(p_deltas retally.delta[]) IS 'Adds amounts to the totals, all that the farm takes.';

CREATE UNLOGGED TABLE retally.pass (
    scope text NOT NULL,
    tick text NOT NULL,
    total text NOT NULL,
    action text NOT NULL,
    worker text NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    seconds double precision NOT NULL,
    rows_adrift bigint NOT NULL,
    rows_changed bigint NOT NULL,
    rows_deferred bigint NOT NULL,
    rows_failed bigint NOT NULL,
    core_units_adrift numeric NOT NULL,
    gpus_adrift numeric NOT NULL,
    problems text[] NOT NULL,
    passes bigint NOT NULL,
    history_at timestamp with time zone NOT NULL,
    succeeded_at timestamp with time zone,
    CONSTRAINT pass_action_is_known CHECK ((action = ANY (ARRAY['rebuilt'::text, 'folded'::text, 'watched'::text, 'repaired'::text, 'refused'::text, 'failed'::text])))
)
WITH (fillfactor='50');

COMMENT ON TABLE retally.pass IS 'The latest pass over each total of each scope. Unlogged: a tick should cost no WAL.';

COMMENT ON COLUMN retally.pass.tick IS 'The tick, or by hand.';

COMMENT ON COLUMN retally.pass.action IS 'What became of what was found adrift: all but rebuilt, folded and repaired have left it as it is.';

COMMENT ON COLUMN retally.pass.passes IS 'How many passes there were.';

COMMENT ON COLUMN retally.pass.history_at IS 'When one of them last left a row in history.';

COMMENT ON COLUMN retally.pass.succeeded_at IS 'When a pass last did what it was to do; null: none has.';

CREATE FUNCTION retally.added_up(p_passes retally.pass[]) RETURNS TABLE(show_id text, rows_adrift bigint, rows_changed bigint, rows_deferred bigint, rows_failed bigint, core_units numeric, gpus numeric, problems text[])
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
    RETURN QUERY
    SELECT
        p.scope,
        sum(p.rows_adrift)::bigint,
        sum(p.rows_changed)::bigint,
        sum(p.rows_deferred)::bigint,
        sum(p.rows_failed)::bigint,
        sum(p.core_units_adrift),
        sum(p.gpus_adrift),
        ARRAY(
            SELECT e.problem
            FROM unnest(p_passes) AS o
            CROSS JOIN LATERAL unnest(o.problems) AS e (problem)
            WHERE o.scope = p.scope
        )
    FROM unnest(p_passes) WITH ORDINALITY AS p
    GROUP BY p.scope
    ORDER BY min(p.ordinality);
END
$$;

COMMENT ON FUNCTION retally.added_up(p_passes retally.pass[]) IS 'Passes added up to one row per show.';

CREATE FUNCTION retally.adrift(p_show_ids text[], p_totals text[]) RETURNS SETOF retally.comparison
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET random_page_cost TO '1.1'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
DECLARE
    v_read text[] := retally.read_for(p_show_ids);
    -- what is in a journal is no drift; most farms have none
    v_source text := CASE WHEN EXISTS (SELECT FROM retally.journal) THEN 'owed' ELSE 'procs' END;
BEGIN
    IF coalesce(cardinality(p_totals), 0) = 0 OR NOT p_totals <@ retally.totals() THEN
        RAISE EXCEPTION 'unknown total in {%}', array_to_string(coalesce(p_totals, '{}'), ', ')
            USING ERRCODE = 'RT004',
                HINT = 'The totals are ' || array_to_string(retally.totals(), ', ') || '.';
    END IF;
    IF cardinality(p_show_ids) = 0 THEN
        RETURN;
    END IF;

    RETURN QUERY
    SELECT c.*
    FROM retally.compared(v_read, p_totals, v_source) AS c
    WHERE c.show_id = ANY (p_show_ids);
END
$$;

COMMENT ON FUNCTION retally.adrift(p_show_ids text[], p_totals text[]) IS 'The rows that are adrift in these totals of these shows.';

CREATE FUNCTION retally.amounts_in(p_show_id text, p_total text, p_keys text[]) RETURNS SETOF retally.amount
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        s.key,
        s.cores,
        s.gpus,
        s.local_cores,
        s.local_gpus
    FROM retally.stored_in(ARRAY[p_show_id], ARRAY[p_total], TRUE) AS s
    WHERE s.key IN (SELECT k.key FROM unnest(p_keys) AS k (key))
$$;

COMMENT ON FUNCTION retally.amounts_in(p_show_id text, p_total text, p_keys text[]) IS 'What these rows of one total of a show hold.';

CREATE FUNCTION retally.asked_for(p_hosts text[], p_jobs text[], p_layers text[], p_frames text[], p_cores bigint[], p_mem_kb bigint[], p_gpus integer[], p_gpu_mem_kb bigint[], p_local boolean[]) RETURNS SETOF retally.booking
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM retally.require_lengths(
        ARRAY[
            cardinality(p_hosts), cardinality(p_jobs), cardinality(p_layers),
            cardinality(p_frames), cardinality(p_cores), cardinality(p_mem_kb)
        ],
        ARRAY[cardinality(p_gpus), cardinality(p_gpu_mem_kb), cardinality(p_local)]
    );
    RETURN QUERY
    SELECT
        e.nr::integer,
        gen_random_uuid()::text,
        CASE
            WHEN
                e.cores > 0 AND e.mem_kb >= 0 AND e.gpus >= 0 AND e.gpu_mem_kb >= 0
                AND e.local IS NOT NULL AND h.pk_host IS NOT NULL
                AND coalesce(f.pk_frame, l.pk_layer) IS NOT NULL
                THEN j.pk_show::text
        END,
        NULL::text,
        e.host,
        e.job,
        e.layer,
        e.frame,
        e.cores,
        e.mem_kb,
        e.gpus::bigint,
        e.gpu_mem_kb,
        e.local
    FROM (
        SELECT
            u.nr,
            u.host,
            u.job,
            u.layer,
            u.frame,
            u.cores,
            u.mem_kb,
            CASE WHEN p_gpus IS NULL THEN 0 ELSE u.gpus END AS gpus,
            CASE WHEN p_gpu_mem_kb IS NULL THEN 0 ELSE u.gpu_mem_kb END AS gpu_mem_kb,
            CASE WHEN p_local IS NULL THEN FALSE ELSE u.local END AS local
        FROM unnest(
            p_hosts, p_jobs, p_layers, p_frames, p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb, p_local
        ) WITH ORDINALITY AS u (
            host, job, layer, frame, cores, mem_kb, gpus, gpu_mem_kb, local, nr
        )
    ) AS e
    LEFT JOIN public.host AS h ON e.host = h.pk_host::text
    LEFT JOIN public.job AS j ON e.job = j.pk_job::text
    -- a frame's own row says whose it is; without one, the layer's does
    LEFT JOIN public.frame AS f
        ON
            e.frame = f.pk_frame::text
            AND e.layer = f.pk_layer::text
            AND e.job = f.pk_job::text
    LEFT JOIN public.layer AS l
        ON
            CASE WHEN e.frame IS NULL THEN e.layer END = l.pk_layer::text
            AND e.job = l.pk_job::text;
END
$$;

COMMENT ON FUNCTION retally.asked_for(p_hosts text[], p_jobs text[], p_layers text[], p_frames text[], p_cores bigint[], p_mem_kb bigint[], p_gpus integer[], p_gpu_mem_kb bigint[], p_local boolean[]) IS 'The entries of a batch as bookings.';

CREATE FUNCTION retally.book_proc(p_host text, p_job text, p_layer text, p_frame text, p_cores bigint, p_mem_kb bigint, p_gpus integer DEFAULT 0, p_gpu_mem_kb bigint DEFAULT 0, p_local boolean DEFAULT false, p_token bigint DEFAULT NULL::bigint, p_alloc text DEFAULT NULL::text, p_folder text DEFAULT NULL::text) RETURNS text
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_show text;
    v_folder text;
    v_pinned text;
    v_managed boolean;
    v_let_in boolean;
    v_proc text := gen_random_uuid()::text;
    v_alloc text;
BEGIN
    -- Looked up and locked as pin_flag() does it, in one statement: this is the path that counts.
    -- A frame's own row says whose it is; without one, the layer's does.
    IF p_frame IS NOT NULL THEN
        SELECT
            j.pk_show::text,
            j.pk_folder::text,
            pg_advisory_xact_lock_shared(retally.flag_lock(j.pk_show::text))::text
        INTO v_show, v_folder, v_pinned
        FROM public.frame AS f
        INNER JOIN public.job AS j ON f.pk_job::text = j.pk_job::text
        WHERE
            f.pk_frame::text = p_frame
            AND f.pk_layer::text = p_layer
            AND f.pk_job::text = p_job
            AND EXISTS (SELECT FROM public.host AS h WHERE h.pk_host::text = p_host);
    ELSE
        SELECT
            j.pk_show::text,
            j.pk_folder::text,
            pg_advisory_xact_lock_shared(retally.flag_lock(j.pk_show::text))::text
        INTO v_show, v_folder, v_pinned
        FROM public.layer AS l
        INNER JOIN public.job AS j ON l.pk_job::text = j.pk_job::text
        WHERE
            l.pk_layer::text = p_layer
            AND l.pk_job::text = p_job
            AND EXISTS (SELECT FROM public.host AS h WHERE h.pk_host::text = p_host);
    END IF;

    IF v_show IS NOT NULL AND p_cores > 0 AND p_mem_kb >= 0 AND p_gpus >= 0 AND p_gpu_mem_kb >= 0
        AND p_local IS NOT NULL
        AND current_setting('transaction_isolation') IN ('read committed', 'read uncommitted')
    THEN
        -- is_managed() in short
        SELECT
            f.managed,
            retally.lease_stands(l, p_token)
        INTO v_managed, v_let_in
        FROM (VALUES (v_show)) AS s (scope)
        LEFT JOIN retally.scope_flag AS f ON s.scope = f.scope
        LEFT JOIN retally.lease AS l ON s.scope = l.scope;
        IF v_managed IS NULL THEN
            v_managed := retally.is_managed(v_show);
        END IF;
        IF v_managed AND NOT v_let_in THEN
            PERFORM retally.refuse_with(u.problem, u.message, u.hint)
            FROM retally.unleased(v_show, p_token) AS u;
        ELSIF v_folder <> p_folder THEN
            PERFORM retally.refuse_with(m.problem, m.message, m.hint)
            FROM retally.moved(p_host, p_job) AS m;
        END IF;
        -- The proc first, as Cuebot does it: who waits for another booking of the same frame has
        -- no host in hand. One statement, so that the host is ours before the foreign key's check
        -- would share a lock on it with others. idle is read again when its row was waited for.
        -- No block with a handler: it would take a second transaction id for each booking.
        WITH new AS (
            INSERT INTO public.proc (
                pk_proc, pk_host, pk_show, pk_job, pk_layer, pk_frame, int_cores_reserved,
                int_mem_reserved, int_mem_pre_reserved, int_gpus_reserved, int_gpu_mem_reserved,
                int_gpu_mem_pre_reserved, b_local
            ) VALUES (
                v_proc, p_host, v_show, p_job, p_layer, p_frame, p_cores,
                p_mem_kb, p_mem_kb, p_gpus, p_gpu_mem_kb,
                p_gpu_mem_kb, p_local
            )
            ON CONFLICT DO NOTHING
            RETURNING pk_proc
        )

        UPDATE public.host AS h
        SET
            int_cores_idle = h.int_cores_idle - p_cores,
            int_mem_idle = h.int_mem_idle - p_mem_kb,
            int_gpus_idle = h.int_gpus_idle - p_gpus,
            int_gpu_mem_idle = h.int_gpu_mem_idle - p_gpu_mem_kb
        WHERE
            h.pk_host::text = p_host
            AND (SELECT n.pk_proc FROM new AS n) IS NOT NULL
            AND h.int_cores_idle >= p_cores
            AND h.int_mem_idle >= p_mem_kb
            AND h.int_gpus_idle >= p_gpus
            AND h.int_gpu_mem_idle >= p_gpu_mem_kb
        RETURNING h.pk_alloc::text
        INTO v_alloc;
    END IF;
    IF v_alloc IS NULL THEN
        PERFORM retally.require_read_committed('nothing can be booked or released');
        PERFORM retally.refuse(
            p_host, p_job, p_layer,
            -- where the proc is in, it was not the frame
            CASE
                WHEN NOT EXISTS (SELECT FROM public.proc AS p WHERE p.pk_proc::text = v_proc)
                    THEN p_frame
            END,
            p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb, p_local
        );
    END IF;

    IF v_alloc <> p_alloc THEN
        PERFORM retally.refuse_with(m.problem, m.message, m.hint)
        FROM retally.moved(p_host, p_job) AS m;
    END IF;
    IF NOT v_managed THEN
        PERFORM retally.add_to_totals(
            v_show, v_alloc, p_layer, p_job, p_cores, p_gpus, p_local
        );
    END IF;
    IF p_local
        AND NOT retally.take_local_share(p_host, p_job, p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb)
    THEN
        PERFORM retally.refuse(
            p_host, p_job, p_layer, NULL, p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb, p_local
        );
    END IF;
    RETURN v_proc;
END
$$;

COMMENT ON FUNCTION retally.book_proc(p_host text, p_job text, p_layer text, p_frame text, p_cores bigint, p_mem_kb bigint, p_gpus integer, p_gpu_mem_kb bigint, p_local boolean, p_token bigint, p_alloc text, p_folder text) IS 'Books a proc: this frame runs on this host with these amounts; returns its id.';

CREATE FUNCTION retally.book_procs(p_hosts text[], p_jobs text[], p_layers text[], p_frames text[], p_cores bigint[], p_mem_kb bigint[], p_gpus integer[] DEFAULT NULL::integer[], p_gpu_mem_kb bigint[] DEFAULT NULL::bigint[], p_local boolean[] DEFAULT NULL::boolean[], p_tokens bigint[] DEFAULT NULL::bigint[], p_allocs text[] DEFAULT NULL::text[], p_folders text[] DEFAULT NULL::text[]) RETURNS TABLE(nr integer, proc text, problem text, message text, hint text, holder text)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET jit TO 'off'
    AS $$
DECLARE
    v_asked retally.booking[];
    v_let_in retally.booking[];
    v_managed text[];
    -- the entries whose host has moved since their caps were counted
    v_moved integer[] := '{}';
    v_now_moved integer[];
    v_in text[];
    v_all_in boolean;
    v_new retally.booking[];
    v_fit retally.booking[];
    v_booked text[];
    v_kept_out integer[];
    v_kept_out_by text[];
    v_stopped integer[];
    v_stopped_by text[];
BEGIN
    PERFORM retally.require_read_committed('nothing can be booked or released');
    PERFORM retally.require_lengths(
        ARRAY[cardinality(p_hosts)],
        ARRAY[cardinality(p_tokens), cardinality(p_allocs), cardinality(p_folders)]
    );
    LOOP
        v_asked := ARRAY(
            SELECT a
            FROM retally.asked_for(
                p_hosts, p_jobs, p_layers, p_frames, p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb,
                p_local
            ) AS a
        );
        v_managed := retally.pin_flags(
            ARRAY(SELECT a.show FROM unnest(v_asked) AS a WHERE a.show IS NOT NULL)
        );
        SELECT
            coalesce(array_agg(k.nr), '{}'),
            coalesce(array_agg(k.stopped_by), '{}')
        INTO v_kept_out, v_kept_out_by
        FROM retally.kept_out(v_asked, v_managed, p_tokens, p_folders, v_moved) AS k;
        v_let_in := v_asked;
        IF cardinality(v_kept_out) > 0 THEN
            v_let_in := ARRAY(SELECT a FROM unnest(v_asked) AS a WHERE a.nr <> all(v_kept_out));
        END IF;
        BEGIN
            v_in := retally.insert_procs(v_let_in);
            -- their hosts are locked now
            v_now_moved := ARRAY(
                SELECT a.nr
                FROM unnest(v_let_in) AS a
                INNER JOIN public.host AS h ON a.host = h.pk_host::text
                WHERE h.pk_alloc::text <> p_allocs[a.nr] AND a.show IS NOT NULL
            );
            EXIT WHEN cardinality(v_now_moved) = 0;
            v_moved := v_moved || v_now_moved;
            RAISE EXCEPTION 'hosts have moved' USING ERRCODE = 'RT020';
        EXCEPTION
            WHEN foreign_key_violation OR SQLSTATE 'RT020' THEN
                -- a frame or a host was deleted while we waited, or a host is elsewhere: the
                -- entry is seen to be bad now
                NULL;
        END;
    END LOOP;
    v_all_in := cardinality(v_in) = cardinality(v_let_in);
    v_new := v_let_in;
    IF NOT v_all_in THEN
        -- rivals in the batch for a frame that is in; their turn comes if the first does not fit
        v_new := ARRAY(
            SELECT a
            FROM unnest(v_let_in) AS a
            WHERE
                a.show IS NOT NULL
                AND (
                    a.proc IN (SELECT i.proc FROM unnest(v_in) AS i (proc))
                    OR a.frame IN (
                        SELECT f.frame
                        FROM unnest(v_let_in) AS f
                        INNER JOIN unnest(v_in) AS i (proc) ON f.proc = i.proc
                    )
                )
        );
    END IF;
    IF EXISTS (SELECT FROM unnest(v_new) AS n WHERE n.local OR NOT n.show = any(v_managed)) THEN
        v_new := ARRAY(SELECT h FROM retally.lock_hosts(v_new) AS h);
        PERFORM retally.lock_totals(v_new, v_managed);
    END IF;
    BEGIN
        PERFORM retally.count_in(
            CASE
                WHEN v_all_in THEN v_new
                ELSE
                    ARRAY(
                        SELECT n FROM unnest(v_new) AS n
                        INNER JOIN unnest(v_in) AS i (proc) ON n.proc = i.proc
                    )
            END,
            v_managed, 1
        );
        v_booked := v_in;
    EXCEPTION
        WHEN SQLSTATE 'RT009' OR SQLSTATE 'RT011' OR SQLSTATE 'RT012' OR SQLSTATE 'RT013'
            OR SQLSTATE 'RT014' OR numeric_value_out_of_range
        THEN
            -- not all fit: those that do when each takes its turn
            SELECT
                coalesce(array_agg(n.proc) FILTER (WHERE f.stopped_by IS NULL), '{}'),
                array_agg(f.nr),
                array_agg(f.stopped_by)
            INTO v_booked, v_stopped, v_stopped_by
            FROM retally.first_come(v_new, v_managed) AS f
            INNER JOIN unnest(v_new) AS n ON f.nr = n.nr;
            v_fit := ARRAY(
                SELECT n FROM unnest(v_new) AS n
                INNER JOIN unnest(v_booked) AS b (proc) ON n.proc = b.proc
            );
            DELETE FROM public.proc AS p
            WHERE
                p.pk_proc::text IN (
                    SELECT i.proc FROM unnest(v_in) AS i (proc)
                    EXCEPT
                    SELECT b.proc FROM unnest(v_booked) AS b (proc)
                );
            -- a rival's frame is free now
            PERFORM retally.insert_procs(
                ARRAY(
                    SELECT f FROM unnest(v_fit) AS f
                    WHERE f.proc NOT IN (SELECT i.proc FROM unnest(v_in) AS i (proc))
                )
            );
            PERFORM retally.count_in(v_fit, v_managed, 1);
    END;

    RETURN QUERY
    SELECT
        a.nr,
        a.proc,
        NULL::text,
        NULL::text,
        NULL::text,
        NULL::text
    FROM unnest(v_asked) AS a
    WHERE a.proc IN (SELECT b.proc FROM unnest(v_booked) AS b (proc))
    UNION ALL
    SELECT
        a.nr,
        NULL::text,
        w.problem,
        w.message,
        w.hint,
        w.holder
    FROM unnest(v_asked) AS a
    LEFT JOIN unnest(v_new) AS n ON a.nr = n.nr
    LEFT JOIN unnest(v_stopped || v_kept_out, v_stopped_by || v_kept_out_by) AS s (nr, by)
        ON a.nr = s.nr
    CROSS JOIN LATERAL retally.why_not(a, n.alloc, s.by, p_tokens[a.nr]) AS w
    WHERE a.proc NOT IN (SELECT b.proc FROM unnest(v_booked) AS b (proc))
    ORDER BY 1;
END
$$;

COMMENT ON FUNCTION retally.book_procs(p_hosts text[], p_jobs text[], p_layers text[], p_frames text[], p_cores bigint[], p_mem_kb bigint[], p_gpus integer[], p_gpu_mem_kb bigint[], p_local boolean[], p_tokens bigint[], p_allocs text[], p_folders text[]) IS 'Books many procs in one transaction; one answer for each entry.';

CREATE FUNCTION retally.booked(p_show text) RETURNS TABLE(total text, key text, cores numeric, gpus numeric, local_cores numeric, local_gpus numeric)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET random_page_cost TO '1.1'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
    v_read text[] := retally.read_for(ARRAY[v_show_id]);
BEGIN
    RETURN QUERY
    SELECT
        b.total,
        b.key,
        b.cores,
        b.gpus,
        b.local_cores,
        b.local_gpus
    FROM retally.booked_in(v_read, retally.totals(), NULL, 'procs') AS b
    CROSS JOIN LATERAL retally.home(b.show_id, b.total, b.key) AS h
    WHERE h.show_id = v_show_id;
END
$$;

COMMENT ON FUNCTION retally.booked(p_show text) IS 'What the show''s procs say, by total and key.';

CREATE FUNCTION retally.booked_in(p_show_ids text[], p_totals text[], p_keys text[], p_source text) RETURNS TABLE(show_id text, total text, key text, cores numeric, gpus numeric, local_cores numeric, local_gpus numeric)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    -- The procs are read once, into one hash table for each key they are summed by; a key that
    -- these totals do not need is null for all and costs nothing. Hosts are many and allocations
    -- few: joined first, the third table stays small, which is worth 0.1 s of 0.4 s at 200,000
    -- procs.
    WITH procs AS (
        SELECT
            p.local,
            p.cores,
            p.gpus,
            CASE WHEN 'layer' = any(p_totals) THEN p.layer_id END AS layer_id,
            CASE WHEN p_totals && ARRAY['job', 'folder', 'point'] THEN p.job_id END AS job_id,
            CASE WHEN 'subscription' = any(p_totals) THEN p.show_id END AS show_id,
            h.pk_alloc::text AS alloc_id
        FROM retally.procs_of(p_show_ids, p_totals, p_keys, p_source) AS p
        LEFT JOIN public.host AS h
            ON 'subscription' = any(p_totals) AND p.host_id = h.pk_host::text
    ),

    shares AS MATERIALIZED (
        SELECT
            p.layer_id,
            p.job_id,
            p.show_id,
            p.alloc_id,
            CASE
                WHEN grouping(p.layer_id) = 0 THEN 'layer'
                WHEN grouping(p.job_id) = 0 THEN 'job'
                ELSE 'subscription'
            END AS grouped_by,
            sum(p.cores) AS cores,
            sum(p.gpus) AS gpus,
            coalesce(sum(p.cores) FILTER (WHERE p.local), 0) AS local_cores,
            coalesce(sum(p.gpus) FILTER (WHERE p.local), 0) AS local_gpus
        FROM procs AS p
        GROUP BY GROUPING SETS ((p.layer_id), (p.job_id), (p.show_id, p.alloc_id))
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
    ),

    sums AS (
        SELECT
            s.show_id,
            'subscription' AS total,
            s.alloc_id AS key,
            s.cores - s.local_cores AS cores,
            s.gpus - s.local_gpus AS gpus,
            NULL::numeric AS local_cores,
            NULL::numeric AS local_gpus
        FROM shares AS s
        WHERE
            s.grouped_by = 'subscription'
            AND 'subscription' = any(p_totals)
            AND (p_show_ids IS NULL OR s.show_id = any(p_show_ids))
            -- a proc's host may be gone
            AND s.alloc_id IS NOT NULL
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
        WHERE
            -- an entry of the journal counts wherever its job is
            (p_show_ids IS NULL OR p_source = 'journal' OR j.show_id = any(p_show_ids))
            AND 'point' = any(p_totals)
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

COMMENT ON FUNCTION retally.booked_in(p_show_ids text[], p_totals text[], p_keys text[], p_source text) IS 'What the procs say, by total and key.';

CREATE FUNCTION retally.change_override(p_override text, p_scopes text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_scope text;
    v_before text := retally.set_lock_timeout(retally.lock_budget());
BEGIN
    PERFORM pg_advisory_xact_lock(retally.flag_lock('the override'));
    FOR v_scope IN
        SELECT s.scope
        FROM unnest(p_scopes) AS s (scope)
        WHERE NOT EXISTS (SELECT FROM retally.scope_flag AS f WHERE f.scope = s.scope)
    LOOP
        BEGIN
            PERFORM retally.set_flag(v_scope, FALSE, retally.is_managed(v_scope));
        EXCEPTION
            -- whoever has it locked is flipping it just now, and gives it a row
            WHEN SQLSTATE 'RT005' THEN NULL;
        END;
    END LOOP;
    UPDATE retally.setting AS s
    SET override = p_override
    WHERE s.override <> p_override;
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'another session has the override or retally.setting locked'
            USING ERRCODE = 'RT005', HINT = 'Let it commit or roll back, and try again.';
END
$$;

COMMENT ON FUNCTION retally.change_override(p_override text, p_scopes text[]) IS 'Changes setting.override, and flips no scope by it.';

CREATE FUNCTION retally.changes_between(p_total text, p_before retally.amount[], p_after retally.amount[]) RETURNS SETOF retally.change
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT DISTINCT ON (b.key, s.slot)
        p_total,
        b.key,
        s.slot,
        s.was,
        s.now
    FROM unnest(p_before) AS b
    INNER JOIN unnest(p_after) AS a ON b.key = a.key
    CROSS JOIN
        LATERAL (
            VALUES
            ('cores', b.cores, a.cores),
            ('gpus', b.gpus, a.gpus),
            ('local_cores', b.local_cores, a.local_cores),
            ('local_gpus', b.local_gpus, a.local_gpus)
        ) AS s (slot, was, now)
    WHERE s.was <> s.now
    ORDER BY b.key, s.slot, s.was
$$;

COMMENT ON FUNCTION retally.changes_between(p_total text, p_before retally.amount[], p_after retally.amount[]) IS 'Which slots of the rows of a total differ between two states of them.';

CREATE FUNCTION retally.check_farm() RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_wanted CONSTANT text[] := ARRAY[
        'show.pk_show', 'show.str_name',
        'alloc.pk_alloc', 'alloc.str_name',
        'dept.pk_dept', 'dept.str_name',
        'folder.pk_folder', 'folder.pk_show', 'folder.str_name',
        'host.pk_host', 'host.pk_alloc', 'host.str_name',
        'host.int_cores', 'host.int_cores_idle', 'host.int_mem', 'host.int_mem_idle',
        'host.int_gpus', 'host.int_gpus_idle', 'host.int_gpu_mem', 'host.int_gpu_mem_idle',
        'host_local.pk_host', 'host_local.pk_job',
        'host_local.int_cores_idle', 'host_local.int_mem_idle',
        'host_local.int_gpus_idle', 'host_local.int_gpu_mem_idle',
        'job.pk_job', 'job.pk_show', 'job.pk_folder', 'job.pk_dept', 'job.str_name',
        'layer.pk_layer', 'layer.pk_job', 'layer.str_name',
        'frame.pk_frame', 'frame.pk_layer', 'frame.pk_job',
        'proc.pk_proc', 'proc.pk_host', 'proc.pk_show', 'proc.pk_job', 'proc.pk_layer',
        'proc.pk_frame', 'proc.int_cores_reserved', 'proc.int_gpus_reserved', 'proc.b_local',
        'proc.int_mem_reserved', 'proc.int_mem_pre_reserved',
        'proc.int_gpu_mem_reserved', 'proc.int_gpu_mem_pre_reserved',
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

CREATE FUNCTION retally.claim_due(p_tick text, p_interval interval, p_scopes text[], p_worker text, p_now timestamp with time zone DEFAULT clock_timestamp(), OUT due bigint, OUT claimed text[], OUT failures integer[], OUT late_in double precision, OUT next_in double precision) RETURNS record
    LANGUAGE plpgsql
    AS $$
DECLARE
    -- who comes a little early is served: clocks and timers are not exact
    v_slot timestamptz := date_bin(
        p_interval, p_now + least(p_interval / 10, interval '1 second'), timestamptz 'epoch'
    );
    v_late timestamptz := v_slot + least(p_interval / 20, interval '0.5 seconds');
    v_workers text[];
    v_share bigint;
    v_room bigint;
BEGIN
    INSERT INTO retally.worker AS w (worker, tick, every, seen_at)
    VALUES (p_worker, p_tick, p_interval, p_now)
    ON CONFLICT (worker, tick) DO UPDATE SET every = excluded.every, seen_at = excluded.seen_at;
    v_workers := ARRAY(
        SELECT w.worker
        FROM retally.worker AS w
        WHERE w.tick = p_tick AND retally.is_alive(w.seen_at, w.every, p_now)
        ORDER BY w.worker
    );
    -- what does not divide evenly goes to the first ones, so that the shares add up
    v_share := cardinality(p_scopes) / cardinality(v_workers)
    + (
        array_position(v_workers, p_worker) <= cardinality(p_scopes) % cardinality(v_workers)
    )::integer;

    INSERT INTO retally.due (tick, scope, due_at, every, claimed_by)
    SELECT p_tick, s.scope, v_slot, p_interval, ''
    FROM unnest(p_scopes) AS s (scope)
    WHERE NOT EXISTS (
        SELECT FROM retally.due AS d WHERE d.tick = p_tick AND d.scope = s.scope
    )
    -- two sessions that add the same rows must come to them in the same order
    ORDER BY s.scope
    ON CONFLICT (tick, scope) DO NOTHING;

    IF p_now >= v_late THEN
        v_room := greatest(v_share, 1);
    ELSE
        SELECT v_share - count(*)
        INTO v_room
        FROM retally.due AS d
        WHERE
            d.tick = p_tick
            AND d.scope = ANY (p_scopes)
            AND d.claimed_by = p_worker
            AND NOT retally.is_due(d.due_at, d.every, v_slot, p_now);
    END IF;

    WITH ready AS (
        SELECT d.scope
        FROM retally.due AS d
        WHERE
            d.tick = p_tick
            AND d.scope = ANY (p_scopes)
            AND retally.is_due(d.due_at, d.every, v_slot, p_now)
        ORDER BY d.claimed_by <> p_worker, d.claimed_by = ANY (v_workers), d.scope
        LIMIT greatest(v_room, 0)
        FOR UPDATE SKIP LOCKED
    ),

    taken AS (
        UPDATE retally.due AS d
        SET due_at = v_slot + p_interval, every = p_interval, claimed_by = p_worker
        FROM ready AS r
        WHERE d.tick = p_tick AND d.scope = r.scope
        RETURNING d.scope, d.failures
    )

    SELECT
        coalesce(array_agg(t.scope ORDER BY t.scope), '{}'),
        coalesce(array_agg(t.failures ORDER BY t.scope), '{}')
    INTO claimed, failures
    FROM taken AS t;

    SELECT count(*)
    INTO due
    FROM retally.due AS d
    WHERE
        d.tick = p_tick
        AND d.scope = ANY (p_scopes)
        AND retally.is_due(d.due_at, d.every, v_slot, p_now);
    late_in := greatest(extract(EPOCH FROM v_late - p_now), 0);
    next_in := extract(EPOCH FROM v_slot + p_interval - p_now);
END
$$;

COMMENT ON FUNCTION retally.claim_due(p_tick text, p_interval interval, p_scopes text[], p_worker text, p_now timestamp with time zone, OUT due bigint, OUT claimed text[], OUT failures integer[], OUT late_in double precision, OUT next_in double precision) IS 'Hands out the scopes that are due in this tick, each to one caller only.';

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

CREATE FUNCTION retally.compared(p_show_ids text[], p_totals text[], p_source text) RETURNS SETOF retally.comparison
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    WITH pairs AS (
        SELECT
            s.show_id,
            s.job_id,
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
        FROM retally.stored_in(p_show_ids, p_totals, FALSE) AS s
        FULL JOIN retally.booked_in(p_show_ids, p_totals, NULL, p_source) AS b
            ON
                s.key = b.key
                AND s.total = b.total
                -- the other totals have keys that are unique in the farm
                AND CASE WHEN s.total IN ('subscription', 'point') THEN s.show_id ELSE '' END
                = coalesce(b.show_id, '')
        -- where procs hold nothing, no row is missed
        WHERE
            coalesce(s.cores, 0) <> coalesce(b.cores, 0)
            OR coalesce(s.gpus, 0) <> coalesce(b.gpus, 0)
            OR coalesce(s.local_cores, 0) <> coalesce(b.local_cores, 0)
            OR coalesce(s.local_gpus, 0) <> coalesce(b.local_gpus, 0)
    ),

    homes AS MATERIALIZED (
        SELECT
            p.*,
            coalesce(p.show_id, j.pk_show, h.show_id) AS home,
            -- a row that is there and was not matched is one of the zeros
            CASE WHEN h.has_row THEN 0 END AS zero
        FROM pairs AS p
        LEFT JOIN public.job AS j ON p.show_id IS NULL AND p.job_id = j.pk_job::text
        LEFT JOIN LATERAL (
            SELECT h.*
            FROM retally.home(p.told_show_id, p.total, p.key) AS h
            WHERE p.was_cores IS NULL
            -- asked inside, since a condition of the join is looked at after the answer
            OFFSET 0 -- noqa: AM09
        ) AS h ON TRUE
    )

    SELECT
        h.home,
        h.total,
        h.key,
        CASE WHEN coalesce(h.was_cores, h.zero) IS NULL THEN 'missing' ELSE 'row' END,
        coalesce(h.was_cores, h.zero),
        coalesce(h.was_gpus, h.zero),
        CASE WHEN h.total = 'job' THEN coalesce(h.was_local_cores, h.zero) END,
        CASE WHEN h.total = 'job' THEN coalesce(h.was_local_gpus, h.zero) END,
        h.cores,
        h.gpus,
        h.local_cores,
        h.local_gpus
    FROM homes AS h
    WHERE h.home IS NOT NULL AND (p_show_ids IS NULL OR h.home = any(p_show_ids))
    UNION ALL
    SELECT
        o.show_id,
        o.total,
        o.key,
        'orphan',
        NULL,
        NULL,
        NULL,
        NULL,
        o.cores,
        o.gpus,
        0,
        0
    FROM (
        SELECT
            coalesce(array_agg(h.total), '{}') AS totals,
            coalesce(array_agg(h.key), '{}') AS keys
        FROM homes AS h
        WHERE h.home IS NULL
    ) AS lost
    CROSS JOIN LATERAL retally.orphans_in(p_show_ids, lost.totals, lost.keys) AS o
$$;

COMMENT ON FUNCTION retally.compared(p_show_ids text[], p_totals text[], p_source text) IS 'Where stored and booked differ, one row per key.';

CREATE FUNCTION retally.count_deltas(p_deltas retally.delta[], p_total text, p_lock boolean) RETURNS bigint
    LANGUAGE plpgsql
    AS $_$
DECLARE
    v_number bigint;
BEGIN
    -- one statement for five tables, as in lock_keys()
    EXECUTE format(
        'SELECT count(*)
        FROM (
            SELECT
            FROM unnest($1) AS d
            INNER JOIN public.%I AS r ON r.%I::text = d.key AND %s
            WHERE d.total = $2
            %s
        ) AS found',
        CASE WHEN p_total IN ('layer', 'job', 'folder') THEN p_total || '_resource' ELSE p_total END,
        CASE p_total
            WHEN 'subscription' THEN 'pk_alloc'
            WHEN 'point' THEN 'pk_dept'
            ELSE 'pk_' || p_total
        END,
        CASE
            WHEN p_total IN ('subscription', 'point') THEN 'r.pk_show::text = d.scope'
            ELSE 'TRUE'
        END,
        CASE WHEN p_lock THEN 'FOR NO KEY UPDATE OF r SKIP LOCKED' ELSE '' END
    )
    INTO v_number
    USING p_deltas, p_total;
    RETURN v_number;
END
$_$;

COMMENT ON FUNCTION retally.count_deltas(p_deltas retally.delta[], p_total text, p_lock boolean) IS 'How many rows of one total deltas are to be added to, or can be locked.';

CREATE FUNCTION retally.count_in(p_bookings retally.booking[], p_managed text[], p_sign integer) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_group record;
    v_short text;
BEGIN
    FOR v_group IN
        SELECT
            b.host,
            b.job,
            min(b.layer) AS layer,
            p_sign * sum(b.cores)::bigint AS cores,
            p_sign * sum(b.mem_kb)::bigint AS mem_kb,
            p_sign * sum(b.gpus)::bigint AS gpus,
            p_sign * sum(b.gpu_mem_kb)::bigint AS gpu_mem_kb
        FROM unnest(p_bookings) AS b
        WHERE b.local
        GROUP BY b.host, b.job
    LOOP
        IF NOT retally.take_local_share(
            v_group.host, v_group.job, v_group.cores, v_group.mem_kb, v_group.gpus,
            v_group.gpu_mem_kb
        ) THEN
            PERFORM retally.refuse(
                v_group.host, v_group.job, v_group.layer, NULL, v_group.cores, v_group.mem_kb,
                v_group.gpus, v_group.gpu_mem_kb, TRUE
            );
        END IF;
    END LOOP;

    WITH asked AS (
        SELECT
            b.host,
            p_sign * sum(b.cores) AS cores,
            p_sign * sum(b.mem_kb) AS mem_kb,
            p_sign * sum(b.gpus) AS gpus,
            p_sign * sum(b.gpu_mem_kb) AS gpu_mem_kb
        FROM unnest(p_bookings) AS b
        GROUP BY b.host
    ),

    spot AS (
        UPDATE public.host AS h
        SET
            int_cores_idle = h.int_cores_idle - a.cores,
            int_mem_idle = h.int_mem_idle - a.mem_kb,
            int_gpus_idle = h.int_gpus_idle - a.gpus,
            int_gpu_mem_idle = h.int_gpu_mem_idle - a.gpu_mem_kb
        FROM asked AS a
        WHERE
            h.pk_host::text = a.host
            AND (
                p_sign < 0
                OR (
                    h.int_cores_idle >= a.cores
                    AND h.int_mem_idle >= a.mem_kb
                    AND h.int_gpus_idle >= a.gpus
                    AND h.int_gpu_mem_idle >= a.gpu_mem_kb
                )
            )
        RETURNING h.pk_host
    )

    SELECT h.str_name || ' has ' || retally.shortage(
        h.int_cores_idle, h.int_mem_idle, h.int_gpus_idle, h.int_gpu_mem_idle,
        a.cores, a.mem_kb, a.gpus, a.gpu_mem_kb
    )
    INTO v_short
    FROM asked AS a
    INNER JOIN public.host AS h ON a.host = h.pk_host::text
    WHERE a.host NOT IN (SELECT s.pk_host::text FROM spot AS s)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'host %', v_short
            USING ERRCODE = 'RT011', HINT = 'Choose another host, or wait for a release.';
    END IF;

    PERFORM retally.add_batch_to_totals(p_bookings, p_managed, p_sign);
END
$$;

COMMENT ON FUNCTION retally.count_in(p_bookings retally.booking[], p_managed text[], p_sign integer) IS 'Counts procs of a batch into hosts, local shares and totals, or out of them.';

CREATE FUNCTION retally.delete_procs(p_procs text[], p_show_ids text[]) RETURNS SETOF retally.booking
    LANGUAGE plpgsql
    AS $$
BEGIN
    RETURN QUERY
    WITH mine AS MATERIALIZED (
        SELECT p.pk_proc
        FROM public.proc AS p
        WHERE p.pk_proc::text IN (SELECT a.proc FROM unnest(p_procs) AS a (proc))
        ORDER BY p.pk_proc
        FOR UPDATE OF p
    ),

    gone AS (
        DELETE FROM public.proc AS p
        USING mine AS m
        WHERE
            p.pk_proc::text = m.pk_proc::text
            AND coalesce(p.pk_show::text, '') = any(p_show_ids)
        RETURNING p.*
    )

    SELECT
        NULL::integer,
        g.pk_proc::text,
        coalesce(g.pk_show::text, ''),
        NULL::text,
        g.pk_host::text,
        g.pk_job::text,
        g.pk_layer::text,
        g.pk_frame::text,
        g.int_cores_reserved,
        g.int_mem_reserved,
        g.int_gpus_reserved::bigint,
        g.int_gpu_mem_reserved,
        g.b_local
    FROM gone AS g;
END
$$;

COMMENT ON FUNCTION retally.delete_procs(p_procs text[], p_show_ids text[]) IS 'Deletes procs of these shows and answers with what their rows said.';

CREATE FUNCTION retally.drift(p_show text) RETURNS TABLE(total text, key text, slot text, stored numeric, booked numeric)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET random_page_cost TO '1.1'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
    v_read text[] := retally.read_for(ARRAY[v_show_id]);
BEGIN
    RETURN QUERY
    SELECT
        d.total,
        d.key,
        d.slot,
        d.stored,
        d.booked
    FROM retally.drift_in(v_read, retally.totals()) AS d
    WHERE d.show_id = v_show_id
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
    FROM retally.compared(p_show_ids, p_totals, 'procs') AS c
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

CREATE FUNCTION retally.drop_lease(p_scope text) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_before text := retally.set_lock_timeout(retally.lock_budget());
BEGIN
    UPDATE retally.lease AS l
    SET token = l.token + 1, holder = NULL, expires_at = 'epoch', wanted_by = NULL,
        wanted_at = NULL
    WHERE l.scope = p_scope;
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'another session has the lease of % locked', p_scope
            USING ERRCODE = 'RT005', HINT = 'Let it commit or roll back, and try again.';
END
$$;

COMMENT ON FUNCTION retally.drop_lease(p_scope text) IS 'Ends the lease of a scope whoever holds it.';

CREATE PROCEDURE retally.end_journal()
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM retally.hold_journal();
    PERFORM retally.hold_scope(f.scope, TRUE)
    FROM (
        SELECT j.scope
        FROM retally.scope_flag AS j
        WHERE j.journaled
        ORDER BY j.scope
    ) AS f;
    PERFORM retally.set_journal_triggers(FALSE);
    UPDATE retally.scope_flag AS f
    SET journaled = FALSE
    WHERE f.journaled;
    DELETE FROM retally.journal;
END
$$;

COMMENT ON PROCEDURE retally.end_journal() IS 'Journals no show any more, and takes the triggers away.';

CREATE PROCEDURE retally.end_lease(IN p_show text)
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_scope text := p_show;
BEGIN
    IF NOT EXISTS (SELECT FROM retally.lease AS l WHERE l.scope = p_show) THEN
        v_scope := retally.show_id(p_show);
    END IF;
    PERFORM retally.hold_flag(v_scope, p_show);
    PERFORM retally.drop_lease(v_scope);
END
$$;

COMMENT ON PROCEDURE retally.end_lease(IN p_show text) IS 'Ends the lease of a show whoever holds it.';

CREATE FUNCTION retally.end_leases(p_holder text, p_scopes text[], p_tokens bigint[]) RETURNS void
    LANGUAGE sql
    AS $$
    WITH free AS (
        SELECT l.scope
        FROM unnest(p_scopes, p_tokens) AS h (scope, token)
        INNER JOIN retally.lease AS l ON h.scope = l.scope AND h.token = l.token
        WHERE l.holder = p_holder
        FOR NO KEY UPDATE OF l SKIP LOCKED
    )

    UPDATE retally.lease AS l
    SET holder = NULL, expires_at = 'epoch'
    FROM free AS f
    WHERE l.scope = f.scope
$$;

COMMENT ON FUNCTION retally.end_leases(p_holder text, p_scopes text[], p_tokens bigint[]) IS 'Ends leases of a dispatcher.';

CREATE FUNCTION retally.findings(p_show_ids text[], p_totals text[]) RETURNS SETOF retally.finding
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RETURN QUERY
    SELECT f.*
    FROM retally.findings_of(
        ARRAY(SELECT a FROM retally.adrift(p_show_ids, p_totals) AS a), p_show_ids, p_totals
    ) AS f;
END
$$;

COMMENT ON FUNCTION retally.findings(p_show_ids text[], p_totals text[]) IS 'What is adrift in these totals of these shows, one finding per show and total.';

CREATE FUNCTION retally.findings_of(p_rows retally.comparison[], p_show_ids text[], p_totals text[]) RETURNS SETOF retally.finding
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RETURN QUERY
    WITH sizes AS (
        SELECT
            c.*,
            c.kind = 'row' AS is_row,
            abs(c.was_cores - c.cores)
            + abs(coalesce(c.was_local_cores, 0) - c.local_cores) AS core_units,
            abs(c.was_gpus - c.gpus)
            + abs(coalesce(c.was_local_gpus, 0) - c.local_gpus) AS gpu_units
        FROM unnest(p_rows) AS c
    ),

    found AS (
        SELECT
            z.show_id,
            z.total,
            -- in no order, since sorting many keys takes longer than finding them
            array_agg(z.key) FILTER (WHERE z.is_row) AS keys,
            count(*) FILTER (WHERE z.is_row) AS adrift,
            count(*) FILTER (WHERE z.kind = 'missing') AS failed,
            sum(z.core_units) FILTER (WHERE z.is_row) AS core_units,
            sum(z.gpu_units) FILTER (WHERE z.is_row) AS gpu_units,
            array_agg(retally.problem(z.kind, z.total, z.key, z.cores, z.gpus))
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
        CASE
            WHEN cardinality(n.problems) > 20
                THEN n.problems[1:20] || format('%s: and %s more like these', t.total, cardinality(n.problems) - 20)
            ELSE n.problems
        END
    FROM unnest(p_show_ids) AS s (show_id)
    CROSS JOIN unnest(retally.totals()) WITH ORDINALITY AS t (total, place)
    LEFT JOIN found AS f ON s.show_id = f.show_id AND t.total = f.total
    CROSS JOIN LATERAL (
        SELECT ARRAY(SELECT p.problem FROM unnest(f.problems) AS p (problem) ORDER BY p.problem)
    ) AS n (problems)
    WHERE t.total = ANY (p_totals)
    ORDER BY s.show_id, t.place;
END
$$;

COMMENT ON FUNCTION retally.findings_of(p_rows retally.comparison[], p_show_ids text[], p_totals text[]) IS 'What was found adrift, one finding per show and total.';

CREATE FUNCTION retally.first_come(p_bookings retally.booking[], p_managed text[]) RETURNS TABLE(nr integer, stopped_by text)
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_booking record;
    -- what is left, by place; in memory, for a row that is written once for each booking would
    -- make 2,000 versions of itself in one transaction (tried: 10 s instead of 0.1 s)
    v_left bigint[] := '{}';
BEGIN
    FOR v_booking IN
        WITH wanted AS (
            SELECT
                b.nr,
                l.kind,
                l.turn,
                l.key,
                l.lefts,
                l.asks
            FROM unnest(p_bookings) AS b
            INNER JOIN public.host AS h ON b.host = h.pk_host::text
            LEFT JOIN public.host_local AS s
                ON b.host = s.pk_host::text AND b.job = s.pk_job::text
            LEFT JOIN public.subscription AS u
                ON b.show = u.pk_show::text AND b.alloc = u.pk_alloc::text
            LEFT JOIN public.job_resource AS r ON b.job = r.pk_job::text
            CROSS JOIN LATERAL (
                VALUES
                (
                    'frame', 1, b.frame IS NOT NULL, b.frame,
                    ARRAY[1],
                    ARRAY[1]::bigint[]
                ),
                (
                    'share', 2, b.local, b.host || ' ' || b.job,
                    ARRAY[
                        coalesce(s.int_cores_idle, -1), s.int_mem_idle, s.int_gpus_idle,
                        s.int_gpu_mem_idle
                    ],
                    ARRAY[b.cores, b.mem_kb, b.gpus, b.gpu_mem_kb]
                ),
                (
                    'host', 3, TRUE, b.host,
                    ARRAY[h.int_cores_idle, h.int_mem_idle, h.int_gpus_idle, h.int_gpu_mem_idle],
                    ARRAY[b.cores, b.mem_kb, b.gpus, b.gpu_mem_kb]
                ),
                (
                    'subscription', 4, NOT b.local AND NOT b.show = any(p_managed),
                    b.show || ' ' || b.alloc,
                    ARRAY[coalesce(u.int_burst - u.int_cores, -1)],
                    ARRAY[b.cores]
                ),
                (
                    'job', 5,
                    NOT b.local AND NOT b.show = any(p_managed) AND r.pk_job IS NOT NULL, b.job,
                    ARRAY[r.int_max_cores - r.int_cores, r.int_max_gpus - r.int_gpus],
                    ARRAY[b.cores, b.gpus]
                )
            ) AS l (kind, turn, counts, key, lefts, asks)
            WHERE l.counts
        ),

        slots AS (
            SELECT
                w.nr,
                w.kind,
                w.turn,
                a.slot,
                a.left_over,
                a.ask,
                dense_rank() OVER (ORDER BY w.turn, w.key, a.slot) AS place
            FROM wanted AS w
            CROSS JOIN LATERAL unnest(w.lefts, w.asks)
            WITH ORDINALITY AS a (left_over, ask, slot)
        )

        SELECT
            s.nr,
            array_agg(s.kind ORDER BY s.turn, s.slot) AS kinds,
            array_agg(s.place ORDER BY s.turn, s.slot) AS places,
            array_agg(s.left_over ORDER BY s.turn, s.slot) AS lefts,
            array_agg(s.ask ORDER BY s.turn, s.slot) AS asks
        FROM slots AS s
        GROUP BY s.nr
        ORDER BY s.nr
    LOOP
        nr := v_booking.nr;
        stopped_by := NULL;
        FOR i IN 1 .. cardinality(v_booking.places) LOOP
            IF coalesce(v_left[v_booking.places[i]], v_booking.lefts[i]) < v_booking.asks[i] THEN
                stopped_by := v_booking.kinds[i];
                EXIT;
            END IF;
        END LOOP;
        IF stopped_by IS NULL THEN
            FOR i IN 1 .. cardinality(v_booking.places) LOOP
                v_left[v_booking.places[i]]
                := coalesce(v_left[v_booking.places[i]], v_booking.lefts[i]) - v_booking.asks[i];
            END LOOP;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

COMMENT ON FUNCTION retally.first_come(p_bookings retally.booking[], p_managed text[]) IS 'Decides which bookings of a batch fit when each takes its turn.';

CREATE FUNCTION retally.flag_lock(p_scope text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT hashtextextended('retally flips ' || p_scope, 0)
$$;

COMMENT ON FUNCTION retally.flag_lock(p_scope text) IS 'The key of the advisory lock on a scope''s flag.';

CREATE FUNCTION retally.flip(p_show_id text, p_asked boolean, OUT rows_adrift bigint, OUT rows_changed bigint, OUT rows_deferred bigint, OUT rows_failed bigint, OUT core_units numeric, OUT gpus numeric, OUT problems text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_name text := (
        SELECT s.str_name::text FROM public.show AS s
        WHERE s.pk_show::text = p_show_id
    );
    v_flag record;
BEGIN
    -- First the lock that ticks and flips take, and bookings never wait for. Whoever flips the show
    -- has it until his commit, so from here on its flag, and an override that concerns it, stay.
    PERFORM retally.hold_scope(p_show_id, TRUE);
    SELECT
        coalesce(p_asked, f.asked, FALSE) AS asked,
        retally.overridden(coalesce(p_asked, f.asked, FALSE), s.override) AS managed,
        f.managed AS was_managed
    INTO v_flag
    FROM retally.setting AS s
    LEFT JOIN retally.scope_flag AS f ON f.scope = p_show_id;
    IF p_asked IS NULL AND v_flag.managed = v_flag.was_managed THEN
        RETURN;
    END IF;

    PERFORM retally.hold_flag(p_show_id, v_name);
    -- before the recompute: who has written stands in no queue from then on. A booking that waits
    -- for this flip may hold a row that others wait for, and must not become a deadlock's victim.
    PERFORM retally.set_flag(p_show_id, v_flag.asked, v_flag.managed);
    -- whoever has it does not count what others book until the show is managed again
    PERFORM retally.drop_lease(p_show_id);
    IF NOT v_flag.managed THEN
        -- set_flag() has ended its journal, and the recompute counts the procs themselves
        DELETE FROM retally.journal AS j
        WHERE j.scope = p_show_id;
    END IF;
    SELECT r.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.recompute_in_one(p_show_id, retally.totals(), TRUE) AS r;
    IF rows_deferred > 0 THEN
        RAISE EXCEPTION 'show "%" stays as it is: rows of its totals locked by others: %',
            v_name, rows_deferred
            USING ERRCODE = 'RT006', HINT = 'Try again in a moment.';
    END IF;
END
$$;

COMMENT ON FUNCTION retally.flip(p_show_id text, p_asked boolean, OUT rows_adrift bigint, OUT rows_changed bigint, OUT rows_deferred bigint, OUT rows_failed bigint, OUT core_units numeric, OUT gpus numeric, OUT problems text[]) IS 'Waits for a show''s bookings in flight, sets its flag and rebuilds its totals.';

CREATE FUNCTION retally.fold(p_show_ids text[], p_wait boolean, p_tick text DEFAULT 'by hand'::text, p_worker text DEFAULT CURRENT_USER) RETURNS TABLE(show_id text, total text, rows_adrift bigint, rows_changed bigint, rows_deferred bigint, rows_failed bigint, core_units numeric, gpus numeric, seconds double precision, problems text[])
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET random_page_cost TO '1.1'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
DECLARE
    v_started timestamptz := clock_timestamp();
    v_totals text[] := retally.totals();
    v_show_ids text[] := ARRAY(
        SELECT DISTINCT f.scope
        FROM retally.scope_flag AS f
        WHERE f.scope = ANY (p_show_ids) AND f.journaled
        ORDER BY f.scope
    );
    v_deadline timestamptz := v_started
    + CASE WHEN p_wait THEN retally.lock_budget() ELSE interval '50 milliseconds' END;
    v_sums record;
    v_written retally.delta[];
BEGIN
    IF cardinality(v_show_ids) = 0 THEN
        RETURN;
    END IF;
    PERFORM retally.hold_scope(s.show_id, p_wait)
    FROM unnest(v_show_ids) AS s (show_id);
    LOOP
        BEGIN
            SELECT
                -- neighbours in the index, one after the other
                coalesce(
                    array_agg(o.delta ORDER BY (o.delta).key COLLATE "C")
                    FILTER (WHERE NOT o.lost),
                    '{}'
                ) AS deltas,
                coalesce(array_agg(o.delta) FILTER (WHERE o.lost), '{}') AS lost
            INTO v_sums
            FROM retally.take_out(v_show_ids) AS o;
            EXIT WHEN retally.hold_deltas(v_sums.deltas);
            RAISE EXCEPTION USING ERRCODE = 'RT000', MESSAGE = 'let go';
        EXCEPTION
            -- the entries are back, and no row is held: who holds none can be part of no cycle
            WHEN SQLSTATE 'RT000' THEN NULL;
        END;
        IF clock_timestamp() > v_deadline THEN
            RAISE EXCEPTION 'rows of totals that the journal adds to are locked by others'
                USING ERRCODE = 'RT005', HINT = 'Try again in a moment.';
        END IF;
        PERFORM pg_sleep(0.005);
    END LOOP;
    v_written := ARRAY(SELECT a FROM retally.add_what_fits(v_sums.deltas) AS a);

    RETURN QUERY
    WITH kept AS MATERIALIZED (
        SELECT
            s.show_id,
            t.total,
            count(w.key) AS changed,
            count(d.key) - count(w.key) AS failed,
            coalesce(
                (
                    array_agg(retally.problem('unfolded', d.total, d.key, d.cores, d.gpus))
                    FILTER (WHERE d.key IS NOT NULL AND w.key IS NULL)
                )[1:20],
                '{}'
            ) AS problems
        FROM unnest(v_show_ids) AS s (show_id)
        CROSS JOIN unnest(v_totals) AS t (total)
        LEFT JOIN unnest(v_sums.deltas || v_sums.lost) AS d
            ON s.show_id = d.scope AND t.total = d.total
        LEFT JOIN unnest(v_written) AS w
            ON d.scope = w.scope AND d.total = w.total AND d.key = w.key
        GROUP BY s.show_id, t.total
    ),

    noted AS (
        SELECT
            retally.keep_passes(
                ARRAY(
                    SELECT
                        ROW(
                            k.show_id, p_tick, k.total, 'folded', p_worker, clock_timestamp(),
                            extract(EPOCH FROM clock_timestamp() - v_started),
                            coalesce(p.rows_adrift, 0), k.changed, coalesce(p.rows_adrift, 0),
                            greatest(k.failed, p.rows_failed), coalesce(p.core_units, 0),
                            coalesce(p.gpus, 0),
                            (
                                coalesce(p.problems, '{}') || ARRAY(
                                    SELECT n.problem
                                    FROM unnest(k.problems) AS n (problem)
                                    WHERE n.problem <> ALL (coalesce(p.problems, '{}'))
                                )
                            )[1:20],
                            NULL, NULL, NULL
                        )::retally.pass
                    FROM kept AS k
                    LEFT JOIN LATERAL retally.latest_left(k.show_id, k.total) AS p ON TRUE
                )
            )
    )

    SELECT
        k.show_id,
        k.total,
        0::bigint,
        k.changed,
        0::bigint,
        k.failed,
        0::numeric,
        0::numeric,
        extract(EPOCH FROM clock_timestamp() - v_started)::double precision,
        k.problems
    FROM kept AS k
    CROSS JOIN noted AS n
    ORDER BY k.show_id, array_position(v_totals, k.total);
END
$$;

COMMENT ON FUNCTION retally.fold(p_show_ids text[], p_wait boolean, p_tick text, p_worker text) IS 'Folds the journal of these shows into the totals, each entry exactly once.';

CREATE FUNCTION retally.forget_worker(p_worker text) RETURNS void
    LANGUAGE sql
    AS $$
    DELETE FROM retally.worker AS w
    WHERE w.worker = p_worker
$$;

COMMENT ON FUNCTION retally.forget_worker(p_worker text) IS 'Takes a worker that stops off the list.';

CREATE FUNCTION retally.former_amounts(p_run bigint, p_scope text, p_total text, p_now retally.amount[]) RETURNS SETOF retally.amount
    LANGUAGE sql STABLE
    AS $$
    WITH slots AS (
        SELECT
            n.key,
            s.slot,
            s.now,
            l.before,
            l.after
        FROM unnest(p_now) AS n
        CROSS JOIN
            LATERAL (
                VALUES
                ('cores', n.cores),
                ('gpus', n.gpus),
                ('local_cores', n.local_cores),
                ('local_gpus', n.local_gpus)
            ) AS s (slot, now)
        LEFT JOIN retally.ledger AS l
            ON
                l.run = p_run
                AND l.scope = p_scope
                AND l.total = p_total
                AND n.key = l.key
                AND s.slot = l.slot
    )

    SELECT
        s.key,
        max(coalesce(s.before, s.now)) FILTER (WHERE s.slot = 'cores'),
        max(coalesce(s.before, s.now)) FILTER (WHERE s.slot = 'gpus'),
        max(coalesce(s.before, s.now)) FILTER (WHERE s.slot = 'local_cores'),
        max(coalesce(s.before, s.now)) FILTER (WHERE s.slot = 'local_gpus')
    FROM slots AS s
    GROUP BY s.key
    HAVING bool_and(s.after IS NULL OR s.now = s.after) AND count(*) = 4
$$;

COMMENT ON FUNCTION retally.former_amounts(p_run bigint, p_scope text, p_total text, p_now retally.amount[]) IS 'What the rows of a total held before a run, where they still hold what it wrote.';

CREATE FUNCTION retally.hold_deltas(p_deltas retally.delta[]) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_total text;
    v_held bigint;
    v_deltas bigint;
BEGIN
    FOREACH v_total IN ARRAY retally.totals() LOOP
        v_held := retally.count_deltas(p_deltas, v_total, TRUE);
        v_deltas := (SELECT count(*) FROM unnest(p_deltas) AS d WHERE d.total = v_total);
        -- most often each has just one row, and all are free: they need not be counted again
        CONTINUE WHEN v_held = v_deltas AND v_total <> 'folder';
        IF v_held < retally.count_deltas(p_deltas, v_total, FALSE) THEN
            RETURN FALSE;
        END IF;
    END LOOP;
    RETURN TRUE;
END
$$;

COMMENT ON FUNCTION retally.hold_deltas(p_deltas retally.delta[]) IS 'Locks the rows that deltas are to be added to, without waiting; whether all were had.';

CREATE FUNCTION retally.hold_flag(p_scope text, p_name text) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_before text;
BEGIN
    v_before := retally.set_lock_timeout(
        CASE
            WHEN pg_current_xact_id_if_assigned() IS NULL
                THEN (SELECT s.longest_flip FROM retally.setting AS s)
            ELSE retally.lock_budget()
        END
    );
    BEGIN
        PERFORM pg_advisory_xact_lock(retally.flag_lock(p_scope));
    EXCEPTION
        WHEN lock_not_available THEN
            RAISE EXCEPTION 'bookings of "%" are in flight for too long', p_name
                USING ERRCODE = 'RT005',
                    HINT = 'Look for a long transaction that has booked, and try again.';
    END;
    PERFORM set_config('lock_timeout', v_before, TRUE);
END
$$;

COMMENT ON FUNCTION retally.hold_flag(p_scope text, p_name text) IS 'Waits for the bookings of this scope in flight, and keeps new ones waiting.';

CREATE FUNCTION retally.hold_journal() RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_before text;
BEGIN
    PERFORM retally.require_read_committed('the journal cannot be switched');
    v_before := retally.set_lock_timeout((SELECT s.longest_flip FROM retally.setting AS s));
    PERFORM pg_advisory_xact_lock(hashtextextended('retally journal', 0));
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'another session is switching the journal'
            USING ERRCODE = 'RT005', HINT = 'Try again in a moment.';
END
$$;

COMMENT ON FUNCTION retally.hold_journal() IS 'Makes this transaction the only one that switches the journal on or off.';

CREATE FUNCTION retally.hold_scope(p_scope text, p_wait boolean) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_lock bigint := retally.scope_lock(p_scope);
    v_before text;
BEGIN
    PERFORM retally.require_read_committed('totals cannot be rebuilt');
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

CREATE FUNCTION retally.hold_scopes(p_scopes text[], p_wait boolean) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_deadline timestamptz := clock_timestamp()
    + CASE WHEN p_wait THEN retally.lock_budget() ELSE interval '50 milliseconds' END;
    v_scope text;
    v_held text[] := '{}';
BEGIN
    PERFORM retally.require_read_committed('totals cannot be rebuilt');
    FOR v_scope IN
        SELECT DISTINCT s.scope
        FROM unnest(p_scopes) AS s (scope)
        ORDER BY s.scope
    LOOP
        IF pg_try_advisory_xact_lock(retally.scope_lock(v_scope)) THEN
            v_held := v_held || v_scope;
        ELSIF clock_timestamp() < v_deadline THEN
            BEGIN
                PERFORM retally.hold_scope(v_scope, p_wait);
                v_held := v_held || v_scope;
            EXCEPTION
                WHEN SQLSTATE 'RT005' THEN NULL;
            END;
        END IF;
    END LOOP;
    RETURN v_held;
END
$$;

COMMENT ON FUNCTION retally.hold_scopes(p_scopes text[], p_wait boolean) IS 'Makes this transaction the only writer of those scopes that have no other; answers with these.';

CREATE FUNCTION retally.home(p_show_id text, p_total text, p_key text) RETURNS TABLE(show_id text, has_row boolean)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        j.pk_show::text,
        r.pk_layer IS NOT NULL
    FROM public.layer AS l
    LEFT JOIN public.layer_resource AS r ON l.pk_layer::text = r.pk_layer::text
    INNER JOIN public.job AS j ON coalesce(r.pk_job, l.pk_job)::text = j.pk_job::text
    WHERE p_total = 'layer' AND l.pk_layer::text = p_key
    UNION ALL
    SELECT
        j.pk_show::text,
        r.pk_job IS NOT NULL
    FROM public.job AS j
    LEFT JOIN public.job_resource AS r ON j.pk_job::text = r.pk_job::text
    WHERE p_total = 'job' AND j.pk_job::text = p_key
    UNION ALL
    SELECT
        f.pk_show::text,
        FALSE
    FROM public.folder AS f
    WHERE p_total = 'folder' AND f.pk_folder::text = p_key
    UNION ALL
    SELECT
        s.pk_show::text,
        FALSE
    FROM public.show AS s
    WHERE p_total IN ('subscription', 'point') AND s.pk_show::text = p_show_id
$$;

COMMENT ON FUNCTION retally.home(p_show_id text, p_total text, p_key text) IS 'The show that the row of this total and key belongs to, and whether it is there.';

CREATE FUNCTION retally.host_drift() RETURNS TABLE(host text, name text, slot text, idle bigint, expected bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
BEGIN
    RETURN QUERY
    WITH held AS (
        SELECT
            p.pk_host::text AS host,
            sum(p.int_cores_reserved) AS cores,
            sum(p.int_mem_reserved) AS mem_kb,
            sum(p.int_gpus_reserved) AS gpus,
            sum(p.int_gpu_mem_reserved) AS gpu_mem_kb
        FROM public.proc AS p
        GROUP BY p.pk_host
    )

    SELECT
        h.pk_host::text,
        h.str_name::text,
        s.slot,
        s.idle,
        s.expected::bigint
    FROM public.host AS h
    LEFT JOIN held AS d ON h.pk_host::text = d.host
    CROSS JOIN LATERAL (
        VALUES
        ('cores', h.int_cores_idle, h.int_cores - coalesce(d.cores, 0)),
        ('mem_kb', h.int_mem_idle, h.int_mem - coalesce(d.mem_kb, 0)),
        ('gpus', h.int_gpus_idle, h.int_gpus - coalesce(d.gpus, 0)),
        ('gpu_mem_kb', h.int_gpu_mem_idle, h.int_gpu_mem - coalesce(d.gpu_mem_kb, 0))
    ) AS s (slot, idle, expected)
    WHERE s.idle <> s.expected
    ORDER BY h.str_name, h.pk_host, s.slot;
END
$$;

COMMENT ON FUNCTION retally.host_drift() IS 'The hosts whose idle amounts are not what they have less what their procs hold.';

CREATE FUNCTION retally.insert_procs(p_bookings retally.booking[]) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_in text[];
BEGIN
    -- One statement, so that the hosts are ours before the foreign keys' checks would share locks
    -- on them with others; frames in key order, so that no two batches wait for each other.
    WITH new AS (
        INSERT INTO public.proc AS p (
            pk_proc, pk_host, pk_show, pk_job, pk_layer, pk_frame, int_cores_reserved,
            int_mem_reserved, int_mem_pre_reserved, int_gpus_reserved, int_gpu_mem_reserved,
            int_gpu_mem_pre_reserved, b_local
        )
        SELECT
            b.proc,
            b.host,
            b.show,
            b.job,
            b.layer,
            b.frame,
            b.cores,
            b.mem_kb,
            b.mem_kb AS mem_kb_asked,
            b.gpus,
            b.gpu_mem_kb,
            b.gpu_mem_kb AS gpu_mem_kb_asked,
            b.local
        FROM unnest(p_bookings) AS b
        WHERE b.show IS NOT NULL
        ORDER BY b.frame, b.nr
        ON CONFLICT DO NOTHING
        RETURNING p.pk_proc
    ),

    spot AS MATERIALIZED (
        SELECT h.pk_host
        FROM public.host AS h
        WHERE
            h.pk_host::text IN (
                SELECT b.host FROM unnest(p_bookings) AS b
                WHERE b.show IS NOT NULL
            )
            -- the hosts after the procs
            AND (SELECT count(*) FROM new) >= 0
        ORDER BY h.pk_host
        FOR NO KEY UPDATE OF h
    )

    SELECT i.procs
    INTO v_in
    FROM (SELECT array_agg(n.pk_proc::text) AS procs FROM new AS n) AS i
    CROSS JOIN (SELECT count(*) AS locked FROM spot) AS s;
    RETURN coalesce(v_in, '{}');
END
$$;

COMMENT ON FUNCTION retally.insert_procs(p_bookings retally.booking[]) IS 'Inserts the procs of a batch and answers with the ids of those that are in.';

CREATE FUNCTION retally.is_alive(p_seen_at timestamp with time zone, p_every interval, p_now timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT p_seen_at BETWEEN p_now - p_every * 2.5 AND p_now + p_every
$$;

COMMENT ON FUNCTION retally.is_alive(p_seen_at timestamp with time zone, p_every interval, p_now timestamp with time zone) IS 'Whether a worker that was last seen then is taken for alive.';

CREATE FUNCTION retally.is_due(p_due_at timestamp with time zone, p_every interval, p_until timestamp with time zone, p_now timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    -- a due time is set a tenth of the interval early at most
    SELECT p_due_at <= p_until OR p_due_at > p_now + p_every * 1.2
$$;

COMMENT ON FUNCTION retally.is_due(p_due_at timestamp with time zone, p_every interval, p_until timestamp with time zone, p_now timestamp with time zone) IS 'Whether a due time has come.';

CREATE FUNCTION retally.is_managed(p_scope text) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_managed boolean;
BEGIN
    SELECT f.managed
    INTO v_managed
    FROM retally.scope_flag AS f
    WHERE f.scope = p_scope;
    IF NOT FOUND THEN
        SELECT retally.overridden(FALSE, s.override)
        INTO v_managed
        FROM retally.setting AS s;
    END IF;
    RETURN v_managed;
END
$$;

COMMENT ON FUNCTION retally.is_managed(p_scope text) IS 'Whether the flag in force of this scope is on.';

CREATE FUNCTION retally.is_wanted(p_wanted_at timestamp with time zone) RETURNS boolean
    LANGUAGE sql
    AS $$
    SELECT coalesce(p_wanted_at > clock_timestamp() - retally.lease_wish(), FALSE)
$$;

COMMENT ON FUNCTION retally.is_wanted(p_wanted_at timestamp with time zone) IS 'Whether the wish of a dispatcher that was refused a scope still counts.';

CREATE FUNCTION retally.job_vertex(p_job text) RETURNS TABLE(show_id text, show_name text, managed boolean, name text, folder_id text, max_cores bigint, max_gpus bigint, cores numeric, gpus numeric)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
BEGIN
    RETURN QUERY
    SELECT
        j.pk_show::text,
        s.str_name::text,
        retally.is_managed(j.pk_show::text),
        j.str_name::text,
        j.pk_folder::text,
        coalesce(r.int_max_cores, -1)::bigint,
        coalesce(r.int_max_gpus, -1)::bigint,
        coalesce(b.cores, 0),
        coalesce(b.gpus, 0)
    FROM public.job AS j
    INNER JOIN public.show AS s ON j.pk_show::text = s.pk_show::text
    LEFT JOIN public.job_resource AS r ON j.pk_job::text = r.pk_job::text
    LEFT JOIN retally.booked_in(NULL, ARRAY['job'], ARRAY[p_job], 'procs') AS b
        ON j.pk_job::text = b.key
    WHERE j.pk_job::text = p_job;
END
$$;

COMMENT ON FUNCTION retally.job_vertex(p_job text) IS 'The row of vertices() of one job, with its show.';

CREATE FUNCTION retally.journal_procs() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_layer_moved boolean := FALSE;
BEGIN
    -- first of all: on a table of somebody else's, whatever follows would run with our rights
    IF TG_RELID <> 'public.proc'::regclass THEN
        RAISE EXCEPTION 'the journal is for public.proc only'
            USING ERRCODE = 'insufficient_privilege', HINT = 'See retally.set_journal().';
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO retally.journal (scope, host_id, layer_id, job_id, local, cores, gpus)
        SELECT
            n.pk_show,
            n.pk_host,
            n.pk_layer,
            n.pk_job,
            n.b_local,
            n.int_cores_reserved,
            n.int_gpus_reserved
        FROM new_rows AS n
        INNER JOIN retally.scope_flag AS f ON n.pk_show::text = f.scope AND f.journaled;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO retally.journal (scope, host_id, layer_id, job_id, local, cores, gpus)
        SELECT
            o.pk_show,
            o.pk_host,
            o.pk_layer,
            o.pk_job,
            o.b_local,
            -o.int_cores_reserved,
            -o.int_gpus_reserved
        FROM old_rows AS o
        INNER JOIN retally.scope_flag AS f ON o.pk_show::text = f.scope AND f.journaled;
    ELSE
        -- a proc that goes on with another layer is moved in the layers' totals by the farm itself
        v_layer_moved := coalesce(old.pk_layer <> new.pk_layer, FALSE);
        INSERT INTO retally.journal (scope, host_id, layer_id, job_id, local, cores, gpus)
        SELECT e.*
        FROM (
            VALUES
            (
                old.pk_show, old.pk_host,
                CASE WHEN NOT v_layer_moved THEN old.pk_layer END, old.pk_job, old.b_local,
                -old.int_cores_reserved, -old.int_gpus_reserved
            ),
            (
                new.pk_show, new.pk_host,
                CASE WHEN NOT v_layer_moved THEN new.pk_layer END, new.pk_job, new.b_local,
                new.int_cores_reserved, new.int_gpus_reserved
            )
        ) AS e (scope, host_id, layer_id, job_id, local, cores, gpus)
        INNER JOIN retally.scope_flag AS f ON e.scope::text = f.scope AND f.journaled;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION retally.journal_procs() IS 'Appends to the journal what procs of journaled shows book and release.';

CREATE FUNCTION retally.journal_triggers() RETURNS TABLE(name text, works boolean)
    LANGUAGE sql STABLE
    AS $$
    SELECT
        t.tgname::text,
        t.tgenabled IN ('O', 'A')
    FROM pg_catalog.pg_trigger AS t
    INNER JOIN pg_catalog.pg_proc AS p ON t.tgfoid = p.oid
    WHERE
        t.tgrelid = to_regclass('public.proc')
        AND p.pronamespace = to_regnamespace('retally')
    ORDER BY t.tgname
$$;

COMMENT ON FUNCTION retally.journal_triggers() IS 'The triggers of the journal on the farm''s proc, and whether each works.';

CREATE FUNCTION retally.keep_leases(p_holder text, p_scopes text[], p_tokens bigint[], p_for interval) RETURNS TABLE(scope text, yield boolean)
    LANGUAGE plpgsql
    AS $$
BEGIN
    WITH free AS (
        SELECT l.scope
        FROM unnest(p_scopes, p_tokens) AS h (scope, token)
        INNER JOIN retally.lease AS l ON h.scope = l.scope AND h.token = l.token
        WHERE l.holder = p_holder AND l.expires_at > clock_timestamp()
        FOR NO KEY UPDATE OF l SKIP LOCKED
    )

    UPDATE retally.lease AS l
    SET expires_at = clock_timestamp() + p_for
    FROM free AS f
    WHERE l.scope = f.scope;

    RETURN QUERY
    WITH served AS (
        SELECT l.*
        FROM retally.lease AS l
        -- what was given up for somebody who has not come yet is his
        WHERE l.expires_at > clock_timestamp() OR retally.is_wanted(l.wanted_at)
    ),

    dispatchers AS (
        SELECT s.holder
        FROM served AS s
        WHERE s.expires_at > clock_timestamp()
        UNION
        SELECT s.wanted_by
        FROM served AS s
        WHERE retally.is_wanted(s.wanted_at)
    ),

    kept AS (
        SELECT
            s.scope,
            s.taken_at,
            retally.is_wanted(s.wanted_at) AND s.wanted_by <> p_holder AS wanted
        FROM served AS s
        INNER JOIN unnest(p_scopes, p_tokens) AS h (scope, token)
            ON s.scope = h.scope AND s.token = h.token
        WHERE s.holder = p_holder AND s.expires_at > clock_timestamp()
    ),

    share AS (
        SELECT ceil(
            (SELECT count(*) FROM served AS s)::numeric
            / greatest((SELECT count(*) FROM dispatchers AS d), 1)
        ) AS scopes
    )

    SELECT
        k.scope,
        k.wanted
        AND row_number() OVER (PARTITION BY k.wanted ORDER BY k.taken_at, k.scope)
        <= count(*) OVER () - a.scopes
    FROM kept AS k
    CROSS JOIN share AS a
    ORDER BY k.scope;
END
$$;

COMMENT ON FUNCTION retally.keep_leases(p_holder text, p_scopes text[], p_tokens bigint[], p_for interval) IS 'Makes leases last, and answers with those that still stand.';

CREATE FUNCTION retally.keep_passes(p_passes retally.pass[], p_seizures retally.seizure[] DEFAULT '{}'::retally.seizure[]) RETURNS void
    LANGUAGE plpgsql
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

COMMENT ON FUNCTION retally.keep_passes(p_passes retally.pass[], p_seizures retally.seizure[]) IS 'Keeps the results of passes, and which rows they left, waiting for nobody.';

CREATE FUNCTION retally.keep_quiet(p_findings retally.finding[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_before text;
BEGIN
    v_before := retally.set_lock_timeout(interval '50 milliseconds');
    PERFORM retally.note_findings(p_findings, 'rebuilt', 'by hand', current_user, 0);
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE WARNING 'the results of quiet passes are not kept: somebody has locked them';
END
$$;

COMMENT ON FUNCTION retally.keep_quiet(p_findings retally.finding[]) IS 'Keeps the results of passes that had nothing to write, waiting for nobody.';

CREATE FUNCTION retally.kept_out(p_bookings retally.booking[], p_managed text[], p_tokens bigint[], p_folders text[], p_moved integer[]) RETURNS TABLE(nr integer, stopped_by text)
    LANGUAGE sql
    AS $$
    SELECT
        k.nr,
        k.stopped_by
    FROM (
        SELECT
            b.nr,
            CASE
                WHEN
                    b.show = any(p_managed)
                    AND NOT retally.lease_stands(l, p_tokens[b.nr])
                    THEN 'lease'
                WHEN j.pk_folder::text <> p_folders[b.nr] OR b.nr = any(p_moved) THEN 'move'
            END AS stopped_by
        FROM unnest(p_bookings) AS b
        LEFT JOIN retally.lease AS l ON b.show = l.scope
        LEFT JOIN public.job AS j ON p_folders[b.nr] IS NOT NULL AND b.job = j.pk_job::text
        WHERE b.show IS NOT NULL
    ) AS k
    WHERE k.stopped_by IS NOT NULL
$$;

COMMENT ON FUNCTION retally.kept_out(p_bookings retally.booking[], p_managed text[], p_tokens bigint[], p_folders text[], p_moved integer[]) IS 'Which entries of a batch are kept out, and why.';

CREATE FUNCTION retally.latest_left(p_scope text, p_total text) RETURNS TABLE(rows_adrift bigint, rows_failed bigint, core_units numeric, gpus numeric, problems text[])
    LANGUAGE sql STABLE
    AS $$
    WITH latest AS (
        SELECT
            p.*,
            CASE
                WHEN p.action IN ('rebuilt', 'folded', 'repaired') THEN p.rows_deferred
                ELSE p.rows_adrift
            END AS rows_left
        FROM retally.pass AS p
        WHERE p.scope = p_scope AND p.total = p_total
        ORDER BY p.finished_at DESC
        LIMIT 1
    )

    SELECT
        l.rows_left,
        l.rows_failed,
        CASE WHEN l.rows_left > 0 THEN l.core_units_adrift END,
        CASE WHEN l.rows_left > 0 THEN l.gpus_adrift END,
        l.problems
    FROM latest AS l
$$;

COMMENT ON FUNCTION retally.latest_left(p_scope text, p_total text) IS 'What the latest pass over a total of a scope has left.';

CREATE TABLE retally.lease (
    scope text NOT NULL,
    token bigint NOT NULL,
    holder text,
    expires_at timestamp with time zone NOT NULL,
    taken_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    wanted_by text,
    wanted_at timestamp with time zone
)
WITH (fillfactor='50');

COMMENT ON TABLE retally.lease IS 'Which dispatcher serves a scope, and counts its caps in memory. Written by take_lease(), keep_leases(), end_leases() and flips.';

COMMENT ON COLUMN retally.lease.token IS 'Goes up with each taking; a booking under another one is refused.';

COMMENT ON COLUMN retally.lease.holder IS 'The dispatcher; null when nobody serves the scope and no booking needs a token.';

COMMENT ON COLUMN retally.lease.wanted_by IS 'Another dispatcher that was refused a moment ago; it gets the scope when its turn comes.';

CREATE FUNCTION retally.lease_stands(p_lease retally.lease, p_token bigint) RETURNS boolean
    LANGUAGE sql
    AS $$
    SELECT
        CASE
            WHEN p_token IS NULL THEN (p_lease).holder IS NULL
            ELSE coalesce(
                (p_lease).holder IS NOT NULL
                AND (p_lease).token = p_token
                AND (p_lease).expires_at > clock_timestamp(),
                FALSE
            )
        END
$$;

COMMENT ON FUNCTION retally.lease_stands(p_lease retally.lease, p_token bigint) IS 'Whether a booking of a managed scope may go ahead under this token.';

CREATE FUNCTION retally.lease_wish() RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT interval '3 seconds'
$$;

COMMENT ON FUNCTION retally.lease_wish() IS 'How long the wish of a dispatcher that was refused a scope counts.';

CREATE FUNCTION retally.leases() RETURNS TABLE(show_id text, name text, holder text, token bigint, taken_at timestamp with time zone, expires_at timestamp with time zone, live boolean, wanted_by text)
    LANGUAGE sql STABLE
    AS $$
    SELECT
        l.scope,
        s.str_name::text,
        l.holder,
        l.token,
        l.taken_at,
        l.expires_at,
        l.expires_at > clock_timestamp(),
        CASE WHEN retally.is_wanted(l.wanted_at) THEN l.wanted_by END
    FROM retally.lease AS l
    LEFT JOIN public.show AS s ON l.scope = s.pk_show::text
    WHERE l.holder IS NOT NULL
    ORDER BY 2, 1
$$;

COMMENT ON FUNCTION retally.leases() IS 'The leases that somebody holds.';

CREATE TABLE retally.ledger (
    run bigint NOT NULL,
    scope text NOT NULL,
    total text NOT NULL,
    key text NOT NULL,
    slot text NOT NULL,
    before numeric NOT NULL,
    after numeric NOT NULL,
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    cause text
);

COMMENT ON TABLE retally.ledger IS 'What the repairs changed, slot by slot, in the unit in which the farm stores it.';

COMMENT ON COLUMN retally.ledger.cause IS 'What had made the value wrong, where that is known.';

CREATE FUNCTION retally.ledger_rows(p_scopes text[], p_totals text[], p_run bigint, p_since timestamp with time zone) RETURNS SETOF retally.ledger
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        l.run,
        l.scope,
        l.total,
        l.key,
        l.slot,
        l.before,
        l.after,
        l.changed_at,
        l.cause
    FROM retally.ledger AS l
    WHERE
        (coalesce(cardinality(p_scopes), 0) = 0 OR l.scope = any(p_scopes))
        AND (coalesce(cardinality(p_totals), 0) = 0 OR l.total = any(p_totals))
        AND (p_run IS NULL OR l.run = p_run)
        AND (p_since IS NULL OR l.changed_at >= p_since)
$$;

COMMENT ON FUNCTION retally.ledger_rows(p_scopes text[], p_totals text[], p_run bigint, p_since timestamp with time zone) IS 'The rows of the ledger that these filters choose.';

CREATE FUNCTION retally.likely_causes(p_changes retally.change[]) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    WITH patterns AS (
        SELECT
            c.total,
            c.before,
            c.after,
            c.place,
            sum(c.after - c.before) OVER by_slot AS net,
            count(*) OVER by_slot AS changed,
            bool_and(c.after < c.before) OVER by_slot AS all_fell,
            bool_and(c.after > c.before) OVER by_slot AS all_rose
        FROM unnest(p_changes) WITH ORDINALITY AS c (total, key, slot, before, after, place)
        WINDOW by_slot AS (PARTITION BY c.total, c.slot)
    )

    SELECT
        array_agg(
            CASE
                WHEN p.before < 0 THEN 'more was released than booked'
                WHEN p.net = 0 AND p.total = 'subscription' THEN 'a host changed its allocation'
                WHEN p.net = 0 AND p.total = 'folder' THEN 'a job changed its folder'
                WHEN p.net = 0 AND p.total = 'point' THEN 'a job changed its department'
                -- where some rose and some fell, what is at 0 now may have moved
                WHEN p.after = 0 AND p.all_fell THEN 'a release was not counted: no proc is left'
                WHEN p.before = 0 AND p.all_rose THEN 'a booking was not counted'
            END
            ORDER BY p.place
        )
    FROM patterns AS p
$$;

COMMENT ON FUNCTION retally.likely_causes(p_changes retally.change[]) IS 'What had probably made these values wrong.';

CREATE FUNCTION retally.lock_budget() RETURNS interval
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT least(current_setting('deadlock_timeout')::interval / 2, s.longest_wait)
    FROM retally.setting AS s
$$;

COMMENT ON FUNCTION retally.lock_budget() IS 'How long a pass may wait for busy rows.';

CREATE FUNCTION retally.lock_free_rows(p_show_id text, p_total text, p_keys text[], p_patient text[], OUT held text[], OUT busy text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
BEGIN
    SELECT
        coalesce(array_agg(l.key) FILTER (WHERE l.held), '{}'),
        coalesce(array_agg(l.key ORDER BY l.key) FILTER (WHERE NOT l.held), '{}')
    INTO held, busy
    FROM retally.lock_rows(p_show_id, p_total, p_keys) AS l;
    IF busy && p_patient THEN
        RAISE EXCEPTION USING ERRCODE = 'RT000', MESSAGE = 'let go';
    END IF;
EXCEPTION
    WHEN SQLSTATE 'RT000' THEN
        -- the locks went with the subtransaction; what was learned of the busy rows did not
        held := '{}';
END
$$;

COMMENT ON FUNCTION retally.lock_free_rows(p_show_id text, p_total text, p_keys text[], p_patient text[], OUT held text[], OUT busy text[]) IS 'Locks those rows of a total that are free, or none when one is busy that is worth waiting for.';

CREATE FUNCTION retally.lock_hosts(p_bookings retally.booking[]) RETURNS SETOF retally.booking
    LANGUAGE plpgsql
    AS $$
BEGIN
    RETURN QUERY
    WITH spot AS MATERIALIZED (
        SELECT
            h.pk_host,
            h.pk_alloc
        FROM public.host AS h
        WHERE h.pk_host::text IN (SELECT b.host FROM unnest(p_bookings) AS b)
        ORDER BY h.pk_host
        FOR NO KEY UPDATE OF h
    )

    SELECT
        b.nr,
        b.proc,
        b.show,
        s.pk_alloc::text,
        b.host,
        b.job,
        b.layer,
        b.frame,
        b.cores,
        b.mem_kb,
        b.gpus,
        b.gpu_mem_kb,
        b.local
    FROM unnest(p_bookings) AS b
    INNER JOIN spot AS s ON b.host = s.pk_host::text;
END
$$;

COMMENT ON FUNCTION retally.lock_hosts(p_bookings retally.booking[]) IS 'Locks the hosts of a batch and answers with the bookings, each with its allocation.';

CREATE FUNCTION retally.lock_keys(p_show_id text, p_total text, p_keys text[], p_wait boolean) RETURNS text[]
    LANGUAGE plpgsql
    AS $_$
DECLARE
    -- one statement for five tables, whose rows are found in the same way
    v_table text := CASE
        WHEN p_total IN ('layer', 'job', 'folder') THEN p_total || '_resource'
        ELSE p_total
    END;
    v_key text := CASE p_total
        WHEN 'subscription' THEN 'pk_alloc'
        WHEN 'point' THEN 'pk_dept'
        ELSE 'pk_' || p_total
    END;
    v_of_show text := CASE
        WHEN p_total IN ('subscription', 'point') THEN 'r.pk_show::text = $2'
        ELSE 'TRUE'
    END;
    v_locked text[];
BEGIN
    EXECUTE format(
        'SELECT ARRAY(
            SELECT r.%1$I::text
            FROM public.%2$I AS r
            WHERE %3$s AND r.%1$I::text IN (SELECT k.key FROM unnest($1) AS k (key))
            ORDER BY r.%1$I
            FOR NO KEY UPDATE OF r %4$s
        )',
        v_key, v_table, v_of_show, CASE WHEN p_wait THEN '' ELSE 'SKIP LOCKED' END
    )
    INTO v_locked
    USING p_keys, p_show_id;
    RETURN v_locked;
END
$_$;

COMMENT ON FUNCTION retally.lock_keys(p_show_id text, p_total text, p_keys text[], p_wait boolean) IS 'Locks rows of one total of a show, in key order; answers with the keys locked.';

CREATE FUNCTION retally.lock_rows(p_show_id text, p_total text, p_keys text[]) RETURNS TABLE(key text, held boolean)
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_locked text[] := retally.lock_keys(p_show_id, p_total, p_keys, FALSE);
BEGIN
    IF p_total <> 'folder' AND cardinality(v_locked) = cardinality(p_keys) THEN
        -- most often all are free, and the totals need not be read again
        RETURN QUERY
        SELECT
            l.key,
            TRUE
        FROM unnest(v_locked) AS l (key);
        RETURN;
    END IF;

    RETURN QUERY
    WITH locked AS (
        SELECT
            l.key,
            count(*) AS of_them
        FROM unnest(v_locked) AS l (key)
        GROUP BY l.key
    ),

    there AS (
        SELECT
            s.key,
            count(*) AS of_them
        FROM retally.stored_in(ARRAY[p_show_id], ARRAY[p_total], TRUE) AS s
        WHERE s.key IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        GROUP BY s.key
    )

    SELECT
        t.key,
        coalesce(l.of_them, 0) = t.of_them
    FROM there AS t
    LEFT JOIN locked AS l ON t.key = l.key;
END
$$;

COMMENT ON FUNCTION retally.lock_rows(p_show_id text, p_total text, p_keys text[]) IS 'Locks those rows of one total of a show that are free, and says which are held.';

CREATE FUNCTION retally.lock_totals(p_bookings retally.booking[], p_managed text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_row record;
BEGIN
    FOR v_row IN
        SELECT
            k.show,
            k.total,
            array_agg(DISTINCT k.key) AS keys
        FROM (
            SELECT
                b.show,
                t.total,
                t.place,
                CASE t.total
                    WHEN 'subscription' THEN b.alloc
                    WHEN 'layer' THEN b.layer
                    WHEN 'job' THEN b.job
                    WHEN 'folder' THEN j.pk_folder::text
                    ELSE j.pk_dept::text
                END AS key
            FROM unnest(p_bookings) AS b
            -- a proc may be left of a job that is gone
            LEFT JOIN public.job AS j ON b.job = j.pk_job::text
            CROSS JOIN unnest(retally.totals()) WITH ORDINALITY AS t (total, place)
            WHERE NOT b.show = any(p_managed) AND (NOT b.local OR t.total IN ('layer', 'job'))
        ) AS k
        WHERE k.key IS NOT NULL
        GROUP BY k.place, k.total, k.show
        ORDER BY k.place, k.show
    LOOP
        PERFORM retally.lock_keys(v_row.show, v_row.total, v_row.keys, TRUE);
    END LOOP;

    PERFORM
    FROM public.host_local AS s
    WHERE EXISTS (
        SELECT FROM unnest(p_bookings) AS b
        WHERE b.local AND s.pk_host::text = b.host AND s.pk_job::text = b.job
    )
    ORDER BY s.pk_host, s.pk_job
    FOR NO KEY UPDATE OF s;
END
$$;

COMMENT ON FUNCTION retally.lock_totals(p_bookings retally.booking[], p_managed text[]) IS 'Locks the totals and local shares that a batch will count procs into.';

CREATE FUNCTION retally.long_transactions(p_longer interval) RETURNS TABLE(name text, role_name text, application text, state text, seconds double precision)
    LANGUAGE sql
    AS $$
    SELECT
        t.name,
        t.role_name,
        t.application,
        t.state,
        extract(EPOCH FROM clock_timestamp() - t.begun_at)
    FROM (
        SELECT
            a.pid::text AS name,
            a.usename::text AS role_name,
            a.application_name AS application,
            a.state,
            a.xact_start AS begun_at
        FROM pg_catalog.pg_stat_activity AS a
        WHERE
            a.datname = current_database()
            AND a.backend_type = 'client backend'
            AND a.pid <> pg_backend_pid()
        UNION ALL
        SELECT
            x.gid,
            x.owner::text,
            '',
            'prepared',
            x.prepared
        FROM pg_catalog.pg_prepared_xacts AS x
        WHERE x.database = current_database()
    ) AS t
    WHERE t.begun_at < clock_timestamp() - p_longer
    ORDER BY t.begun_at
$$;

COMMENT ON FUNCTION retally.long_transactions(p_longer interval) IS 'The transactions of this database that are open for long, prepared ones too.';

CREATE FUNCTION retally.mend(p_findings retally.finding[], p_wait boolean, p_action text DEFAULT 'rebuilt'::text, p_tick text DEFAULT 'by hand'::text, p_worker text DEFAULT CURRENT_USER, p_goes_on boolean DEFAULT false) RETURNS TABLE(show_id text, total text, rows_adrift bigint, rows_changed bigint, rows_deferred bigint, rows_failed bigint, core_units numeric, gpus numeric, seconds double precision, problems text[], changes retally.change[])
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET random_page_cost TO '1.1'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
DECLARE
    v_started timestamptz := clock_timestamp();
    v_deadline timestamptz := v_started + retally.lock_budget();
    -- a transaction that has written before may have rows of the farm locked
    v_holding boolean := pg_current_xact_id_if_assigned() IS NOT NULL;
    v_done record;
BEGIN
    PERFORM retally.hold_scope(f.show_id, p_wait)
    FROM unnest(p_findings) AS f
    GROUP BY f.show_id
    ORDER BY f.show_id;

    FOR v_done IN
        SELECT
            (d.finding).*,
            d.rows_changed,
            d.busy,
            d.problems AS new_problems,
            d.changes
        FROM retally.mend_rows(
            ARRAY(
                SELECT f
                FROM unnest(p_findings) AS f
                ORDER BY f.show_id, array_position(retally.totals(), f.total)
            ),
            p_wait, v_deadline, v_holding, p_action = 'repaired'
        ) AS d
    LOOP
        show_id := v_done.show_id;
        total := v_done.total;
        rows_adrift := v_done.rows_adrift;
        rows_changed := v_done.rows_changed;
        rows_deferred := cardinality(v_done.busy);
        rows_failed := v_done.rows_failed + cardinality(v_done.new_problems);
        core_units := v_done.core_units;
        gpus := v_done.gpus;
        problems := v_done.problems || v_done.new_problems;
        changes := v_done.changes;
        seconds := extract(EPOCH FROM clock_timestamp() - v_started);
        PERFORM retally.keep_passes(
            ARRAY[
                ROW(
                    show_id, p_tick, total, p_action, p_worker, clock_timestamp(), seconds,
                    rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus,
                    problems, CASE WHEN p_goes_on THEN 0 END, NULL, NULL
                )::retally.pass
            ],
            ARRAY[ROW(show_id, total, '{}', v_done.busy)::retally.seizure]
        );
        v_started := clock_timestamp();
        RETURN NEXT;
    END LOOP;
END
$$;

COMMENT ON FUNCTION retally.mend(p_findings retally.finding[], p_wait boolean, p_action text, p_tick text, p_worker text, p_goes_on boolean) IS 'Lock, sum again, write: what was found adrift.';

CREATE FUNCTION retally.mend_by_hand(p_findings retally.finding[], p_wait boolean, p_goes_on boolean DEFAULT false) RETURNS SETOF retally.pass
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_adrift text[] := ARRAY(
        SELECT DISTINCT f.show_id FROM unnest(p_findings) AS f WHERE f.rows_adrift > 0
    );
    v_quiet retally.finding[] := ARRAY(
        SELECT f FROM unnest(p_findings) AS f WHERE f.show_id <> ALL (v_adrift)
    );
BEGIN
    PERFORM retally.keep_quiet(v_quiet);
    RETURN QUERY
    SELECT
        m.show_id,
        'by hand',
        m.total,
        'rebuilt',
        current_user::text,
        clock_timestamp(),
        m.seconds,
        m.rows_adrift,
        m.rows_changed,
        m.rows_deferred,
        m.rows_failed,
        m.core_units,
        m.gpus,
        m.problems,
        NULL::bigint,
        NULL::timestamptz,
        NULL::timestamptz
    FROM
        retally.mend(
            ARRAY(SELECT f FROM unnest(p_findings) AS f WHERE f.show_id = ANY (v_adrift)), p_wait,
            p_goes_on => p_goes_on
        ) AS m
    UNION ALL
    SELECT
        q.show_id,
        'by hand',
        q.total,
        'rebuilt',
        current_user::text,
        clock_timestamp(),
        0,
        0,
        0,
        0,
        q.rows_failed,
        0,
        0,
        q.problems,
        NULL,
        NULL,
        NULL
    FROM unnest(v_quiet) AS q;
END
$$;

COMMENT ON FUNCTION retally.mend_by_hand(p_findings retally.finding[], p_wait boolean, p_goes_on boolean) IS 'mend() by hand, as passes.';

CREATE FUNCTION retally.mend_rows(p_findings retally.finding[], p_wait boolean, p_deadline timestamp with time zone, p_holding boolean, p_tell boolean) RETURNS TABLE(finding retally.finding, rows_changed bigint, busy text[], problems text[], changes retally.change[])
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_holding boolean := p_holding;
    v_finding retally.finding;
    v_seizure retally.seizure;
    v_seizures retally.seizure[] := '{}';
    v_before retally.amount[];
    v_done record;
    v_row record;
BEGIN
    FOREACH v_finding IN ARRAY p_findings LOOP
        SELECT v_finding.show_id, v_finding.total, '{}', '{}'
        INTO v_seizure;
        IF cardinality(v_finding.keys) > 0 THEN
            SELECT v_finding.show_id, v_finding.total, s.held, s.busy
            INTO v_seizure
            FROM retally.seize_rows(
                v_finding.show_id, v_finding.total, v_finding.keys, p_wait, p_deadline, v_holding
            ) AS s;
        END IF;
        v_holding := v_holding OR cardinality(v_seizure.held) > 0;
        v_seizures := v_seizures || v_seizure;
    END LOOP;

    FOR v_row IN
        -- a statement of its own: its snapshot holds every booking that committed before the locks
        WITH sums AS MATERIALIZED (
            SELECT
                s.show_id,
                s.total,
                array_agg(s.amount) AS amounts
            FROM retally.sum_again(v_seizures) AS s
            GROUP BY s.show_id, s.total
        )

        SELECT
            p_findings[z.place] AS finding,
            z.scope AS show_id,
            z.total,
            z.held,
            z.busy,
            coalesce(s.amounts, '{}') AS amounts
        FROM unnest(v_seizures) WITH ORDINALITY AS z (scope, total, held, busy, place)
        LEFT JOIN sums AS s ON z.scope = s.show_id AND z.total = s.total
        ORDER BY z.place
    LOOP
        finding := v_row.finding;
        busy := v_row.busy;
        changes := '{}';
        IF p_tell THEN
            v_before := ARRAY(
                SELECT b FROM retally.amounts_in(v_row.show_id, v_row.total, v_row.held) AS b
            );
        END IF;
        SELECT w.*
        INTO v_done
        FROM retally.write_what_fits(v_row.show_id, v_row.total, v_row.amounts) AS w;
        rows_changed := cardinality(v_done.written);
        problems := ARRAY(
            SELECT retally.problem('misfit', v_row.total, m.key, NULL, NULL, m.refusal)
            FROM unnest(v_done.misfits, v_done.refusals) AS m (key, refusal)
        );
        IF p_tell THEN
            changes := ARRAY(
                SELECT c
                FROM retally.changes_between(v_row.total, v_before, v_row.amounts) AS c
                WHERE c.key IN (SELECT k.key FROM unnest(v_done.written) AS k (key))
            );
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

COMMENT ON FUNCTION retally.mend_rows(p_findings retally.finding[], p_wait boolean, p_deadline timestamp with time zone, p_holding boolean, p_tell boolean) IS 'Lock, sum again, write: for what was found adrift.';

CREATE FUNCTION retally.missing_indexes() RETURNS TABLE(table_name text, column_name text, used_by text)
    LANGUAGE sql STABLE
    AS $$
    SELECT
        w.table_name,
        w.column_name,
        w.used_by
    FROM (
        VALUES
        ('proc', 'pk_show', 'ticks'),
        ('proc', 'pk_layer', 'ticks'),
        ('proc', 'pk_job', 'ticks'),
        ('job', 'pk_job', 'ticks'),
        ('layer', 'pk_layer', 'ticks'),
        ('layer_resource', 'pk_layer', 'ticks'),
        ('job_resource', 'pk_job', 'ticks'),
        ('proc', 'pk_proc', 'bookings'),
        ('host', 'pk_host', 'bookings'),
        ('host_local', 'pk_host', 'bookings'),
        ('frame', 'pk_frame', 'bookings')
    ) AS w (table_name, column_name, used_by)
    WHERE NOT EXISTS (
        SELECT
        FROM pg_catalog.pg_index AS i
        INNER JOIN pg_catalog.pg_class AS c ON i.indrelid = c.oid
        INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
        INNER JOIN pg_catalog.pg_attribute AS a
            ON i.indrelid = a.attrelid AND i.indkey[0] = a.attnum
        INNER JOIN pg_catalog.pg_class AS x ON i.indexrelid = x.oid
        INNER JOIN pg_catalog.pg_am AS m ON x.relam = m.oid
        WHERE
            n.nspname = 'public'
            AND c.relname = w.table_name
            AND a.attname = w.column_name
            AND i.indisvalid
            AND i.indpred IS NULL
            AND m.amname IN ('btree', 'hash')
    )
$$;

COMMENT ON FUNCTION retally.missing_indexes() IS 'The columns that ticks or bookings look rows up by and that lead no usable index.';

CREATE FUNCTION retally.missing_rights(p_role text, p_for text) RETURNS TABLE(kind text, object text, privilege text, columns text[])
    LANGUAGE sql STABLE
    AS $$
    -- by the catalog: a name would have to be looked up with rights that may be missing
    WITH wanted AS (
        SELECT
            r.*,
            n.oid AS schema_id,
            c.oid AS table_id
        FROM retally.rights(p_for) AS r
        LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = split_part(r.object, '.', 1)
        LEFT JOIN pg_catalog.pg_class AS c
            ON
                n.oid = c.relnamespace
                AND c.relname = split_part(r.object, '.', 2)
    )

    SELECT
        w.kind,
        w.object,
        w.privilege,
        l.lacking
    FROM wanted AS w
    CROSS JOIN
        LATERAL (
            SELECT array_agg(k.column_name ORDER BY k.place) AS lacking
            FROM unnest(w.columns) WITH ORDINALITY AS k (column_name, place)
            LEFT JOIN pg_catalog.pg_attribute AS a
                ON w.table_id = a.attrelid AND k.column_name = a.attname
            WHERE
                has_column_privilege(p_role::name, w.table_id, a.attnum, w.privilege) IS NOT TRUE
        ) AS l
    WHERE
        CASE
            WHEN w.kind = 'schema'
                THEN has_schema_privilege(p_role::name, w.schema_id, w.privilege) IS NOT TRUE
            WHEN w.kind = 'routines'
                THEN EXISTS (
                    SELECT FROM pg_catalog.pg_proc AS p
                    WHERE
                        p.pronamespace = w.schema_id
                        AND NOT has_function_privilege(p_role::name, p.oid, w.privilege)
                )
            WHEN w.columns IS NULL
                THEN has_table_privilege(p_role::name, w.table_id, w.privilege) IS NOT TRUE
            ELSE l.lacking IS NOT NULL
        END
$$;

COMMENT ON FUNCTION retally.missing_rights(p_role text, p_for text) IS 'The rights that a role lacks for the work of a worker, a dispatcher or a reader.';

CREATE FUNCTION retally.missing_rows() RETURNS TABLE(show_id text, total text, key text, name text, cores numeric, gpus numeric, show_name text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET random_page_cost TO '1.1'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
BEGIN
    RETURN QUERY
    SELECT
        c.show_id,
        c.total,
        c.key,
        retally.row_name(c.total, c.key),
        c.cores + c.local_cores,
        c.gpus + c.local_gpus,
        n.name
    FROM retally.compared(NULL, retally.totals(), 'procs') AS c
    LEFT JOIN retally.shows() AS n ON c.show_id = n.show_id
    WHERE c.kind = 'missing'
    ORDER BY c.show_id, array_position(retally.totals(), c.total), c.key;
END
$$;

COMMENT ON FUNCTION retally.missing_rows() IS 'The rows of totals that are not there, while procs are booked that belong into them.';

CREATE FUNCTION retally.moved(p_host text, p_job text, OUT problem text, OUT message text, OUT hint text) RETURNS record
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT
        'RT020',
        format('job "%s" or host "%s" has moved since its caps were counted', p_job, p_host),
        'Count them where it is now, and try again.'
$$;

COMMENT ON FUNCTION retally.moved(p_host text, p_job text, OUT problem text, OUT message text, OUT hint text) IS 'Why a booking is not let in whose caps were counted where its proc would not be.';

CREATE FUNCTION retally.named_drift(p_show_ids text[], p_totals text[]) RETURNS TABLE(show_name text, total text, name text, key text, slot text, stored numeric, booked numeric)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET random_page_cost TO '1.1'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
DECLARE
    v_read text[] := retally.read_for(p_show_ids);
BEGIN
    RETURN QUERY
    WITH drift AS MATERIALIZED (
        SELECT d.*
        FROM retally.drift_in(v_read, p_totals) AS d
        WHERE d.show_id = ANY (p_show_ids)
    )

    SELECT
        s.str_name::text,
        d.total,
        coalesce(n.name, d.key),
        d.key,
        d.slot,
        d.stored,
        d.booked
    FROM drift AS d
    INNER JOIN public.show AS s ON d.show_id = s.pk_show::text
    LEFT JOIN retally.names() AS n ON d.total = n.total AND d.key = n.key
    ORDER BY
        s.str_name, d.show_id, array_position(retally.totals(), d.total), d.key, d.slot;
END
$$;

COMMENT ON FUNCTION retally.named_drift(p_show_ids text[], p_totals text[]) IS 'drift_in() with the names that people know the shows and rows by.';

CREATE FUNCTION retally.names() RETURNS TABLE(total text, key text, name text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        'subscription' AS total,
        a.pk_alloc::text AS key,
        a.str_name::text AS name
    FROM public.alloc AS a
    UNION ALL
    SELECT
        'layer',
        l.pk_layer::text,
        j.str_name::text || '/' || l.str_name::text
    FROM public.layer AS l
    INNER JOIN public.job AS j ON l.pk_job::text = j.pk_job::text
    UNION ALL
    SELECT
        'job',
        j.pk_job::text,
        j.str_name::text
    FROM public.job AS j
    UNION ALL
    SELECT
        'folder',
        f.pk_folder::text,
        f.str_name::text
    FROM public.folder AS f
    UNION ALL
    SELECT
        'point',
        d.pk_dept::text,
        d.str_name::text
    FROM public.dept AS d
$$;

COMMENT ON FUNCTION retally.names() IS 'What people call the row of each total and key.';

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

CREATE FUNCTION retally.note_deferred(p_scope text, p_total text, p_busy text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
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

COMMENT ON FUNCTION retally.note_deferred(p_scope text, p_total text, p_busy text[]) IS 'Keeps which rows of a total a pass left because they were busy.';

CREATE FUNCTION retally.note_failure(p_tick text, p_scope text, p_pause interval, p_error text) RETURNS void
    LANGUAGE sql
    AS $$
    UPDATE retally.due AS d
    SET
        due_at = clock_timestamp() + p_pause,
        every = p_pause,
        failures = d.failures + 1,
        error = p_error
    WHERE d.tick = p_tick AND d.scope = p_scope
$$;

COMMENT ON FUNCTION retally.note_failure(p_tick text, p_scope text, p_pause interval, p_error text) IS 'Leaves a scope alone in this tick for a while, for all workers.';

CREATE FUNCTION retally.note_findings(p_findings retally.finding[], p_action text, p_tick text, p_worker text, p_seconds double precision) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    PERFORM retally.note_passes(
        ARRAY(
            SELECT
                ROW(
                    f.show_id, p_tick, f.total, p_action, p_worker, v_now, p_seconds,
                    f.rows_adrift, 0, 0, f.rows_failed, f.core_units, f.gpus, f.problems,
                    NULL, NULL, NULL
                )::retally.pass
            FROM unnest(p_findings) AS f
        )
    );
    -- a row that is locked belongs to a pass that is under way, and knows better
    DELETE FROM retally.deferred AS d
    WHERE d.ctid IN (
        SELECT o.ctid
        FROM retally.deferred AS o
        INNER JOIN unnest(p_findings) AS f ON o.scope = f.show_id AND o.total = f.total
        FOR UPDATE OF o SKIP LOCKED
    );
END
$$;

COMMENT ON FUNCTION retally.note_findings(p_findings retally.finding[], p_action text, p_tick text, p_worker text, p_seconds double precision) IS 'Keeps what was found as passes that wrote nothing.';

CREATE FUNCTION retally.note_passes(p_passes retally.pass[]) RETURNS void
    LANGUAGE sql
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

COMMENT ON FUNCTION retally.note_passes(p_passes retally.pass[]) IS 'Keeps the results of passes: the latest ones, and the history.';

CREATE FUNCTION retally.note_recovery(p_tick text, p_scopes text[]) RETURNS void
    LANGUAGE sql
    AS $$
    WITH failing AS (
        SELECT d.scope
        FROM retally.due AS d
        WHERE d.tick = p_tick AND d.scope = any(p_scopes) AND d.failures > 0
        ORDER BY d.scope
        FOR UPDATE
    )

    UPDATE retally.due AS d
    SET
        failures = 0,
        error = NULL
    FROM failing AS f
    WHERE d.tick = p_tick AND d.scope = f.scope
$$;

COMMENT ON FUNCTION retally.note_recovery(p_tick text, p_scopes text[]) IS 'Forgets the failures of scopes that have been served again in this tick.';

CREATE FUNCTION retally.note_run(p_run bigint, p_worker text, p_cause text, p_forced boolean, p_undoes bigint, p_scope text, p_changes retally.change[], p_causes text[]) RETURNS bigint
    LANGUAGE plpgsql
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

COMMENT ON FUNCTION retally.note_run(p_run bigint, p_worker text, p_cause text, p_forced boolean, p_undoes bigint, p_scope text, p_changes retally.change[], p_causes text[]) IS 'Writes into the ledger what a run changed in a scope.';

CREATE FUNCTION retally.notify_limit(p_vertex jsonb, p_cores_name text, p_cores bigint, p_gpus bigint) RETURNS void
    LANGUAGE sql
    AS $$
    SELECT
        pg_notify(
            'acct_limit_change',
            (
                p_vertex || jsonb_strip_nulls(
                    jsonb_build_object(
                        p_cores_name,
                        CASE
                            WHEN p_cores < 0 THEN -1
                            WHEN p_cores BETWEEN 1 AND 99 AND p_cores_name <> 'burst' THEN 1
                            ELSE p_cores / 100
                        END,
                        'max_gpus', p_gpus,
                        'core_units', p_cores,
                        'xact', pg_current_xact_id()::text
                    )
                )
            )::text
        )
    FROM retally.setting AS s
    WHERE s.notify
$$;

COMMENT ON FUNCTION retally.notify_limit(p_vertex jsonb, p_cores_name text, p_cores bigint, p_gpus bigint) IS 'Tells the listeners of acct_limit_change of new caps.';

CREATE FUNCTION retally.notify_release(p_show text, p_alloc text, p_layer text, p_job text, p_cores bigint, p_gpus bigint, p_hosts text[]) RETURNS void
    LANGUAGE sql
    AS $$
    SELECT
        pg_notify(
            'acct_release',
            json_build_object(
                'show', p_show, 'alloc', p_alloc, 'folder', j.pk_folder, 'job', p_job,
                'layer', p_layer, 'dept', j.pk_dept, 'cores', -(p_cores / 100), 'gpus', -p_gpus,
                'core_units', -p_cores, 'xact', pg_current_xact_id()::text,
                'hosts', CASE WHEN cardinality(p_hosts) <= 100 THEN to_json(p_hosts) END
            )::text
        )
    FROM (VALUES (p_job)) AS asked (job)
    LEFT JOIN public.job AS j ON asked.job = j.pk_job::text
$$;

COMMENT ON FUNCTION retally.notify_release(p_show text, p_alloc text, p_layer text, p_job text, p_cores bigint, p_gpus bigint, p_hosts text[]) IS 'Tells the listeners of acct_release what was released.';

CREATE FUNCTION retally.odd_triggers() RETURNS TABLE(table_name text, trigger_name text, function_name text, fault text)
    LANGUAGE sql STABLE
    AS $$
    WITH known AS (
        SELECT
            k.table_name,
            k.trigger_name,
            'trigger__' || k.trigger_name AS function_name
        FROM (
            VALUES
            ('subscription', 'tier_subscription'),
            ('subscription', 'verify_subscription'),
            ('job_resource', 'tier_job'),
            ('job_resource', 'verify_job_resources'),
            ('folder_resource', 'tier_folder'),
            ('point', 'point_tier'),
            ('proc', 'before_insert_proc'),
            ('proc', 'update_proc_update_layer'),
            ('proc', 'upgrade_proc_memory_usage')
        ) AS k (table_name, trigger_name)
    ),

    present AS (
        SELECT
            c.relname::text AS table_name,
            t.tgname::text AS trigger_name,
            p.proname::text AS function_name,
            t.tgenabled IN ('D', 'R') AS disabled
        FROM pg_catalog.pg_trigger AS t
        INNER JOIN pg_catalog.pg_class AS c ON t.tgrelid = c.oid
        INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
        INNER JOIN pg_catalog.pg_proc AS p ON t.tgfoid = p.oid
        WHERE
            NOT t.tgisinternal
            AND n.nspname = 'public'
            -- the journal's own
            AND p.pronamespace <> 'retally'::regnamespace
            AND c.relname IN (
                'subscription', 'layer_resource', 'job_resource', 'folder_resource', 'point', 'proc'
            )
    )

    SELECT
        coalesce(p.table_name, k.table_name) AS table_name,
        coalesce(p.trigger_name, k.trigger_name) AS trigger_name,
        coalesce(p.function_name, k.function_name) AS function_name,
        CASE
            WHEN k.trigger_name IS NULL THEN 'unknown'
            WHEN p.trigger_name IS NULL THEN 'missing'
            ELSE 'disabled'
        END AS fault
    FROM present AS p
    FULL JOIN known AS k
        ON
            p.table_name = k.table_name
            AND p.trigger_name = k.trigger_name
            AND p.function_name = k.function_name
    -- an unknown one that is disabled does nothing
    WHERE (k.trigger_name IS NULL) <> coalesce(p.disabled, TRUE)
    ORDER BY 1, 2, 3
$$;

COMMENT ON FUNCTION retally.odd_triggers() IS 'Where the triggers on the totals'' tables and on proc are not as OpenCue leaves them.';

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
            CASE WHEN l.pk_layer IS NULL THEN 'no layer ' || coalesce(p.pk_layer::text, 'null') END,
            CASE WHEN h.pk_host IS NULL THEN 'no host ' || coalesce(p.pk_host::text, 'null') END
        )
    FROM public.proc AS p
    LEFT JOIN public.show AS s ON p.pk_show::text = s.pk_show::text
    LEFT JOIN public.job AS j ON p.pk_job::text = j.pk_job::text
    LEFT JOIN public.layer AS l ON p.pk_layer::text = l.pk_layer::text
    LEFT JOIN public.host AS h ON p.pk_host::text = h.pk_host::text
    WHERE s.pk_show IS NULL OR j.pk_job IS NULL OR l.pk_layer IS NULL OR h.pk_host IS NULL
    ORDER BY p.pk_proc
$$;

COMMENT ON FUNCTION retally.orphans() IS 'The procs that name a show, job, layer or host that the farm does not know.';

CREATE FUNCTION retally.orphans_in(p_show_ids text[], p_totals text[], p_keys text[]) RETURNS TABLE(show_id text, total text, key text, cores numeric, gpus numeric)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    WITH named AS (
        SELECT
            p.pk_show::text AS show_id,
            p.int_cores_reserved AS cores,
            p.int_gpus_reserved AS gpus,
            v.total,
            v.key
        FROM public.proc AS p
        CROSS JOIN
            LATERAL (
                VALUES ('layer', p.pk_layer::text), ('job', p.pk_job::text)
            ) AS v (total, key)
        WHERE
            -- without orphans no proc is read
            cardinality(p_keys) > 0
            AND (p_show_ids IS NULL OR p.pk_show::text = any(p_show_ids))
    )

    SELECT
        n.show_id,
        n.total,
        n.key,
        sum(n.cores),
        sum(n.gpus)
    FROM named AS n
    INNER JOIN unnest(p_totals, p_keys) AS o (total, key)
        ON
            n.total = o.total
            AND coalesce(n.key, '') = coalesce(o.key, '')
            AND (n.key IS NULL) = (o.key IS NULL)
    GROUP BY n.show_id, n.total, n.key
$$;

COMMENT ON FUNCTION retally.orphans_in(p_show_ids text[], p_totals text[], p_keys text[]) IS 'How much procs of shows book for layers or jobs that the farm does not know.';

CREATE FUNCTION retally.over_burst(p_show text, p_alloc text, p_cores bigint, OUT problem text, OUT message text, OUT hint text) RETURNS record
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_row record;
BEGIN
    SELECT
        h.str_name AS show_name,
        a.str_name AS alloc_name,
        s.int_cores,
        s.int_burst
    INTO v_row
    FROM public.show AS h
    CROSS JOIN public.alloc AS a
    LEFT JOIN public.subscription AS s
        ON h.pk_show::text = s.pk_show::text AND a.pk_alloc::text = s.pk_alloc::text
    WHERE h.pk_show::text = p_show AND a.pk_alloc::text = p_alloc;
    IF v_row.int_burst IS NULL THEN
        problem := 'RT013';
        message := format(
            'show "%s" has no subscription to allocation "%s"',
            coalesce(v_row.show_name, p_show), coalesce(v_row.alloc_name, p_alloc)
        );
        hint := 'Subscribe the show, or choose a host of another allocation.';
        RETURN;
    END IF;
    IF v_row.int_cores + p_cores <= v_row.int_burst THEN
        problem := 'RT014';
        message := format(
            'subscription of show "%s" to "%s" was full a moment ago',
            v_row.show_name, v_row.alloc_name
        );
        hint := 'That is over: try again.';
        RETURN;
    END IF;
    problem := 'RT012';
    message := format(
        'subscription of show "%s" to "%s": %s core units more would pass its burst of %s, %s are'
        ' in use', v_row.show_name, v_row.alloc_name, p_cores, v_row.int_burst, v_row.int_cores
    );
    hint := 'Wait for a release, or raise the burst.';
END
$$;

COMMENT ON FUNCTION retally.over_burst(p_show text, p_alloc text, p_cores bigint, OUT problem text, OUT message text, OUT hint text) IS 'Why a subscription takes no more.';

CREATE FUNCTION retally.over_job_max(p_job text, p_cores bigint, p_gpus bigint, OUT problem text, OUT message text, OUT hint text) RETURNS record
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_row record;
BEGIN
    SELECT
        j.str_name,
        r.int_cores,
        r.int_gpus,
        r.int_max_cores,
        r.int_max_gpus
    INTO v_row
    FROM public.job AS j
    INNER JOIN public.job_resource AS r ON j.pk_job::text = r.pk_job::text
    WHERE j.pk_job::text = p_job;
    IF NOT FOUND THEN
        RETURN;
    ELSIF v_row.int_cores + p_cores <= v_row.int_max_cores
        AND v_row.int_gpus + p_gpus <= v_row.int_max_gpus
    THEN
        problem := 'RT014';
        message := format('job "%s" was full a moment ago', v_row.str_name);
        hint := 'That is over: try again.';
        RETURN;
    END IF;
    problem := 'RT012';
    message := format('job "%s": ', v_row.str_name) || CASE
        WHEN v_row.int_cores + p_cores > v_row.int_max_cores
            THEN format(
                '%s core units more would pass its maximum of %s, %s are in use',
                p_cores, v_row.int_max_cores, v_row.int_cores
            )
        WHEN p_gpus > 0
            THEN format(
                '%s GPUs more would pass its maximum of %s, %s are in use',
                p_gpus, v_row.int_max_gpus, v_row.int_gpus
            )
        ELSE format(
            'it is above its maximum of %s GPUs, %s are in use', v_row.int_max_gpus, v_row.int_gpus
        )
    END;
    hint := 'Wait for a release, or raise the job''s maximum.';
END
$$;

COMMENT ON FUNCTION retally.over_job_max(p_job text, p_cores bigint, p_gpus bigint, OUT problem text, OUT message text, OUT hint text) IS 'Why a job takes no more.';

CREATE FUNCTION retally.overridden(p_asked boolean, p_override text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE p_override WHEN 'all' THEN TRUE WHEN 'none' THEN FALSE ELSE p_asked END
$$;

COMMENT ON FUNCTION retally.overridden(p_asked boolean, p_override text) IS 'The flag in force of a scope whose own flag is p_asked, under this override.';

CREATE FUNCTION retally.patient_keys(p_show_id text, p_total text, p_busy text[], p_wait boolean) RETURNS text[]
    LANGUAGE sql STABLE
    AS $$
    SELECT coalesce(array_agg(b.key ORDER BY d.passes ASC NULLS FIRST, b.key ASC), '{}')
    FROM unnest(p_busy) AS b (key)
    CROSS JOIN retally.setting AS s
    LEFT JOIN retally.deferred AS d
        ON b.key = d.key AND d.scope = p_show_id AND d.total = p_total
    WHERE p_wait OR d.passes >= s.wait_after_passes
$$;

COMMENT ON FUNCTION retally.patient_keys(p_show_id text, p_total text, p_busy text[], p_wait boolean) IS 'Those of the busy rows of a total that are worth waiting for.';

CREATE FUNCTION retally.pin_flag(p_scope text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM retally.require_read_committed('nothing can be booked or released');
    PERFORM pg_advisory_xact_lock_shared(retally.flag_lock(p_scope));
    -- a statement of its own, begun after the lock was had: it sees the latest flip
    RETURN retally.is_managed(p_scope);
END
$$;

COMMENT ON FUNCTION retally.pin_flag(p_scope text) IS 'Keeps the scope''s flag as it is until this transaction ends, and answers with it.';

CREATE FUNCTION retally.pin_flags(p_scopes text[]) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_scope text;
    v_managed text[] := '{}';
BEGIN
    FOR v_scope IN
        SELECT DISTINCT s.scope
        FROM unnest(p_scopes) AS s (scope)
        ORDER BY s.scope
    LOOP
        IF retally.pin_flag(v_scope) THEN
            v_managed := v_managed || v_scope;
        END IF;
    END LOOP;
    RETURN v_managed;
END
$$;

COMMENT ON FUNCTION retally.pin_flags(p_scopes text[]) IS 'As pin_flag() for many scopes; answers with those that are managed.';

CREATE FUNCTION retally.problem(p_kind text, p_total text, p_key text, p_cores numeric, p_gpus numeric, p_refusal text DEFAULT NULL::text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        p_total || ' ' || retally.row_name(p_total, p_key)
        || CASE WHEN p_key <> retally.row_name(p_total, p_key) THEN ' (' || p_key || ')' ELSE '' END
        || CASE p_kind
            WHEN 'misfit'
                THEN
                    coalesce(
                        ': the farm refuses it: ' || p_refusal,
                        ': the sum of its procs does not fit the column'
                    )
            WHEN 'unfolded'
                THEN
                    ': its row is missing, or cannot take what the journal adds'
            WHEN 'missing'
                THEN
                    ': its row is missing, while procs hold ' || p_cores
                    || ' core units and ' || p_gpus || ' GPUs'
            ELSE
                ': the farm knows no such ' || p_total || ', while procs hold ' || p_cores
                || ' core units and ' || p_gpus || ' GPUs for it'
        END
$$;

COMMENT ON FUNCTION retally.problem(p_kind text, p_total text, p_key text, p_cores numeric, p_gpus numeric, p_refusal text) IS 'What keeps a total from being exact, in a sentence that names the thing.';

CREATE FUNCTION retally.procs() RETURNS TABLE(show_id text, host_id text, layer_id text, job_id text, local boolean, cores bigint, gpus bigint)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        p.pk_show::text,
        p.pk_host::text,
        p.pk_layer::text,
        p.pk_job::text,
        p.b_local::boolean,
        p.int_cores_reserved::bigint,
        p.int_gpus_reserved::bigint
    FROM public.proc AS p
$$;

COMMENT ON FUNCTION retally.procs() IS 'The farm''s procs, by what the totals need of them.';

CREATE FUNCTION retally.procs_of(p_show_ids text[], p_totals text[], p_keys text[], p_source text) RETURNS TABLE(show_id text, host_id text, layer_id text, job_id text, local boolean, cores bigint, gpus bigint)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    -- the columns are procs()'s
    SELECT p.* -- noqa: AM04
    FROM retally.procs() AS p
    WHERE
        p_source <> 'journal'
        AND (p_show_ids IS NULL OR p.show_id = any(p_show_ids))
        AND (p_keys IS NULL OR 'subscription' = any(p_totals))
    UNION ALL
    -- strays on the shows' layers
    SELECT p.*
    FROM public.job AS j
    INNER JOIN public.layer_resource AS r ON j.pk_job::text = r.pk_job::text
    INNER JOIN retally.procs() AS p ON r.pk_layer::text = p.layer_id
    WHERE
        p_source <> 'journal'
        AND p_keys IS NULL
        AND p_show_ids IS NOT NULL
        AND 'layer' = any(p_totals)
        AND j.pk_show::text = any(p_show_ids)
        AND (p.show_id IS NULL OR p.show_id <> all(p_show_ids))
    UNION ALL
    -- strays on the shows' jobs, save those that the branch above has already brought
    SELECT p.*
    FROM retally.procs() AS p
    WHERE
        p_source <> 'journal'
        AND p_keys IS NULL
        AND p_show_ids IS NOT NULL
        AND p_totals && ARRAY['job', 'folder', 'point']
        AND (p.show_id IS NULL OR p.show_id <> all(p_show_ids))
        AND p.job_id IN (
            SELECT j.pk_job::text
            FROM public.job AS j
            WHERE j.pk_show::text = any(p_show_ids)
            UNION ALL
            SELECT j.pk_job::text
            FROM public.folder AS f
            INNER JOIN public.job AS j ON f.pk_folder::text = j.pk_folder::text
            WHERE f.pk_show::text = any(p_show_ids)
        )
        AND NOT (
            'layer' = any(p_totals)
            AND EXISTS (
                SELECT
                FROM public.layer_resource AS r
                INNER JOIN public.job AS j ON r.pk_job::text = j.pk_job::text
                WHERE r.pk_layer::text = p.layer_id AND j.pk_show::text = any(p_show_ids)
            )
        )
    UNION ALL
    SELECT p.*
    FROM retally.procs() AS p
    WHERE
        p_source <> 'journal'
        AND p_totals = ARRAY['layer']
        AND p_keys IS NOT NULL
        AND p.layer_id IN (SELECT k.key FROM unnest(p_keys) AS k (key))
    UNION ALL
    SELECT p.*
    FROM retally.procs() AS p
    WHERE
        p_source <> 'journal'
        AND p_totals = ARRAY['job']
        AND p_keys IS NOT NULL
        AND p.job_id IN (SELECT k.key FROM unnest(p_keys) AS k (key))
    UNION ALL
    SELECT p.*
    FROM retally.procs() AS p
    WHERE
        p_source <> 'journal'
        AND p_totals = ARRAY['folder']
        AND p_keys IS NOT NULL
        AND p.job_id IN (
            SELECT j.pk_job::text
            FROM public.job AS j
            WHERE j.pk_folder::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        )
    UNION ALL
    SELECT p.*
    FROM retally.procs() AS p
    WHERE
        p_source <> 'journal'
        AND p_totals = ARRAY['point']
        AND p_keys IS NOT NULL
        AND p.job_id IN (
            SELECT j.pk_job::text
            FROM public.job AS j
            WHERE
                j.pk_show::text = any(p_show_ids)
                AND j.pk_dept::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        )
    UNION ALL
    SELECT
        e.scope,
        e.host_id,
        e.layer_id,
        e.job_id,
        e.local,
        CASE p_source WHEN 'owed' THEN -e.cores ELSE e.cores END,
        CASE p_source WHEN 'owed' THEN -e.gpus ELSE e.gpus END
    FROM retally.journal AS e
    INNER JOIN retally.scope_flag AS f ON e.scope = f.scope AND f.journaled
    WHERE p_source <> 'procs' AND (p_source = 'owed' OR e.scope = any(p_show_ids))
$$;

COMMENT ON FUNCTION retally.procs_of(p_show_ids text[], p_totals text[], p_keys text[], p_source text) IS 'The procs that can bear on these totals of these shows.';

CREATE PROCEDURE retally.prune(IN p_rows bigint DEFAULT 10000, INOUT history_rows bigint DEFAULT NULL::bigint, INOUT runs bigint DEFAULT NULL::bigint)
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

COMMENT ON PROCEDURE retally.prune(IN p_rows bigint, INOUT history_rows bigint, INOUT runs bigint) IS 'Deletes what is older than its age in retally.setting.';

CREATE FUNCTION retally.read_for(p_show_ids text[]) RETURNS text[]
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_many bigint := (
        SELECT greatest(c.reltuples / 5, 100)
        FROM pg_catalog.pg_class AS c
        WHERE c.oid = 'public.proc'::regclass
    );
BEGIN
    RETURN CASE
        WHEN (
            SELECT count(*)
            FROM (
                SELECT
                FROM public.proc AS p
                WHERE p.pk_show::text = ANY (p_show_ids)
                LIMIT v_many
            ) AS found
        ) < v_many
            THEN p_show_ids
    END;
END
$$;

COMMENT ON FUNCTION retally.read_for(p_show_ids text[]) IS 'Which shows to read for what is asked of these: them, or null for all.';

CREATE FUNCTION retally.rebuild(p_show_ids text[], p_totals text[], p_wait boolean, p_tick text DEFAULT 'by hand'::text, p_worker text DEFAULT CURRENT_USER) RETURNS SETOF retally.pass
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET random_page_cost TO '1.1'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
DECLARE
    v_started timestamptz := clock_timestamp();
    v_held text[] := retally.hold_scopes(p_show_ids, p_wait);
    v_part record;
    v_left retally.comparison[] := '{}';
    v_found retally.finding[] := '{}';
    v_outcome record;
BEGIN
    FOR v_part IN
        SELECT
            t.total,
            coalesce(array_agg(a) FILTER (WHERE a.total IS NOT NULL), '{}') AS rows_adrift
        FROM retally.adrift(v_held, p_totals) AS a
        RIGHT JOIN unnest(p_totals) AS t (total) ON a.total = t.total
        GROUP BY t.total
        ORDER BY array_position(ARRAY['layer', 'job', 'folder', 'point', 'subscription'], t.total)
    LOOP
        v_found := v_found || ARRAY(
            SELECT f
            FROM retally.findings_of(v_part.rows_adrift, v_held, ARRAY[v_part.total]) AS f
        );
        CONTINUE WHEN cardinality(v_part.rows_adrift) = 0;
        v_left := v_left || retally.write_found(v_part.total, v_part.rows_adrift);
    END LOOP;

    WITH rows_left AS (
        SELECT
            l.show_id,
            l.total,
            count(*) AS number
        FROM unnest(v_left) AS l
        GROUP BY l.show_id, l.total
    )

    SELECT
        coalesce(
            array_agg(
                ROW(
                    f.show_id, p_tick, f.total, 'rebuilt', p_worker, clock_timestamp(),
                    extract(EPOCH FROM clock_timestamp() - v_started), f.rows_adrift,
                    f.rows_adrift - coalesce(l.number, 0), coalesce(l.number, 0), f.rows_failed,
                    f.core_units, f.gpus, f.problems, NULL, NULL, NULL
                )::retally.pass
                ORDER BY f.show_id, array_position(retally.totals(), f.total)
            ),
            '{}'
        ) AS passes,
        coalesce(
            array_agg(ROW(f.show_id, f.total, '{}', '{}')::retally.seizure)
            FILTER (WHERE l.number IS NULL),
            '{}'
        ) AS seizures
    INTO v_outcome
    FROM unnest(v_found) AS f
    LEFT JOIN rows_left AS l ON f.show_id = l.show_id AND f.total = l.total;

    PERFORM retally.keep_passes(v_outcome.passes, v_outcome.seizures);
    RETURN QUERY
    SELECT p.*
    FROM unnest(v_outcome.passes) AS p;
END
$$;

COMMENT ON FUNCTION retally.rebuild(p_show_ids text[], p_totals text[], p_wait boolean, p_tick text, p_worker text) IS 'Rebuilds these totals of those of these shows that nobody else is writing.';

CREATE PROCEDURE retally.recompute_all(IN p_wait boolean DEFAULT true, IN p_unmanaged_too boolean DEFAULT false, INOUT shows bigint DEFAULT NULL::bigint, INOUT shows_failed bigint DEFAULT NULL::bigint, INOUT rows_adrift bigint DEFAULT NULL::bigint, INOUT rows_changed bigint DEFAULT NULL::bigint, INOUT rows_deferred bigint DEFAULT NULL::bigint, INOUT rows_failed bigint DEFAULT NULL::bigint, INOUT core_units numeric DEFAULT NULL::numeric, INOUT gpus numeric DEFAULT NULL::numeric, INOUT problems text[] DEFAULT NULL::text[])
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_ids text[];
    v_names text[];
    v_managed text[];
    v_own retally.finding[];
    v_passes retally.pass[];
    v_begun text[] := '{}';
    v_done text[] := '{}';
    v_findings retally.finding[];
    v_one record;
    v_folded boolean;
    v_failure text;
BEGIN
    -- inside a transaction block this fails, before any work is done
    COMMIT;
    -- the role or the database may have another default
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SELECT 0, 0, 0, 0, 0, 0, 0, 0, '{}'
    INTO
        shows, shows_failed, rows_adrift, rows_changed, rows_deferred, rows_failed, core_units,
        gpus, problems;
    SELECT
        coalesce(array_agg(s.show_id ORDER BY s.name, s.show_id), '{}'),
        coalesce(array_agg(s.name ORDER BY s.name, s.show_id), '{}'),
        coalesce(array_agg(s.show_id) FILTER (WHERE s.managed), '{}')
    INTO v_ids, v_names, v_managed
    FROM retally.shows() AS s
    WHERE s.rebuilt OR p_unmanaged_too;
    BEGIN
        PERFORM retally.fold(v_ids, p_wait);
        v_folded := TRUE;
    EXCEPTION
        WHEN OTHERS THEN
            v_folded := FALSE;
    END;
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    FOR v_turn IN 1 .. cardinality(v_ids) LOOP
        EXIT WHEN v_folded;
        BEGIN
            PERFORM retally.fold(v_ids[v_turn:v_turn], p_wait);
        EXCEPTION
            -- what is not folded is no drift, and stays for the next fold
            WHEN OTHERS THEN
                v_failure := format(
                    'show %s: its journal is not folded: %s (SQLSTATE %s)',
                    v_names[v_turn], sqlerrm, sqlstate
                );
                RAISE WARNING '%', v_failure;
                problems := problems || v_failure;
        END;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    END LOOP;
    BEGIN
        v_findings := ARRAY(
            SELECT f
            FROM retally.findings(
                ARRAY(SELECT i.id FROM unnest(v_ids) AS i (id) WHERE i.id <> ALL (v_managed)),
                retally.totals()
            ) AS f
        );
    EXCEPTION
        WHEN OTHERS THEN
            -- the data of one show can break the statement for all: each is looked at by itself
            v_findings := NULL;
    END;

    -- turn 0 is that of all managed shows
    FOR v_turn IN 0 .. cardinality(v_ids) LOOP
        CONTINUE WHEN v_turn > 0 AND v_ids[v_turn] = ANY (v_done);
        BEGIN
            IF v_turn = 0 THEN
                v_passes := ARRAY(
                    SELECT r FROM retally.rebuild(v_managed, retally.totals(), FALSE) AS r
                );
            ELSE
                v_own := ARRAY(SELECT f FROM unnest(v_findings) AS f WHERE f.show_id = v_ids[v_turn]);
                IF cardinality(v_own) = 0 THEN
                    v_own := ARRAY(
                        SELECT f FROM retally.findings(v_ids[v_turn:v_turn], retally.totals()) AS f
                    );
                END IF;
                v_passes := ARRAY(
                    SELECT m
                    FROM retally.mend_by_hand(v_own, p_wait, v_ids[v_turn] = ANY (v_begun)) AS m
                );
            END IF;
            FOR v_one IN
                SELECT a.* FROM retally.added_up(v_passes) AS a
            LOOP
                rows_changed := rows_changed + v_one.rows_changed;
                IF v_one.show_id <> ALL (v_begun) THEN
                    rows_adrift := rows_adrift + v_one.rows_adrift;
                    core_units := core_units + v_one.core_units;
                    gpus := gpus + v_one.gpus;
                    v_begun := v_begun || v_one.show_id;
                END IF;
                -- where rows were busy, the show's own turn comes
                CONTINUE WHEN v_turn = 0 AND v_one.rows_deferred > 0;
                v_done := v_done || v_one.show_id;
                shows := shows + 1;
                rows_deferred := rows_deferred + v_one.rows_deferred;
                rows_failed := rows_failed + v_one.rows_failed;
                problems := problems || ARRAY(
                    SELECT
                        format(
                            'show %s: %s',
                            v_names[array_position(v_ids, v_one.show_id)], p.problem
                        )
                    FROM unnest(v_one.problems) AS p (problem)
                );
            END LOOP;
        EXCEPTION
            WHEN OTHERS THEN
                -- of several shows each gets its own turn: one must not suffer for another
                IF v_turn > 0 THEN
                    -- kept with its SQLSTATE
                    v_failure := format(
                        'show %s: %s (SQLSTATE %s)', v_names[v_turn], sqlerrm, sqlstate
                    );
                    RAISE WARNING '%', v_failure;
                    shows_failed := shows_failed + 1;
                    problems := problems || v_failure;
                END IF;
        END;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    END LOOP;
END
$$;

COMMENT ON PROCEDURE retally.recompute_all(IN p_wait boolean, IN p_unmanaged_too boolean, INOUT shows bigint, INOUT shows_failed bigint, INOUT rows_adrift bigint, INOUT rows_changed bigint, INOUT rows_deferred bigint, INOUT rows_failed bigint, INOUT core_units numeric, INOUT gpus numeric, INOUT problems text[]) IS 'Rebuilds the totals of every show that the ticks serve.';

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
    -- what is in the journal already is no drift; it is counted before the totals are looked at
    PERFORM retally.fold(ARRAY[v_show_id], p_wait);
    SELECT
        s.rows_adrift,
        s.rows_changed,
        s.rows_deferred,
        s.rows_failed,
        s.core_units,
        s.gpus,
        s.problems
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.added_up(
        ARRAY(
            SELECT m
            FROM retally.mend_by_hand(
                ARRAY(SELECT f FROM retally.findings(ARRAY[v_show_id], p_totals) AS f), p_wait
            ) AS m
        )
    ) AS s;
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

CREATE FUNCTION retally.refusal(p_host text, p_job text, p_layer text, p_frame text, p_cores bigint, p_mem_kb bigint, p_gpus bigint, p_gpu_mem_kb bigint, p_local boolean, OUT problem text, OUT message text, OUT hint text, OUT holder text) RETURNS record
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_host record;
    v_share record;
    v_proc record;
BEGIN
    IF p_local IS NULL
        OR NOT coalesce(p_cores > 0 AND least(p_mem_kb, p_gpus, p_gpu_mem_kb) >= 0, FALSE)
        OR num_nulls(p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb) > 0
    THEN
        problem := 'RT008';
        message := format(
            'nothing can be booked with %s core units, %s kB, %s GPUs, %s kB of GPU memory, local %s',
            coalesce(p_cores::text, 'null'), coalesce(p_mem_kb::text, 'null'),
            coalesce(p_gpus::text, 'null'), coalesce(p_gpu_mem_kb::text, 'null'),
            coalesce(p_local::text, 'null')
        );
        hint := 'Cores are core units (100 are a core) and above 0, all others 0 or more.';
        RETURN;
    END IF;

    message := CASE
        WHEN NOT EXISTS (SELECT FROM public.job AS j WHERE j.pk_job::text = p_job)
            THEN format('there is no job "%s"', p_job)
        WHEN NOT EXISTS (
                SELECT FROM public.layer AS l
                WHERE l.pk_layer::text = p_layer AND l.pk_job::text = p_job
            )
            THEN format('job "%s" has no layer "%s"', p_job, p_layer)
        WHEN p_frame IS NOT NULL
            AND NOT EXISTS (
                SELECT FROM public.frame AS f
                WHERE f.pk_frame::text = p_frame AND f.pk_layer::text = p_layer
            )
            THEN format('layer "%s" has no frame "%s"', p_layer, p_frame)
        WHEN NOT EXISTS (SELECT FROM public.host AS h WHERE h.pk_host::text = p_host)
            THEN format('there is no host "%s"', p_host)
    END;
    IF message IS NOT NULL THEN
        problem := 'RT009';
        hint := 'Name it by its id (pk_job, pk_layer, pk_frame, pk_host).';
        RETURN;
    END IF;

    SELECT
        p.pk_proc AS proc,
        h.str_name AS host
    INTO v_proc
    FROM public.proc AS p
    INNER JOIN public.host AS h ON p.pk_host::text = h.pk_host::text
    WHERE p.pk_frame::text = p_frame;
    IF FOUND THEN
        problem := 'RT010';
        holder := v_proc.proc;
        message := format(
            'frame "%s" is booked already: proc %s on host %s', p_frame, v_proc.proc, v_proc.host
        );
        hint := 'Another dispatcher was first, or it is the answer to an earlier call that was lost.';
        RETURN;
    END IF;

    SELECT h.*
    INTO v_host
    FROM public.host AS h
    WHERE h.pk_host::text = p_host;
    IF p_local THEN
        SELECT s.*
        INTO v_share
        FROM public.host_local AS s
        WHERE s.pk_host::text = p_host AND s.pk_job::text = p_job;
        IF NOT FOUND THEN
            problem := 'RT009';
            message := format('host %s has no local share for job "%s"', v_host.str_name, p_job);
            hint := 'Book it as not local, or make the share (host_local) first.';
            RETURN;
        END IF;
        message := retally.shortage(
            v_share.int_cores_idle, v_share.int_mem_idle, v_share.int_gpus_idle,
            v_share.int_gpu_mem_idle, p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb
        );
        IF message IS NOT NULL THEN
            problem := 'RT011';
            message := format('job "%s" on its own host %s has %s', p_job, v_host.str_name, message);
            hint := 'Wait for a release, or raise the local share.';
            RETURN;
        END IF;
    END IF;

    message := retally.shortage(
        v_host.int_cores_idle, v_host.int_mem_idle, v_host.int_gpus_idle, v_host.int_gpu_mem_idle,
        p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb
    );
    IF message IS NOT NULL THEN
        problem := 'RT011';
        message := format('host %s has %s', v_host.str_name, message);
        hint := 'Choose another host, or wait for a release.';
    END IF;
END
$$;

COMMENT ON FUNCTION retally.refusal(p_host text, p_job text, p_layer text, p_frame text, p_cores bigint, p_mem_kb bigint, p_gpus bigint, p_gpu_mem_kb bigint, p_local boolean, OUT problem text, OUT message text, OUT hint text, OUT holder text) IS 'What speaks against this booking: SQLSTATE, message, hint, holder of the frame.';

CREATE FUNCTION retally.refuse(p_host text, p_job text, p_layer text, p_frame text, p_cores bigint, p_mem_kb bigint, p_gpus bigint, p_gpu_mem_kb bigint, p_local boolean) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM retally.refuse_with(
        coalesce(r.problem, 'RT014'),
        coalesce(
            r.message,
            CASE
                WHEN p_frame IS NOT NULL THEN format('frame "%s" was booked a moment ago', p_frame)
                ELSE format('host "%s", or its local share, was full a moment ago', p_host)
            END
        ),
        coalesce(r.hint, 'That is over: try again.'),
        r.holder
    )
    FROM retally.refusal(
        p_host, p_job, p_layer, p_frame, p_cores, p_mem_kb, p_gpus, p_gpu_mem_kb, p_local
    ) AS r;
END
$$;

COMMENT ON FUNCTION retally.refuse(p_host text, p_job text, p_layer text, p_frame text, p_cores bigint, p_mem_kb bigint, p_gpus bigint, p_gpu_mem_kb bigint, p_local boolean) IS 'Raises the reason against this booking.';

CREATE FUNCTION retally.refuse_large_repair(p_show_id text, p_totals text[], p_changes retally.change[]) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET random_page_cost TO '1.1'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
DECLARE
    v_changes retally.change[] := coalesce(
        p_changes,
        ARRAY(
            SELECT ROW(d.total, d.key, d.slot, d.stored, d.booked)::retally.change
            FROM retally.drift_in(ARRAY[p_show_id], p_totals) AS d
            WHERE d.stored IS NOT NULL
        )
    );
    v_seen record;
    v_share numeric;
    v_limits text;
BEGIN
    IF cardinality(v_changes) = 0 THEN
        RETURN;
    END IF;
    SELECT s.repair_share INTO v_share
    FROM retally.setting AS s;

    WITH slots AS (
        SELECT
            s.total,
            s.key,
            a.slot LIKE '%cores' AS in_cores,
            coalesce(c.before, a.amount) AS before,
            coalesce(c.after, a.amount) AS after
        -- all rows of the show, so that a tick with a handful of subscriptions may mend one
        FROM retally.stored_in(ARRAY[p_show_id], retally.totals(), TRUE) AS s
        CROSS JOIN LATERAL (
            VALUES
            ('cores', s.cores),
            ('gpus', s.gpus),
            ('local_cores', s.local_cores),
            ('local_gpus', s.local_gpus)
        ) AS a (slot, amount)
        LEFT JOIN unnest(v_changes) AS c
            ON s.total = c.total AND s.key = c.key AND a.slot = c.slot
    ),

    sums AS (
        SELECT
            s.total,
            -- thousands of finished jobs and layers hold nothing: they would hide any change
            count(DISTINCT s.key) FILTER (WHERE s.before <> 0 OR s.after <> 0) AS rows,
            count(DISTINCT s.key) FILTER (WHERE s.before <> s.after) AS changed,
            sum(abs(s.after)) AS remaining,
            sum(s.before) FILTER (WHERE s.in_cores) AS before,
            sum(s.after) FILTER (WHERE s.in_cores) AS after,
            coalesce(sum(abs(s.after - s.before)) FILTER (WHERE s.in_cores), 0) AS core_units,
            greatest(
                sum(abs(s.before)) FILTER (WHERE s.in_cores),
                sum(abs(s.after)) FILTER (WHERE s.in_cores)
            ) AS core_units_there
        FROM slots AS s
        GROUP BY s.total
    )

    SELECT
        t.total,
        t.before,
        t.after,
        t.core_units,
        -- each total by itself, as the same core units are in all five
        t.core_units > v_share * t.core_units_there AS too_many_core_units,
        sum(t.rows) OVER () AS rows,
        sum(t.changed) OVER () AS changed,
        sum(t.remaining) FILTER (WHERE t.total = ANY (p_totals)) OVER () = 0 AS all_to_zero
    INTO v_seen
    FROM sums AS t
    ORDER BY
        t.core_units / nullif(t.core_units_there, 0) DESC NULLS LAST,
        array_position(retally.totals(), t.total)
    LIMIT 1;

    v_limits := concat_ws(
        ', ',
        CASE WHEN v_seen.all_to_zero THEN 'all to zero' END,
        CASE WHEN v_seen.changed > v_share * v_seen.rows THEN 'too many rows' END,
        CASE WHEN v_seen.too_many_core_units THEN 'too many core units' END
    );
    IF v_limits <> '' THEN
        RAISE EXCEPTION 'the repair of show "%" is refused (%): it would change % of % rows%',
            coalesce(
                (
                    SELECT s.str_name::text FROM public.show AS s
                    WHERE s.pk_show::text = p_show_id
                ), p_show_id
            ),
            v_limits, v_seen.changed, v_seen.rows,
            CASE
                WHEN v_seen.core_units > 0
                    THEN format(
                        ', and the core units in %s by %s, from %s to %s',
                        v_seen.total, v_seen.core_units, v_seen.before, v_seen.after
                    )
                ELSE ''
            END
            USING ERRCODE = 'RT015',
                HINT = format(
                    'See `retally drift`. At most %s %% may change at once '
                    '(retally.setting.repair_share). If the procs are right: '
                    '`retally recompute --force`, or CALL retally.repair_show(%L, true).',
                    trim_scale(round(100 * v_share, 2)), p_show_id
                );
    END IF;
END
$$;

COMMENT ON FUNCTION retally.refuse_large_repair(p_show_id text, p_totals text[], p_changes retally.change[]) IS 'Refuses a repair that would change too much of a show at once.';

CREATE FUNCTION retally.refuse_with(p_problem text, p_message text, p_hint text, p_holder text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF p_holder IS NOT NULL THEN
        RAISE EXCEPTION '%', p_message
            USING ERRCODE = p_problem, HINT = p_hint, DETAIL = p_holder;
    ELSIF p_problem IS NOT NULL THEN
        RAISE EXCEPTION '%', p_message USING ERRCODE = p_problem, HINT = p_hint;
    END IF;
END
$$;

COMMENT ON FUNCTION retally.refuse_with(p_problem text, p_message text, p_hint text, p_holder text) IS 'Raises a refusal: its private SQLSTATE, message, hint and detail.';

CREATE FUNCTION retally.release_proc(p_proc text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_show text;
    v_managed boolean;
    v_gone record;
BEGIN
    -- before the proc is looked for: an old snapshot would say that it is gone
    PERFORM retally.require_read_committed('nothing can be booked or released');
    LOOP
        SELECT p.pk_show::text
        INTO v_show
        FROM public.proc AS p
        WHERE p.pk_proc::text = p_proc;
        IF NOT FOUND THEN
            RETURN FALSE;
        END IF;
        v_managed := retally.pin_flag(coalesce(v_show, ''));
        WITH gone AS (
            DELETE FROM public.proc AS p
            WHERE p.pk_proc::text = p_proc AND p.pk_show::text IS NOT DISTINCT FROM v_show
            RETURNING
                p.pk_host, p.pk_job, p.pk_layer, p.int_cores_reserved, p.int_mem_reserved,
                p.int_gpus_reserved, p.int_gpu_mem_reserved, p.b_local
        )

        UPDATE public.host AS h
        SET
            int_cores_idle = h.int_cores_idle + g.int_cores_reserved,
            int_mem_idle = h.int_mem_idle + g.int_mem_reserved,
            int_gpus_idle = h.int_gpus_idle + g.int_gpus_reserved,
            int_gpu_mem_idle = h.int_gpu_mem_idle + g.int_gpu_mem_reserved
        FROM gone AS g
        WHERE h.pk_host::text = g.pk_host::text
        RETURNING
            h.pk_host::text AS host, h.pk_alloc::text AS alloc, g.pk_job::text AS job,
            g.pk_layer::text AS layer, g.int_cores_reserved AS cores, g.int_mem_reserved AS mem_kb,
            g.int_gpus_reserved AS gpus, g.int_gpu_mem_reserved AS gpu_mem_kb, g.b_local AS local
        INTO v_gone;
        -- not there any more, or moved to another show by a redirect: look again
        EXIT WHEN FOUND;
    END LOOP;

    IF NOT v_managed THEN
        PERFORM retally.add_to_totals(
            v_show, v_gone.alloc, v_gone.layer, v_gone.job, -v_gone.cores, -v_gone.gpus,
            v_gone.local
        );
    ELSIF NOT v_gone.local AND (SELECT s.notify FROM retally.setting AS s) THEN
        PERFORM retally.notify_release(
            v_show, v_gone.alloc, v_gone.layer, v_gone.job, v_gone.cores, v_gone.gpus,
            ARRAY[v_gone.host]
        );
    END IF;
    IF v_gone.local THEN
        PERFORM retally.take_local_share(
            v_gone.host, v_gone.job, -v_gone.cores, -v_gone.mem_kb, -v_gone.gpus,
            -v_gone.gpu_mem_kb
        );
    END IF;
    RETURN TRUE;
END
$$;

COMMENT ON FUNCTION retally.release_proc(p_proc text) IS 'Ends a proc and gives back what its row says; false when it is gone.';

CREATE FUNCTION retally.release_procs(p_procs text[]) RETURNS TABLE(nr integer, proc text, released boolean)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET jit TO 'off'
    AS $$
DECLARE
    v_shows text[];
    v_managed text[] := '{}';
    v_gone retally.booking[] := '{}';
BEGIN
    -- before the procs are looked for: an old snapshot would say that they are gone
    PERFORM retally.require_read_committed('nothing can be booked or released');
    LOOP
        v_shows := ARRAY(
            SELECT coalesce(p.pk_show::text, '')
            FROM public.proc AS p
            WHERE p.pk_proc::text IN (SELECT a.proc FROM unnest(p_procs) AS a (proc))
        );
        EXIT WHEN cardinality(v_shows) = 0;
        v_managed := v_managed || retally.pin_flags(v_shows);
        -- a proc that a redirect moves to another show meanwhile is looked at again
        v_gone := v_gone || ARRAY(SELECT d FROM retally.delete_procs(p_procs, v_shows) AS d);
    END LOOP;
    v_gone := ARRAY(SELECT h FROM retally.lock_hosts(v_gone) AS h);
    PERFORM retally.lock_totals(v_gone, v_managed);
    PERFORM retally.count_in(v_gone, v_managed, -1);
    PERFORM retally.notify_release(
        g.show, g.alloc, CASE WHEN min(g.layer) = max(g.layer) THEN min(g.layer) END, g.job,
        sum(g.cores)::bigint, sum(g.gpus)::bigint, array_agg(DISTINCT g.host)
    )
    FROM unnest(v_gone) AS g
    CROSS JOIN retally.setting AS s
    WHERE s.notify AND g.show = any(v_managed) AND NOT g.local
    GROUP BY g.show, g.alloc, g.job;

    RETURN QUERY
    SELECT
        a.nr::integer,
        a.proc,
        g.proc IS NOT NULL AND row_number() OVER (PARTITION BY a.proc ORDER BY a.nr) = 1
    FROM unnest(p_procs) WITH ORDINALITY AS a (proc, nr)
    LEFT JOIN unnest(v_gone) AS g ON a.proc = g.proc
    ORDER BY a.nr;
END
$$;

COMMENT ON FUNCTION retally.release_procs(p_procs text[]) IS 'Ends many procs in one transaction; one answer for each entry.';

CREATE FUNCTION retally.repair(p_findings retally.finding[], p_wait boolean, p_tick text, p_worker text, p_cause text, p_force boolean, p_run bigint) RETURNS TABLE(run bigint, show_id text, total text, rows_adrift bigint, rows_changed bigint, rows_deferred bigint, rows_failed bigint, core_units numeric, gpus numeric, seconds double precision, problems text[])
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_show_id text;
    v_totals text[];
    v_guarded boolean;
    v_changes retally.change[] := '{}';
    v_row record;
BEGIN
    SELECT
        min(f.show_id),
        array_agg(f.total),
        NOT p_force AND sum(f.rows_adrift) > 0
    INTO v_show_id, v_totals, v_guarded
    FROM unnest(p_findings) AS f;
    IF v_guarded THEN
        -- what the findings say may be old, and another repair may just be at it
        PERFORM retally.hold_scope(v_show_id, p_wait);
        PERFORM retally.refuse_large_repair(v_show_id, v_totals, NULL);
    END IF;

    run := p_run;
    FOR v_row IN
        SELECT m.*
        FROM retally.mend(p_findings, p_wait, 'repaired', p_tick, p_worker) AS m
    LOOP
        run := retally.note_run(
            run, p_worker, p_cause, p_force, NULL, v_row.show_id, v_row.changes,
            retally.likely_causes(v_row.changes)
        );
        v_changes := v_changes || v_row.changes;
        show_id := v_row.show_id;
        total := v_row.total;
        rows_adrift := v_row.rows_adrift;
        rows_changed := v_row.rows_changed;
        rows_deferred := v_row.rows_deferred;
        rows_failed := v_row.rows_failed;
        core_units := v_row.core_units;
        gpus := v_row.gpus;
        seconds := v_row.seconds;
        problems := v_row.problems;
        RETURN NEXT;
    END LOOP;

    IF v_guarded THEN
        -- procs may have gone between the first look and the second sum
        PERFORM retally.refuse_large_repair(v_show_id, v_totals, v_changes);
    END IF;
END
$$;

COMMENT ON FUNCTION retally.repair(p_findings retally.finding[], p_wait boolean, p_tick text, p_worker text, p_cause text, p_force boolean, p_run bigint) IS 'Mends what was found adrift in one unmanaged show, and keeps before and after.';

CREATE PROCEDURE retally.repair_show(IN p_show text, IN p_force boolean DEFAULT false, IN p_wait boolean DEFAULT true, INOUT run bigint DEFAULT NULL::bigint, INOUT rows_adrift bigint DEFAULT NULL::bigint, INOUT rows_changed bigint DEFAULT NULL::bigint, INOUT rows_deferred bigint DEFAULT NULL::bigint, INOUT rows_failed bigint DEFAULT NULL::bigint, INOUT problems text[] DEFAULT NULL::text[])
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
    v_row record;
BEGIN
    -- before the findings, so that of two repairs of a show the second finds nothing left
    PERFORM retally.hold_scope(v_show_id, p_wait);
    SELECT NULL, 0, 0, 0, 0, '{}'
    INTO run, rows_adrift, rows_changed, rows_deferred, rows_failed, problems;
    FOR v_row IN
        SELECT r.*
        FROM retally.repair(
            ARRAY(SELECT f FROM retally.findings(ARRAY[v_show_id], retally.totals()) AS f),
            p_wait, 'by hand', current_user::text, 'by hand', p_force, NULL
        ) AS r
    LOOP
        run := v_row.run;
        rows_adrift := rows_adrift + v_row.rows_adrift;
        rows_changed := rows_changed + v_row.rows_changed;
        rows_deferred := rows_deferred + v_row.rows_deferred;
        rows_failed := rows_failed + v_row.rows_failed;
        problems := problems || v_row.problems;
    END LOOP;
END
$$;

COMMENT ON PROCEDURE retally.repair_show(IN p_show text, IN p_force boolean, IN p_wait boolean, INOUT run bigint, INOUT rows_adrift bigint, INOUT rows_changed bigint, INOUT rows_deferred bigint, INOUT rows_failed bigint, INOUT problems text[]) IS 'Repairs the totals of one show by hand: with the ledger, and within limits.';

CREATE FUNCTION retally.require_cap(p_cap bigint, p_least bigint) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    AS $$
BEGIN
    IF p_cap IS NULL THEN
        RAISE EXCEPTION 'a cap cannot be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Say a number, in core units.';
    ELSIF p_cap < p_least THEN
        RAISE EXCEPTION 'a cap cannot be %', p_cap
            USING ERRCODE = 'numeric_value_out_of_range',
                HINT = format('The least is %s.', p_least)
                    || CASE WHEN p_least < 0 THEN ' It means no limit.' ELSE '' END;
    END IF;
END
$$;

COMMENT ON FUNCTION retally.require_cap(p_cap bigint, p_least bigint) IS 'Refuses a cap that is null or below p_least.';

CREATE FUNCTION retally.require_lengths(p_given integer[], p_optional integer[]) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    AS $$
BEGIN
    IF array_position(p_given, NULL) IS NOT NULL
        OR (SELECT count(DISTINCT l.length) > 1 FROM unnest(p_given || p_optional) AS l (length))
    THEN
        RAISE EXCEPTION 'the arrays of a batch differ in length, or one of them is null'
            USING ERRCODE = 'RT008',
                HINT = 'Each has one element for each proc; from that of the GPUs on they may be'
                    || ' left out.';
    END IF;
END
$$;

COMMENT ON FUNCTION retally.require_lengths(p_given integer[], p_optional integer[]) IS 'Refuses arrays of a batch that differ in length.';

CREATE FUNCTION retally.require_read_committed(p_what text) RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION '% at isolation level %', p_what, current_setting('transaction_isolation')
            USING ERRCODE = 'RT003',
                HINT = 'Use READ COMMITTED: what others commit meanwhile has to be seen.';
    END IF;
END
$$;

COMMENT ON FUNCTION retally.require_read_committed(p_what text) IS 'Refuses every isolation level but READ COMMITTED.';

CREATE FUNCTION retally.restorable(p_run bigint) RETURNS TABLE(show_id text, total text, key text, slot text, before numeric, after numeric, now numeric, restorable boolean)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET enable_nestloop TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
    WITH written AS (
        SELECT l.*
        FROM retally.ledger AS l
        WHERE l.run = p_run
    ),

    looked_at AS (
        SELECT
            array_agg(DISTINCT w.scope) AS scopes,
            array_agg(DISTINCT w.total) AS totals
        FROM written AS w
    ),

    held AS (
        SELECT
            s.show_id,
            s.total,
            s.key,
            v.slot,
            v.amount
        FROM looked_at AS o
        CROSS JOIN LATERAL retally.stored_in(o.scopes, o.totals, TRUE) AS s
        CROSS JOIN
            LATERAL (
                VALUES
                ('cores', s.cores),
                ('gpus', s.gpus),
                ('local_cores', s.local_cores),
                ('local_gpus', s.local_gpus)
            ) AS v (slot, amount)
    )

    SELECT
        w.scope,
        w.total,
        w.key,
        w.slot,
        w.before,
        w.after,
        h.amount,
        bool_and(coalesce(h.amount = w.after, FALSE)) OVER (PARTITION BY w.scope, w.total, w.key)
        -- of a key with several rows, the ledger knows one
        AND count(*) OVER (PARTITION BY w.scope, w.total, w.key, w.slot) = 1
    FROM written AS w
    LEFT JOIN held AS h
        ON
            w.scope = h.show_id
            AND w.total = h.total
            AND w.key = h.key
            AND w.slot = h.slot
    ORDER BY w.scope, array_position(retally.totals(), w.total), w.key, w.slot
$$;

COMMENT ON FUNCTION retally.restorable(p_run bigint) IS 'What undo() would meet in the rows that a run wrote.';

CREATE FUNCTION retally.rights(p_for text) RETURNS TABLE(kind text, object text, privilege text, columns text[])
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
BEGIN
    IF p_for IS NULL OR p_for NOT IN ('worker', 'dispatcher', 'reader') THEN
        RAISE EXCEPTION 'there are no rights for a "%"', coalesce(p_for, 'null')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Say worker, dispatcher or reader.';
    END IF;

    RETURN QUERY
    SELECT
        r.kind,
        o.object,
        r.privilege,
        string_to_array(r.columns, ' ')
    FROM (
        VALUES
        -- PUBLIC has these two unless the server was hardened
        ('worker dispatcher reader', 'schema', 'public', 'USAGE', NULL),
        ('worker dispatcher reader', 'routines', 'retally', 'EXECUTE', NULL),
        ('worker dispatcher reader', 'schema', 'retally', 'USAGE', NULL),
        (
            'worker dispatcher reader', 'table',
            'retally.migration retally.installed retally.setting retally.scope_flag retally.lease',
            'SELECT', NULL
        ),
        (
            'worker reader', 'table',
            'retally.scope_mode retally.pass retally.history retally.deferred retally.due '
            'retally.worker retally.run retally.ledger', 'SELECT', NULL
        ),
        ('worker dispatcher reader', 'table', 'retally.journal', 'SELECT', NULL),
        (
            'worker', 'table',
            'retally.pass retally.history retally.deferred retally.due retally.worker '
            'retally.scope_flag retally.scope_mode retally.run retally.ledger', 'INSERT', NULL
        ),
        (
            'worker', 'table',
            'retally.pass retally.deferred retally.due retally.worker retally.scope_flag '
            'retally.scope_mode retally.ledger', 'UPDATE', NULL
        ),
        -- a lock FOR UPDATE takes this right, on whichever column
        ('worker', 'table', 'retally.run', 'UPDATE', 'cause'),
        (
            'worker', 'table',
            'retally.pass retally.history retally.deferred retally.due retally.worker '
            'retally.scope_flag retally.scope_mode retally.run retally.journal', 'DELETE', NULL
        ),
        ('worker', 'table', 'retally.setting', 'UPDATE', 'override'),
        -- a flip ends the lease of its show
        ('worker dispatcher', 'table', 'retally.lease', 'UPDATE', NULL),
        ('dispatcher', 'table', 'retally.lease', 'INSERT', NULL),

        (
            'worker dispatcher reader', 'table',
            'public.show public.alloc public.job public.layer public.host public.proc '
            'public.subscription public.layer_resource public.job_resource '
            'public.folder public.folder_resource public.point', 'SELECT', NULL
        ),
        ('worker reader', 'table', 'public.dept', 'SELECT', NULL),
        ('dispatcher', 'table', 'public.frame public.host_local', 'SELECT', NULL),
        -- caps too: a total above its cap is written with a cap of one less, put back at once
        ('worker', 'table', 'public.subscription', 'UPDATE', 'int_cores int_gpus int_burst'),
        (
            'worker', 'table', 'public.job_resource', 'UPDATE',
            'int_cores int_gpus int_local_cores int_local_gpus int_max_cores int_max_gpus'
        ),
        ('worker', 'table', 'public.folder_resource', 'UPDATE', 'int_max_cores int_max_gpus'),
        ('dispatcher', 'table', 'public.subscription', 'UPDATE', 'int_cores int_gpus'),
        (
            'dispatcher', 'table', 'public.job_resource', 'UPDATE',
            'int_cores int_gpus int_local_cores int_local_gpus'
        ),
        (
            'worker dispatcher', 'table',
            'public.layer_resource public.folder_resource public.point', 'UPDATE',
            'int_cores int_gpus'
        ),
        (
            'dispatcher', 'table', 'public.host public.host_local', 'UPDATE',
            'int_cores_idle int_mem_idle int_gpus_idle int_gpu_mem_idle'
        ),
        ('dispatcher', 'table', 'public.proc', 'INSERT', NULL),
        -- for locks, as above
        ('dispatcher', 'table', 'public.proc', 'UPDATE', 'pk_frame'),
        ('dispatcher', 'table', 'public.proc', 'DELETE', NULL)
    ) AS r (purposes, kind, objects, privilege, columns)
    CROSS JOIN LATERAL unnest(string_to_array(r.objects, ' ')) AS o (object)
    WHERE p_for = any(string_to_array(r.purposes, ' '));
END
$$;

COMMENT ON FUNCTION retally.rights(p_for text) IS 'The rights that are enough for a worker, a dispatcher or a reader.';

CREATE FUNCTION retally.row_name(p_total text, p_key text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        coalesce(
            (
                SELECT n.name
                FROM retally.names() AS n
                WHERE n.total = p_total AND n.key = p_key
            ), p_key, 'none'
        )
$$;

COMMENT ON FUNCTION retally.row_name(p_total text, p_key text) IS 'What a person calls the row of this total and key.';

CREATE FUNCTION retally.scope_lock(p_scope text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT hashtextextended('retally writes ' || p_scope, 0)
$$;

COMMENT ON FUNCTION retally.scope_lock(p_scope text) IS 'The key of the advisory lock that the one writer of a scope''s totals holds.';

CREATE FUNCTION retally.seize_rows(p_show_id text, p_total text, p_keys text[], p_wait boolean, p_deadline timestamp with time zone, p_holding boolean, OUT held text[], OUT busy text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_patient text[];
    v_key text;
BEGIN
    IF NOT p_holding THEN
        v_patient := retally.patient_keys(p_show_id, p_total, p_keys, p_wait);
    END IF;
    SELECT f.held, f.busy
    INTO held, busy
    FROM retally.lock_free_rows(p_show_id, p_total, p_keys, v_patient) AS f;

    IF busy && v_patient THEN
        -- all was let go of
        FOREACH v_key IN ARRAY retally.patient_keys(p_show_id, p_total, busy, p_wait) LOOP
            -- the first one that is had ends this: from then on there is a lock in hand
            EXIT WHEN retally.wait_for_row(
                p_show_id, p_total, v_key, p_deadline - clock_timestamp()
            );
        END LOOP;
        SELECT f.held, f.busy
        INTO held, busy
        FROM retally.lock_free_rows(p_show_id, p_total, p_keys, NULL) AS f;
    END IF;

    -- who never stands in a queue is never part of a cycle of locks
    WHILE clock_timestamp() < p_deadline
        AND cardinality(retally.patient_keys(p_show_id, p_total, busy, p_wait)) > 0
    LOOP
        PERFORM pg_sleep(0.005);
        SELECT seize_rows.held || f.held, f.busy
        INTO held, busy
        FROM retally.lock_free_rows(p_show_id, p_total, busy, NULL) AS f;
    END LOOP;
END
$$;

COMMENT ON FUNCTION retally.seize_rows(p_show_id text, p_total text, p_keys text[], p_wait boolean, p_deadline timestamp with time zone, p_holding boolean, OUT held text[], OUT busy text[]) IS 'Step 2 of a pass: locks rows of one total of a show, as many as can be had.';

CREATE PROCEDURE retally.set_burst(IN p_show text, IN p_alloc text, IN p_burst bigint)
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
    v_alloc_id text;
BEGIN
    PERFORM retally.require_cap(p_burst, 0);
    UPDATE public.subscription AS s
    SET int_burst = p_burst
    FROM public.alloc AS a
    WHERE
        s.pk_show::text = v_show_id
        AND s.pk_alloc::text = a.pk_alloc::text
        AND p_alloc IN (a.pk_alloc::text, a.str_name::text)
    RETURNING s.pk_alloc::text
    INTO v_alloc_id;
    IF v_alloc_id IS NULL THEN
        RAISE EXCEPTION 'show "%" has no subscription to allocation "%"', p_show, p_alloc
            USING ERRCODE = 'RT013', HINT = 'Name the allocation by its name or id (pk_alloc).';
    END IF;
    PERFORM retally.notify_limit(
        jsonb_build_object('vertex', 'sub', 'show', v_show_id, 'alloc', v_alloc_id),
        'burst', p_burst, NULL
    );
END
$$;

COMMENT ON PROCEDURE retally.set_burst(IN p_show text, IN p_alloc text, IN p_burst bigint) IS 'Sets the burst of a subscription and tells the dispatchers.';

CREATE FUNCTION retally.set_flag(p_scope text, p_asked boolean, p_managed boolean) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_before text;
BEGIN
    v_before := retally.set_lock_timeout(retally.lock_budget());
    INSERT INTO retally.scope_flag AS f (scope, asked, managed)
    VALUES (p_scope, p_asked, p_managed)
    ON CONFLICT (scope) DO UPDATE
        SET asked = excluded.asked, managed = excluded.managed,
            journaled = f.journaled AND excluded.managed,
            set_at = clock_timestamp(), set_by = current_user
        WHERE (f.asked, f.managed) <> (excluded.asked, excluded.managed);
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'another session has the flag of % locked', p_scope
            USING ERRCODE = 'RT005', HINT = 'Let it commit or roll back, and try again.';
END
$$;

COMMENT ON FUNCTION retally.set_flag(p_scope text, p_asked boolean, p_managed boolean) IS 'Writes the flag of a scope: what was asked for, and what is in force.';

CREATE PROCEDURE retally.set_folder_max(IN p_folder text, IN p_max_cores integer, IN p_max_gpus integer DEFAULT NULL::integer)
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    PERFORM retally.require_cap(coalesce(p_max_cores, -1), -1);
    PERFORM retally.require_cap(coalesce(p_max_gpus, -1), -1);
    UPDATE public.folder_resource AS r
    SET
        int_max_cores = coalesce(p_max_cores, r.int_max_cores),
        int_max_gpus = coalesce(p_max_gpus, r.int_max_gpus)
    WHERE r.pk_folder::text = p_folder;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no folder "%"', p_folder
            USING ERRCODE = 'RT009', HINT = 'Name it by its id (pk_folder).';
    END IF;
    PERFORM retally.notify_limit(
        jsonb_build_object('vertex', 'folder', 'id', p_folder), 'max_cores', p_max_cores, p_max_gpus
    );
END
$$;

COMMENT ON PROCEDURE retally.set_folder_max(IN p_folder text, IN p_max_cores integer, IN p_max_gpus integer) IS 'Sets what a folder may use and tells the dispatchers.';

CREATE PROCEDURE retally.set_job_max(IN p_job text, IN p_max_cores integer, IN p_max_gpus integer DEFAULT NULL::integer)
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    PERFORM retally.require_cap(coalesce(p_max_cores, -1), -1);
    PERFORM retally.require_cap(coalesce(p_max_gpus, -1), -1);
    UPDATE public.job_resource AS r
    SET
        int_max_cores = coalesce(p_max_cores, r.int_max_cores),
        int_max_gpus = coalesce(p_max_gpus, r.int_max_gpus)
    WHERE r.pk_job::text = p_job;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no job "%"', p_job
            USING ERRCODE = 'RT009', HINT = 'Name it by its id (pk_job).';
    END IF;
    PERFORM retally.notify_limit(
        jsonb_build_object('vertex', 'job', 'id', p_job), 'max_cores', p_max_cores, p_max_gpus
    );
END
$$;

COMMENT ON PROCEDURE retally.set_job_max(IN p_job text, IN p_max_cores integer, IN p_max_gpus integer) IS 'Sets what a job may use and tells the dispatchers.';

CREATE PROCEDURE retally.set_journal(IN p_show text, IN p_on boolean)
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
    v_before text;
BEGIN
    IF p_on IS NULL THEN
        RAISE EXCEPTION 'is show "%" to be journaled or not?', p_show
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Say true or false.';
    END IF;
    -- what is looked at below stays so
    PERFORM retally.hold_journal();
    PERFORM retally.hold_scope(v_show_id, TRUE);
    IF p_on AND EXISTS (
        SELECT FROM retally.scope_flag AS f WHERE f.scope = v_show_id AND f.journaled
    ) THEN
        RETURN;
    END IF;
    IF p_on AND NOT retally.is_managed(v_show_id) THEN
        RAISE EXCEPTION 'show "%" is not managed: its bookings keep the totals themselves', p_show
            USING ERRCODE = 'RT018',
                HINT = format('`retally managed --show %s on` first.', p_show);
    END IF;
    DELETE FROM retally.journal AS j
    WHERE j.scope = v_show_id;
    IF p_on THEN
        -- a show that is managed by the override alone has no row yet
        v_before := retally.set_lock_timeout(retally.lock_budget());
        INSERT INTO retally.scope_flag AS f (scope, asked, managed, journaled)
        VALUES (v_show_id, FALSE, TRUE, TRUE)
        ON CONFLICT (scope) DO UPDATE SET journaled = TRUE;
        PERFORM set_config('lock_timeout', v_before, TRUE);
        -- last of all, since who books waits from here on; of those who began before, in READ
        -- COMMITTED, nobody is about to commit procs without an entry
        PERFORM retally.set_journal_triggers(TRUE);
        RETURN;
    END IF;
    UPDATE retally.scope_flag AS f
    SET journaled = FALSE
    WHERE f.scope = v_show_id AND f.journaled;
    -- the flag of a show that is gone keeps nothing
    IF NOT EXISTS (SELECT FROM retally.shows() AS s WHERE s.journaled) THEN
        CALL retally.end_journal();
    END IF;
END
$$;

COMMENT ON PROCEDURE retally.set_journal(IN p_show text, IN p_on boolean) IS 'Journals a show, or does so no more.';

CREATE FUNCTION retally.set_journal_triggers(p_on boolean) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_before text := retally.set_lock_timeout(
        (SELECT s.longest_flip FROM retally.setting AS s)
    );
BEGIN
    IF NOT p_on THEN
        -- without any it need not be locked
        IF EXISTS (SELECT FROM retally.journal_triggers() AS t) THEN
            DROP TRIGGER IF EXISTS retally_booked ON public.proc;
            DROP TRIGGER IF EXISTS retally_released ON public.proc;
            DROP TRIGGER IF EXISTS retally_changed ON public.proc;
        END IF;
    ELSE
        LOCK TABLE public.proc IN SHARE ROW EXCLUSIVE MODE;
        CREATE OR REPLACE TRIGGER retally_booked
        AFTER INSERT ON public.proc
        REFERENCING NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION retally.journal_procs();
        CREATE OR REPLACE TRIGGER retally_released
        AFTER DELETE ON public.proc
        REFERENCING OLD TABLE AS old_rows
        FOR EACH STATEMENT EXECUTE FUNCTION retally.journal_procs();
        -- by row: what a host reports of its procs every minute changes none of this, and then
        -- costs no call
        CREATE OR REPLACE TRIGGER retally_changed
        AFTER UPDATE ON public.proc
        FOR EACH ROW WHEN (
            old.pk_show IS DISTINCT FROM new.pk_show
            OR old.pk_host IS DISTINCT FROM new.pk_host
            OR old.pk_layer IS DISTINCT FROM new.pk_layer
            OR old.pk_job IS DISTINCT FROM new.pk_job
            OR old.b_local IS DISTINCT FROM new.b_local
            OR old.int_cores_reserved IS DISTINCT FROM new.int_cores_reserved
            OR old.int_gpus_reserved IS DISTINCT FROM new.int_gpus_reserved
        ) EXECUTE FUNCTION retally.journal_procs();
    END IF;
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'others have the farm''s table proc locked for too long'
            USING ERRCODE = 'RT005',
                HINT = 'Look for a long transaction, with `retally doctor`, and try again.';
END
$$;

COMMENT ON FUNCTION retally.set_journal_triggers(p_on boolean) IS 'Puts the triggers of the journal on the farm''s proc, or takes them away.';

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

CREATE PROCEDURE retally.set_managed(IN p_show text, IN p_managed boolean, INOUT rows_adrift bigint DEFAULT NULL::bigint, INOUT rows_changed bigint DEFAULT NULL::bigint, INOUT rows_deferred bigint DEFAULT NULL::bigint, INOUT rows_failed bigint DEFAULT NULL::bigint, INOUT core_units numeric DEFAULT NULL::numeric, INOUT gpus numeric DEFAULT NULL::numeric, INOUT problems text[] DEFAULT NULL::text[])
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF p_managed IS NULL THEN
        RAISE EXCEPTION 'is show "%" to be managed or not?', p_show
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Say true or false.';
    END IF;
    -- the flag of a show that is gone can still be taken down, by its id
    DELETE FROM retally.scope_flag AS f
    WHERE
        f.scope = p_show
        AND NOT p_managed
        AND NOT EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = p_show);
    IF FOUND THEN
        RETURN;
    END IF;

    SELECT f.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.flip(retally.show_id(p_show), p_managed) AS f;
END
$$;

COMMENT ON PROCEDURE retally.set_managed(IN p_show text, IN p_managed boolean, INOUT rows_adrift bigint, INOUT rows_changed bigint, INOUT rows_deferred bigint, INOUT rows_failed bigint, INOUT core_units numeric, INOUT gpus numeric, INOUT problems text[]) IS 'Sets retally''s own flag of a show and rebuilds its totals in the same transaction.';

CREATE PROCEDURE retally.set_mode(IN p_show text, IN p_mode text)
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_show_id text;
BEGIN
    IF p_mode NOT IN ('off', 'watch', 'repair') THEN
        RAISE EXCEPTION 'an unmanaged show cannot be in mode "%"', p_mode
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Say off, watch, repair or NULL.';
    END IF;
    IF p_mode IS NULL THEN
        DELETE FROM retally.scope_mode AS m
        WHERE
            m.scope = p_show
            AND NOT EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = p_show);
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;

    v_show_id := retally.show_id(p_show);
    IF p_mode IS NULL THEN
        DELETE FROM retally.scope_mode AS m
        WHERE m.scope = v_show_id;
        RETURN;
    END IF;
    INSERT INTO retally.scope_mode (scope, mode)
    VALUES (v_show_id, p_mode)
    ON CONFLICT (scope) DO UPDATE SET
        mode = excluded.mode,
        set_at = excluded.set_at,
        set_by = excluded.set_by;
END
$$;

COMMENT ON PROCEDURE retally.set_mode(IN p_show text, IN p_mode text) IS 'Says what the ticks do to a show''s totals while it is unmanaged.';

CREATE PROCEDURE retally.set_override(IN p_override text, INOUT shows bigint DEFAULT NULL::bigint, INOUT shows_left bigint DEFAULT NULL::bigint, INOUT problems text[] DEFAULT NULL::text[])
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_show record;
    v_done record;
    v_failure text;
BEGIN
    -- inside a transaction block this fails, before any work is done
    COMMIT;
    -- the role or the database may have another default
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    IF p_override IS NULL OR p_override NOT IN ('per-show', 'all', 'none') THEN
        RAISE EXCEPTION 'there is no override "%"', p_override
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Say per-show, all or none.';
    END IF;
    PERFORM retally.change_override(
        p_override, ARRAY(SELECT s.pk_show::text FROM public.show AS s)
    );
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

    shows := 0;
    shows_left := 0;
    problems := '{}';
    FOR v_show IN
        SELECT
            s.pk_show::text AS show_id,
            s.str_name::text AS name
        FROM public.show AS s
        ORDER BY s.str_name, s.pk_show
    LOOP
        BEGIN
            SELECT f.*
            INTO v_done
            FROM retally.flip(v_show.show_id, NULL) AS f;
            IF v_done.problems IS NOT NULL THEN
                shows := shows + 1;
                problems := problems || ARRAY(
                    SELECT format('show %s: %s', v_show.name, p.problem)
                    FROM unnest(v_done.problems) AS p (problem)
                );
            END IF;
        EXCEPTION
            WHEN OTHERS THEN
                -- kept with its SQLSTATE; the next show must not suffer for this one
                v_failure := format('show %s: %s (SQLSTATE %s)', v_show.name, sqlerrm, sqlstate);
                RAISE WARNING '%', v_failure;
                shows_left := shows_left + 1;
                problems := problems || v_failure;
        END;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    END LOOP;
END
$$;

COMMENT ON PROCEDURE retally.set_override(IN p_override text, INOUT shows bigint, INOUT shows_left bigint, INOUT problems text[]) IS 'Sets the farm-wide override and flips every show that it concerns.';

CREATE FUNCTION retally.shortage(p_cores_idle bigint, p_mem_idle bigint, p_gpus_idle bigint, p_gpu_mem_idle bigint, p_cores numeric, p_mem_kb numeric, p_gpus numeric, p_gpu_mem_kb numeric) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE
        WHEN p_cores > p_cores_idle
            THEN format('%s core units idle, not %s', p_cores_idle, p_cores)
        WHEN p_mem_kb > p_mem_idle
            THEN format('%s kB of memory idle, not %s', p_mem_idle, p_mem_kb)
        WHEN p_gpus > p_gpus_idle
            THEN format('%s GPUs idle, not %s', p_gpus_idle, p_gpus)
        WHEN p_gpu_mem_kb > p_gpu_mem_idle
            THEN format('%s kB of GPU memory idle, not %s', p_gpu_mem_idle, p_gpu_mem_kb)
    END
$$;

COMMENT ON FUNCTION retally.shortage(p_cores_idle bigint, p_mem_idle bigint, p_gpus_idle bigint, p_gpu_mem_idle bigint, p_cores numeric, p_mem_kb numeric, p_gpus numeric, p_gpu_mem_kb numeric) IS 'Which of the amounts asked for is more than what is idle, in words.';

CREATE FUNCTION retally.show_id(p_show text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_ids text[];
    v_near text[];
BEGIN
    IF EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = p_show) THEN
        RETURN p_show;
    END IF;
    SELECT coalesce(array_agg(s.pk_show::text ORDER BY s.pk_show), '{}')
    INTO v_ids
    FROM public.show AS s
    WHERE s.str_name::text = p_show;

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
                ELSE '`retally managed` lists them, or SELECT * FROM retally.shows().'
            END;
END
$$;

COMMENT ON FUNCTION retally.show_id(p_show text) IS 'The id of the show with this id or name.';

CREATE FUNCTION retally.shows() RETURNS TABLE(show_id text, name text, managed boolean, farm_flag boolean, rebuilt boolean, mode text, journaled boolean)
    LANGUAGE sql STABLE
    AS $$
    WITH flags AS (
        SELECT
            s.pk_show::text AS show_id,
            s.str_name::text AS show_name,
            retally.is_managed(s.pk_show::text) AS managed,
            (to_jsonb(s) ->> 'b_scheduler_managed')::boolean AS farm_flag
        FROM public.show AS s
    )

    SELECT
        f.show_id,
        f.show_name,
        f.managed,
        f.farm_flag,
        f.managed OR (coalesce(f.farm_flag, FALSE) AND t.follow_farm_flag),
        m.mode,
        coalesce(j.journaled, FALSE)
    FROM flags AS f
    CROSS JOIN retally.setting AS t
    LEFT JOIN retally.scope_mode AS m ON f.show_id = m.scope
    LEFT JOIN retally.scope_flag AS j ON f.show_id = j.scope
    ORDER BY f.show_name, f.show_id
$$;

COMMENT ON FUNCTION retally.shows() IS 'Every show, its flags, and whether the ticks rebuild its totals.';

CREATE FUNCTION retally.stored(p_show text) RETURNS TABLE(total text, key text, cores numeric, gpus numeric, local_cores numeric, local_gpus numeric)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
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
    FROM retally.stored_in(ARRAY[v_show_id], retally.totals(), TRUE) AS s;
END
$$;

COMMENT ON FUNCTION retally.stored(p_show text) IS 'What the rows of the show''s totals hold.';

CREATE FUNCTION retally.stored_in(p_show_ids text[], p_totals text[], p_zeros boolean) RETURNS TABLE(show_id text, job_id text, total text, key text, cores numeric, gpus numeric, local_cores numeric, local_gpus numeric)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT
        s.pk_show::text AS show_id,
        NULL::text AS job_id,
        'subscription' AS total,
        s.pk_alloc::text AS key,
        s.int_cores::numeric AS cores,
        s.int_gpus::numeric AS gpus,
        NULL::numeric AS local_cores,
        NULL::numeric AS local_gpus
    FROM public.subscription AS s
    WHERE
        (p_show_ids IS NULL OR s.pk_show::text = any(p_show_ids))
        AND 'subscription' = any(p_totals)
    UNION ALL
    SELECT
        j.pk_show::text,
        r.pk_job::text,
        'layer',
        r.pk_layer::text,
        r.int_cores::numeric,
        r.int_gpus::numeric,
        NULL,
        NULL
    FROM public.layer_resource AS r
    LEFT JOIN public.job AS j ON p_show_ids IS NOT NULL AND r.pk_job::text = j.pk_job::text
    WHERE
        (p_show_ids IS NULL OR j.pk_show::text = any(p_show_ids))
        AND 'layer' = any(p_totals)
        AND (p_zeros OR r.int_cores <> 0 OR r.int_gpus <> 0)
    UNION ALL
    SELECT
        j.pk_show::text,
        r.pk_job::text,
        'job',
        r.pk_job::text,
        r.int_cores::numeric,
        r.int_gpus::numeric,
        r.int_local_cores::numeric,
        r.int_local_gpus::numeric
    FROM public.job_resource AS r
    LEFT JOIN public.job AS j ON p_show_ids IS NOT NULL AND r.pk_job::text = j.pk_job::text
    WHERE
        (p_show_ids IS NULL OR j.pk_show::text = any(p_show_ids))
        AND 'job' = any(p_totals)
        AND (
            p_zeros
            OR r.int_cores <> 0
            OR r.int_gpus <> 0
            OR r.int_local_cores <> 0
            OR r.int_local_gpus <> 0
        )
    UNION ALL
    SELECT
        f.pk_show::text,
        NULL,
        'folder',
        r.pk_folder::text,
        r.int_cores::numeric,
        r.int_gpus::numeric,
        NULL,
        NULL
    FROM public.folder_resource AS r
    INNER JOIN public.folder AS f ON r.pk_folder::text = f.pk_folder::text
    WHERE
        (p_show_ids IS NULL OR f.pk_show::text = any(p_show_ids))
        AND 'folder' = any(p_totals)
    UNION ALL
    SELECT
        t.pk_show::text,
        NULL,
        'point',
        t.pk_dept::text,
        t.int_cores::numeric,
        t.int_gpus::numeric,
        NULL,
        NULL
    FROM public.point AS t
    WHERE
        (p_show_ids IS NULL OR t.pk_show::text = any(p_show_ids))
        AND 'point' = any(p_totals)
$$;

COMMENT ON FUNCTION retally.stored_in(p_show_ids text[], p_totals text[], p_zeros boolean) IS 'What the rows of the shows'' totals hold, in the shape of booked_in().';

CREATE FUNCTION retally.sum_again(p_seizures retally.seizure[]) RETURNS TABLE(show_id text, total text, amount retally.amount)
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_show_ids text[] := ARRAY(
        SELECT DISTINCT s.scope FROM unnest(p_seizures) AS s WHERE cardinality(s.held) > 0
    );
    v_layers text[] := ARRAY(
        SELECT h.key
        FROM unnest(p_seizures) AS s
        CROSS JOIN LATERAL unnest(s.held) AS h (key)
        WHERE s.total = 'layer'
    );
    v_totals text[] := ARRAY(
        SELECT DISTINCT s.total FROM unnest(p_seizures) AS s WHERE cardinality(s.held) > 0
    );
    v_read text[] := retally.read_for(v_show_ids);
BEGIN
    -- The other totals are a good part of their shows, whose procs are read once for all of these.
    -- Layers are found by their keys, unless they are many.
    IF v_read IS NOT NULL AND cardinality(v_layers) <= 2000 THEN
        v_totals := array_remove(v_totals, 'layer');
    ELSE
        v_layers := '{}';
    END IF;

    RETURN QUERY
    WITH held AS (
        SELECT
            s.scope,
            s.total,
            h.key,
            CASE WHEN s.total IN ('subscription', 'point') THEN s.scope ELSE '' END AS of_show
        FROM unnest(p_seizures) AS s
        CROSS JOIN LATERAL unnest(s.held) AS h (key)
    )

    SELECT
        h.scope,
        h.total,
        ROW(
            h.key, coalesce(b.cores, 0), coalesce(b.gpus, 0), coalesce(b.local_cores, 0),
            coalesce(b.local_gpus, 0)
        )::retally.amount
    FROM held AS h
    LEFT JOIN (
        SELECT w.*
        FROM retally.booked_in(v_read, v_totals, NULL, 'owed') AS w
        UNION ALL
        SELECT l.*
        FROM retally.booked_in(v_show_ids, ARRAY['layer'], v_layers, 'owed') AS l
    ) AS b ON h.key = b.key AND h.total = b.total AND h.of_show = coalesce(b.show_id, '');
END
$$;

COMMENT ON FUNCTION retally.sum_again(p_seizures retally.seizure[]) IS 'The second sum: what the procs say now of rows that this transaction has locked.';

CREATE FUNCTION retally.take_lease(p_scope text, p_name text, p_holder text, p_for interval, OUT token bigint, OUT managed boolean, OUT served_by text, OUT expires_in double precision) RETURNS record
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_before text;
BEGIN
    PERFORM retally.require_read_committed('no lease can be taken');
    managed := retally.is_managed(p_scope);
    -- most who ask are refused: without the lock that the scope's bookings would wait for
    IF managed AND NOT retally.want_lease(p_scope, p_holder) THEN
        PERFORM retally.hold_flag(p_scope, p_name);
        managed := retally.is_managed(p_scope);
        v_before := retally.set_lock_timeout(retally.lock_budget());
        INSERT INTO retally.lease AS l (scope, token, holder, expires_at)
        SELECT
            p_scope,
            -- also above those of a row that somebody has deleted
            (1e6 * extract(EPOCH FROM clock_timestamp()))::bigint,
            p_holder,
            clock_timestamp() + p_for
        WHERE managed
        ON CONFLICT (scope) DO UPDATE
            SET token = greatest(l.token + 1, excluded.token), holder = excluded.holder,
                expires_at = excluded.expires_at, taken_at = clock_timestamp(),
                wanted_by = NULL, wanted_at = NULL
            WHERE
                l.holder = excluded.holder
                OR (
                    (l.holder IS NULL OR l.expires_at <= clock_timestamp())
                    -- not what was given up for somebody else
                    AND NOT (retally.is_wanted(l.wanted_at) AND l.wanted_by <> excluded.holder)
                )
        RETURNING l.token
        INTO token;
        PERFORM set_config('lock_timeout', v_before, TRUE);
    END IF;
    IF managed AND token IS NULL THEN
        SELECT
            CASE WHEN l.expires_at > clock_timestamp() THEN l.holder ELSE l.wanted_by END,
            extract(
                EPOCH FROM greatest(l.expires_at, l.wanted_at + retally.lease_wish())
                - clock_timestamp()
            )
        INTO served_by, expires_in
        FROM retally.lease AS l
        WHERE l.scope = p_scope;
    END IF;
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'another session has the lease of "%" locked', p_name
            USING ERRCODE = 'RT005', HINT = 'Let it commit or roll back, and try again.';
END
$$;

COMMENT ON FUNCTION retally.take_lease(p_scope text, p_name text, p_holder text, p_for interval, OUT token bigint, OUT managed boolean, OUT served_by text, OUT expires_in double precision) IS 'Gives the scope to one dispatcher for a while: its token.';

CREATE FUNCTION retally.take_local_share(p_host text, p_job text, p_cores bigint, p_mem_kb bigint, p_gpus bigint, p_gpu_mem_kb bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    UPDATE public.host_local AS s
    SET
        int_cores_idle = s.int_cores_idle - p_cores,
        int_mem_idle = s.int_mem_idle - p_mem_kb,
        int_gpus_idle = s.int_gpus_idle - p_gpus,
        int_gpu_mem_idle = s.int_gpu_mem_idle - p_gpu_mem_kb
    WHERE
        s.pk_host::text = p_host
        AND s.pk_job::text = p_job
        AND (
            p_cores <= 0
            OR (
                s.int_cores_idle >= p_cores
                AND s.int_mem_idle >= p_mem_kb
                AND s.int_gpus_idle >= p_gpus
                AND s.int_gpu_mem_idle >= p_gpu_mem_kb
            )
        );
    RETURN FOUND OR p_cores <= 0;
END
$$;

COMMENT ON FUNCTION retally.take_local_share(p_host text, p_job text, p_cores bigint, p_mem_kb bigint, p_gpus bigint, p_gpu_mem_kb bigint) IS 'Takes what local work uses from the job''s share of its own host, or gives it back.';

CREATE FUNCTION retally.take_out(p_show_ids text[]) RETURNS TABLE(delta retally.delta, lost boolean)
    LANGUAGE plpgsql
    AS $$
BEGIN
    RETURN QUERY
    -- what is summed is what is removed: all parts see the same snapshot, and nobody else folds
    -- these shows meanwhile
    WITH gone AS (
        DELETE FROM retally.journal AS j
        WHERE j.scope = ANY (p_show_ids)
    ),

    sums AS MATERIALIZED (
        SELECT b.*
        FROM retally.booked_in(p_show_ids, retally.totals(), NULL, 'journal') AS b
        WHERE
            b.cores <> 0::numeric
            OR b.gpus <> 0::numeric
            OR b.local_cores <> 0::numeric
            OR b.local_gpus <> 0::numeric
    ),

    homeless AS (
        SELECT
            e.scope,
            l.total,
            l.key,
            sum(e.cores) AS cores,
            sum(e.gpus) AS gpus
        FROM retally.procs_of(p_show_ids, retally.totals(), NULL, 'journal') AS e (
            scope, host_id, layer_id, job_id, local, cores, gpus
        )
        LEFT JOIN public.host AS h ON e.host_id = h.pk_host::text
        LEFT JOIN public.job AS j ON e.job_id = j.pk_job::text
        CROSS JOIN LATERAL (
            VALUES
            ('subscription', CASE WHEN h.pk_host IS NULL THEN e.host_id END),
            ('folder', CASE WHEN j.pk_job IS NULL THEN e.job_id END),
            ('point', CASE WHEN j.pk_job IS NULL THEN e.job_id END)
        ) AS l (total, key)
        WHERE l.key IS NOT NULL AND NOT e.local
        GROUP BY e.scope, l.total, l.key
    )

    SELECT
        ROW(
            h.show_id, s.total, s.key, s.cores, s.gpus, s.local_cores, s.local_gpus
        )::retally.delta,
        FALSE
    FROM sums AS s
    -- what the farm does not know is told by the next full pass
    CROSS JOIN LATERAL retally.home(s.show_id, s.total, s.key) AS h
    UNION ALL
    SELECT
        ROW(g.scope, g.total, g.key, g.cores, g.gpus, NULL, NULL)::retally.delta,
        TRUE
    FROM homeless AS g
    WHERE g.cores <> 0::numeric OR g.gpus <> 0::numeric;
END
$$;

COMMENT ON FUNCTION retally.take_out(p_show_ids text[]) IS 'Takes the entries of these shows out of the journal.';

CREATE FUNCTION retally.totals() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT ARRAY['subscription', 'layer', 'job', 'folder', 'point']
$$;

COMMENT ON FUNCTION retally.totals() IS 'The five totals, in the order of the booking path.';

CREATE PROCEDURE retally.undo(IN p_run bigint, INOUT run bigint DEFAULT NULL::bigint, INOUT rows_restored bigint DEFAULT NULL::bigint, INOUT rows_kept bigint DEFAULT NULL::bigint, INOUT rows_deferred bigint DEFAULT NULL::bigint, INOUT problems text[] DEFAULT NULL::text[])
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_scope text;
    v_done record;
BEGIN
    IF NOT EXISTS (SELECT FROM retally.run AS r WHERE r.run = p_run) THEN
        RAISE EXCEPTION 'there is no run %', coalesce(p_run::text, 'null')
            USING ERRCODE = 'RT016', HINT = '`retally ledger` lists the runs; old ones are pruned.';
    END IF;
    SELECT NULL, 0, 0, 0, '{}'
    INTO run, rows_restored, rows_kept, rows_deferred, problems;
    FOR v_scope IN
        SELECT DISTINCT l.scope
        FROM retally.ledger AS l
        WHERE l.run = p_run
        ORDER BY l.scope
    LOOP
        SELECT u.*
        INTO v_done
        FROM retally.undo_scope(p_run, v_scope, current_user::text, run) AS u;
        run := v_done.run;
        rows_restored := rows_restored + v_done.rows_restored;
        rows_kept := rows_kept + v_done.rows_kept;
        rows_deferred := rows_deferred + v_done.rows_deferred;
        problems := problems || v_done.problems;
    END LOOP;
END
$$;

COMMENT ON PROCEDURE retally.undo(IN p_run bigint, INOUT run bigint, INOUT rows_restored bigint, INOUT rows_kept bigint, INOUT rows_deferred bigint, INOUT problems text[]) IS 'Puts back what a repair changed, where the rows still hold what it wrote.';

CREATE FUNCTION retally.undo_scope(p_run bigint, p_scope text, p_worker text, p_new_run bigint, OUT run bigint, OUT rows_restored bigint, OUT rows_kept bigint, OUT rows_deferred bigint, OUT problems text[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
DECLARE
    v_deadline timestamptz := clock_timestamp() + retally.lock_budget();
    v_holding boolean := pg_current_xact_id_if_assigned() IS NOT NULL;
    v_rebuilt record;
    v_total text;
    v_keys text[];
    v_held text[];
    v_busy text[];
    v_now retally.amount[];
    v_former retally.amount[];
    v_done record;
    v_changes retally.change[] := '{}';
BEGIN
    PERFORM retally.hold_scope(p_scope, TRUE);
    -- caps are judged by these totals, and its bookings do not keep them
    SELECT
        s.name,
        s.managed
    INTO v_rebuilt
    FROM retally.shows() AS s
    WHERE s.show_id = p_scope AND s.rebuilt;
    IF FOUND THEN
        RAISE EXCEPTION 'show "%" is managed: its totals are not put back to what they were',
            v_rebuilt.name
            USING ERRCODE = 'RT017',
                HINT = CASE
                    WHEN v_rebuilt.managed
                        THEN format('`retally managed --show %s off` first.', v_rebuilt.name)
                    ELSE
                        'Clear its flag in the farm (show.b_scheduler_managed) first, or '
                        'retally.setting.follow_farm_flag.'
                END;
    END IF;

    SELECT 0, 0, 0, '{}'
    INTO rows_restored, rows_kept, rows_deferred, problems;
    FOREACH v_total IN ARRAY retally.totals() LOOP
        v_keys := ARRAY(
            SELECT DISTINCT l.key
            FROM retally.ledger AS l
            WHERE l.run = p_run AND l.scope = p_scope AND l.total = v_total
        );
        CONTINUE WHEN cardinality(v_keys) = 0;
        SELECT s.held, s.busy
        INTO v_held, v_busy
        FROM retally.seize_rows(p_scope, v_total, v_keys, TRUE, v_deadline, v_holding) AS s;
        v_holding := v_holding OR cardinality(v_held) > 0;

        v_now := ARRAY(SELECT a FROM retally.amounts_in(p_scope, v_total, v_held) AS a);
        v_former := ARRAY(SELECT f FROM retally.former_amounts(p_run, p_scope, v_total, v_now) AS f);
        SELECT w.*
        INTO v_done
        FROM retally.write_what_fits(p_scope, v_total, v_former) AS w;
        v_changes := v_changes || ARRAY(
            SELECT c
            FROM retally.changes_between(v_total, v_now, v_former) AS c
            WHERE c.key IN (SELECT k.key FROM unnest(v_done.written) AS k (key))
        );
        rows_restored := rows_restored + cardinality(v_done.written);
        rows_deferred := rows_deferred + cardinality(v_busy);
        rows_kept := rows_kept + cardinality(v_keys) - cardinality(v_busy) - cardinality(v_former);
        problems := problems || ARRAY(
            SELECT
                format(
                    '%s %s: the farm does not take back what it held%s',
                    v_total, retally.row_name(v_total, m.key), ': ' || m.refusal
                )
            FROM unnest(v_done.misfits, v_done.refusals) AS m (key, refusal)
        );
    END LOOP;
    run := retally.note_run(
        p_new_run, p_worker, format('undo of run %s', p_run), FALSE, p_run, p_scope, v_changes,
        NULL
    );
END
$$;

COMMENT ON FUNCTION retally.undo_scope(p_run bigint, p_scope text, p_worker text, p_new_run bigint, OUT run bigint, OUT rows_restored bigint, OUT rows_kept bigint, OUT rows_deferred bigint, OUT problems text[]) IS 'Puts back what a run changed in one show, where the rows still hold what it wrote.';

CREATE FUNCTION retally.unleased(p_show_id text, p_token bigint, OUT problem text, OUT message text, OUT hint text) RETURNS record
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_name text := coalesce(
        (SELECT s.str_name::text FROM public.show AS s WHERE s.pk_show::text = p_show_id), p_show_id
    );
    v_lease record;
BEGIN
    SELECT
        l.holder,
        l.expires_at > clock_timestamp() AS live
    INTO v_lease
    FROM retally.lease AS l
    WHERE l.scope = p_show_id;
    problem := 'RT019';
    IF v_lease.holder IS NULL THEN
        message := format('show "%s" is managed, and nobody serves it', v_name);
        hint := 'Take its lease first, as a Dispatcher with admission does.';
    ELSIF p_token IS NULL THEN
        message := format('show "%s" is served by dispatcher %s', v_name, v_lease.holder);
        hint := 'Book through that one; or end its lease: `retally leases --end SHOW`.';
    ELSIF v_lease.live THEN
        message := format(
            'show "%s" is served by dispatcher %s, under another lease', v_name, v_lease.holder
        );
        hint := 'Take the lease again once it is free.';
    ELSE
        message := format('the lease of dispatcher %s on show "%s" has ended', v_lease.holder, v_name);
        hint := 'Take it again: what is booked has to be counted anew.';
    END IF;
END
$$;

COMMENT ON FUNCTION retally.unleased(p_show_id text, p_token bigint, OUT problem text, OUT message text, OUT hint text) IS 'Why a booking of a managed show is not let in under this token.';

CREATE FUNCTION retally.unserved_shows(p_after interval) RETURNS TABLE(show_id text, name text, rebuilt boolean, fault text, tick text, totals text[], last_pass timestamp with time zone, error text)
    LANGUAGE sql
    AS $$
    WITH latest AS (
        SELECT
            s.show_id,
            s.name,
            t.total,
            t.place,
            (
                SELECT max(p.succeeded_at)
                FROM retally.pass AS p
                WHERE p.scope = s.show_id AND p.total = t.total
            ) AS succeeded_at
        FROM retally.shows() AS s
        CROSS JOIN unnest(retally.totals()) WITH ORDINALITY AS t (total, place)
        WHERE s.rebuilt
    )

    SELECT
        s.show_id,
        s.name,
        s.rebuilt,
        CASE
            WHEN EXISTS (
                SELECT FROM retally.pass AS p
                WHERE p.scope = d.scope AND p.tick = d.tick AND p.action = 'refused'
            ) THEN 'refused'
            ELSE 'failing'
        END AS fault,
        d.tick,
        NULL::text[] AS totals,
        NULL::timestamptz AS last_pass,
        d.error
    FROM retally.due AS d
    INNER JOIN retally.shows() AS s ON d.scope = s.show_id
    WHERE d.failures > 0 AND (s.rebuilt OR s.mode IS DISTINCT FROM 'off')
    UNION ALL
    SELECT
        l.show_id,
        l.name,
        TRUE,
        'late',
        NULL,
        array_agg(l.total ORDER BY l.place),
        CASE WHEN bool_and(l.succeeded_at IS NOT NULL) THEN min(l.succeeded_at) END,
        NULL
    FROM latest AS l
    CROSS JOIN
        LATERAL (
            SELECT clock_timestamp() - greatest(p_after, 3 * max(d.every)) AS bound
            FROM retally.due AS d
            WHERE d.scope = l.show_id
        ) AS b
    WHERE
        coalesce(l.succeeded_at < b.bound, TRUE)
        AND NOT EXISTS (
            SELECT FROM retally.scope_flag AS f
            WHERE f.scope = l.show_id AND f.set_at > clock_timestamp() - p_after
        )
    GROUP BY l.show_id, l.name
    ORDER BY name ASC, show_id ASC, fault ASC
$$;

COMMENT ON FUNCTION retally.unserved_shows(p_after interval) IS 'The shows that the ticks should serve and do not.';

CREATE FUNCTION retally.vertices(p_show_id text) RETURNS TABLE(vertex text, key text, name text, folder_id text, max_cores bigint, max_gpus bigint, cores numeric, gpus numeric)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    SET random_page_cost TO '1.1'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
DECLARE
    v_read text[] := retally.read_for(ARRAY[p_show_id]);
BEGIN
    RETURN QUERY
    WITH sums AS MATERIALIZED (
        SELECT b.*
        FROM retally.booked_in(
            v_read, ARRAY['subscription', 'folder', 'job'], NULL, 'procs'
        ) AS b
        WHERE b.show_id IS NULL OR b.show_id = p_show_id
    ),

    caps AS (
        SELECT
            'subscription' AS vertex,
            s.pk_alloc::text AS key,
            a.str_name::text AS name,
            NULL::text AS folder_id,
            s.int_burst::bigint AS max_cores,
            -1::bigint AS max_gpus
        FROM public.subscription AS s
        INNER JOIN public.alloc AS a ON s.pk_alloc::text = a.pk_alloc::text
        WHERE s.pk_show::text = p_show_id
        UNION ALL
        SELECT
            'folder',
            f.pk_folder::text,
            f.str_name::text,
            NULL,
            coalesce(r.int_max_cores, -1),
            coalesce(r.int_max_gpus, -1)
        FROM public.folder AS f
        LEFT JOIN public.folder_resource AS r ON f.pk_folder::text = r.pk_folder::text
        WHERE f.pk_show::text = p_show_id
        UNION ALL
        SELECT
            'job',
            j.pk_job::text,
            j.str_name::text,
            j.pk_folder::text,
            coalesce(r.int_max_cores, -1),
            coalesce(r.int_max_gpus, -1)
        FROM public.job AS j
        LEFT JOIN public.job_resource AS r ON j.pk_job::text = r.pk_job::text
        WHERE
            j.pk_show::text = p_show_id
            AND (
                j.str_state <> 'FINISHED'
                OR j.pk_job::text IN (SELECT b.key FROM sums AS b WHERE b.total = 'job')
            )
    )

    SELECT
        c.vertex,
        c.key,
        c.name,
        c.folder_id,
        c.max_cores,
        c.max_gpus,
        coalesce(b.cores, 0),
        coalesce(b.gpus, 0)
    FROM caps AS c
    LEFT JOIN sums AS b ON c.vertex = b.total AND c.key = b.key
    ORDER BY c.vertex = 'job';
END
$$;

COMMENT ON FUNCTION retally.vertices(p_show_id text) IS 'Every vertex of a show at which bookings are capped, its caps, and what is booked there.';

CREATE FUNCTION retally.wait_for_row(p_show_id text, p_total text, p_key text, p_limit interval) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_before text;
BEGIN
    IF p_limit < interval '1 millisecond' THEN
        RETURN FALSE;
    END IF;
    v_before := retally.set_lock_timeout(p_limit);
    PERFORM retally.lock_keys(p_show_id, p_total, ARRAY[p_key], TRUE);
    PERFORM set_config('lock_timeout', v_before, TRUE);
    RETURN TRUE;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN FALSE;
END
$$;

COMMENT ON FUNCTION retally.wait_for_row(p_show_id text, p_total text, p_key text, p_limit interval) IS 'Waits in the queue of one busy row of a total.';

CREATE FUNCTION retally.want_lease(p_scope text, p_holder text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
BEGIN
    WITH held AS (
        SELECT l.scope
        FROM retally.lease AS l
        WHERE
            l.scope = p_scope
            AND l.holder <> p_holder
            AND l.expires_at > clock_timestamp()
            AND (NOT retally.is_wanted(l.wanted_at) OR l.wanted_by = p_holder)
        FOR NO KEY UPDATE SKIP LOCKED
    )

    UPDATE retally.lease AS l
    SET wanted_by = p_holder, wanted_at = clock_timestamp()
    FROM held AS h
    WHERE l.scope = h.scope;
    RETURN EXISTS (
        SELECT
        FROM retally.lease AS l
        WHERE
            l.scope = p_scope
            AND l.holder <> p_holder
            AND l.expires_at > clock_timestamp()
    );
END
$$;

COMMENT ON FUNCTION retally.want_lease(p_scope text, p_holder text) IS 'Whether another one holds the scope; then it is noted that p_holder wants it.';

CREATE FUNCTION retally.why_not(p_booking retally.booking, p_alloc text, p_stopped_by text, p_token bigint, OUT problem text, OUT message text, OUT hint text, OUT holder text) RETURNS record
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
    IF p_stopped_by = 'subscription' THEN
        SELECT o.problem, o.message, o.hint
        INTO problem, message, hint
        FROM retally.over_burst(p_booking.show, p_alloc, p_booking.cores) AS o;
    ELSIF p_stopped_by = 'job' THEN
        SELECT o.problem, o.message, o.hint
        INTO problem, message, hint
        FROM retally.over_job_max(p_booking.job, p_booking.cores, p_booking.gpus) AS o;
    ELSIF p_stopped_by = 'lease' THEN
        SELECT u.problem, u.message, u.hint
        INTO problem, message, hint
        FROM retally.unleased(p_booking.show, p_token) AS u;
    ELSIF p_stopped_by = 'move' THEN
        SELECT m.problem, m.message, m.hint
        INTO problem, message, hint
        FROM retally.moved(p_booking.host, p_booking.job) AS m;
    ELSE
        SELECT r.problem, r.message, r.hint, r.holder
        INTO problem, message, hint, holder
        FROM retally.refusal(
            p_booking.host, p_booking.job, p_booking.layer,
            -- where the host stopped it, another one may have the frame by now
            CASE WHEN p_stopped_by IS NULL OR p_stopped_by = 'frame' THEN p_booking.frame END,
            p_booking.cores, p_booking.mem_kb, p_booking.gpus, p_booking.gpu_mem_kb, p_booking.local
        ) AS r;
    END IF;
    IF problem IS NULL THEN
        problem := 'RT014';
        message := format('frame "%s" was booked a moment ago', p_booking.frame);
        hint := 'That is over: try again.';
    END IF;
END
$$;

COMMENT ON FUNCTION retally.why_not(p_booking retally.booking, p_alloc text, p_stopped_by text, p_token bigint, OUT problem text, OUT message text, OUT hint text, OUT holder text) IS 'Why an entry of a batch was not booked.';

CREATE FUNCTION retally.write_folder(p_rows retally.comparison[]) RETURNS TABLE(show_id text, key text, fits boolean)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('folder_resource', 'int_cores');
    v_max_gpus numeric := retally.column_limit('folder_resource', 'int_gpus');
BEGIN
    RETURN QUERY
    WITH wanted AS (
        SELECT a.*
        FROM unnest(p_rows) AS a
        WHERE
            a.total = 'folder'
            AND a.kind = 'row'
            AND abs(a.cores) <= v_max_cores
            AND abs(a.gpus) <= v_max_gpus
        -- neighbours in the index, one after the other
        ORDER BY a.key COLLATE "C"
    ),

    held AS MATERIALIZED (
        SELECT
            r.ctid AS place,
            a.show_id,
            a.key,
            a.cores,
            a.gpus
        FROM wanted AS a
        INNER JOIN public.folder_resource AS r ON a.key = r.pk_folder::text
        WHERE
            (r.int_cores::numeric <> a.cores OR r.int_gpus::numeric <> a.gpus)
            AND (a.was_cores IS NULL OR r.int_cores::numeric = a.was_cores)
            AND (a.was_gpus IS NULL OR r.int_gpus::numeric = a.was_gpus)
        FOR NO KEY UPDATE OF r SKIP LOCKED
    ),

    written AS (
        UPDATE public.folder_resource AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus
        FROM held AS a
        -- just the rows that are held: a key may have several
        WHERE r.ctid = a.place
        RETURNING a.show_id, a.key
    )

    SELECT
        w.show_id,
        w.key,
        TRUE
    FROM written AS w
    UNION ALL
    SELECT
        a.show_id,
        a.key,
        FALSE
    FROM unnest(p_rows) AS a
    WHERE
        a.total = 'folder'
        AND a.kind = 'row'
        AND (abs(a.cores) > v_max_cores OR abs(a.gpus) > v_max_gpus);
END
$$;

COMMENT ON FUNCTION retally.write_folder(p_rows retally.comparison[]) IS 'Writes into folder totals that still hold what was found.';

CREATE FUNCTION retally.write_found(p_total text, p_rows retally.comparison[]) RETURNS retally.comparison[]
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_left retally.comparison[];
BEGIN
    WITH written AS MATERIALIZED (
        SELECT
            w.show_id,
            w.key
        FROM retally.write_rows(p_total, p_rows) AS w
        WHERE w.fits
    )

    SELECT coalesce(array_agg(a), '{}')
    INTO v_left
    FROM unnest(p_rows) AS a
    WHERE
        a.total = p_total
        AND a.kind = 'row'
        -- not as a join: its plan would follow a guess of how many were written
        AND (a.show_id, a.key) NOT IN (SELECT w.show_id, w.key FROM written AS w);
    RETURN v_left;
EXCEPTION
    WHEN data_exception OR raise_exception OR integrity_constraint_violation THEN
        -- nothing is written yet
        v_left := ARRAY(
            SELECT a FROM unnest(p_rows) AS a
            WHERE a.total = p_total AND a.kind = 'row'
        );
        IF (SELECT count(DISTINCT a.show_id) FROM unnest(v_left) AS a) < 2 THEN
            RETURN v_left;
        END IF;
        RETURN ARRAY(
            WITH shows AS (
                SELECT array_agg(a) AS their_rows
                FROM unnest(v_left) AS a
                GROUP BY a.show_id
            )

            SELECT w
            FROM shows AS s
            CROSS JOIN LATERAL unnest(retally.write_found(p_total, s.their_rows)) AS w
        );
END
$$;

COMMENT ON FUNCTION retally.write_found(p_total text, p_rows retally.comparison[]) IS 'Writes those rows of one total that are still as they were found; answers with the others.';

CREATE FUNCTION retally.write_job(p_rows retally.comparison[]) RETURNS TABLE(show_id text, key text, fits boolean)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('job_resource', 'int_cores');
    v_max_gpus numeric := retally.column_limit('job_resource', 'int_gpus');
    v_max_local_cores numeric := retally.column_limit('job_resource', 'int_local_cores');
    v_max_local_gpus numeric := retally.column_limit('job_resource', 'int_local_gpus');
    v_shows text[];
    v_keys text[];
    v_over boolean[];
BEGIN
    WITH wanted AS (
        SELECT a.*
        FROM unnest(p_rows) AS a
        WHERE
            a.total = 'job'
            AND a.kind = 'row'
            AND abs(a.cores) <= v_max_cores
            AND abs(a.gpus) <= v_max_gpus
            AND abs(a.local_cores) <= v_max_local_cores
            AND abs(a.local_gpus) <= v_max_local_gpus
        -- neighbours in the index, one after the other
        ORDER BY a.key COLLATE "C"
    ),

    held AS MATERIALIZED (
        SELECT
            r.ctid AS place,
            a.show_id,
            a.key,
            a.cores,
            a.gpus,
            a.local_cores,
            a.local_gpus,
            r.int_max_cores AS core_cap,
            r.int_max_gpus AS gpu_cap,
            (a.cores > r.int_cores::numeric OR a.gpus > r.int_gpus::numeric)
            AND (a.cores > r.int_max_cores::numeric OR a.gpus > r.int_max_gpus::numeric) AS over_cap
        FROM wanted AS a
        INNER JOIN public.job_resource AS r ON a.key = r.pk_job::text
        WHERE
            (
                r.int_cores::numeric <> a.cores
                OR r.int_gpus::numeric <> a.gpus
                OR r.int_local_cores::numeric <> a.local_cores
                OR r.int_local_gpus::numeric <> a.local_gpus
            )
            AND (a.was_cores IS NULL OR r.int_cores::numeric = a.was_cores)
            AND (a.was_gpus IS NULL OR r.int_gpus::numeric = a.was_gpus)
            AND (a.was_local_cores IS NULL OR r.int_local_cores::numeric = a.was_local_cores)
            AND (a.was_local_gpus IS NULL OR r.int_local_gpus::numeric = a.was_local_gpus)
        FOR NO KEY UPDATE OF r SKIP LOCKED
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
        FROM held AS a
        -- just the rows that are held: a key may have several
        WHERE r.ctid = a.place
        RETURNING a.show_id, a.key, a.over_cap
    )

    SELECT
        coalesce(array_agg(w.show_id), '{}'),
        coalesce(array_agg(w.key), '{}'),
        coalesce(array_agg(w.over_cap), '{}')
    INTO v_shows, v_keys, v_over
    FROM written AS w;

    IF TRUE = any(v_over) THEN
        UPDATE public.job_resource AS r
        SET
            int_max_cores = r.int_max_cores + 1,
            int_max_gpus = r.int_max_gpus + 1
        FROM unnest(v_keys, v_over) AS w (key, over_cap)
        WHERE w.over_cap AND r.pk_job::text = w.key;
    END IF;

    RETURN QUERY
    SELECT
        w.show_id,
        w.key,
        TRUE
    FROM unnest(v_shows, v_keys) AS w (show_id, key)
    UNION ALL
    SELECT
        a.show_id,
        a.key,
        FALSE
    FROM unnest(p_rows) AS a
    WHERE
        a.total = 'job'
        AND a.kind = 'row'
        AND (
            abs(a.cores) > v_max_cores
            OR abs(a.gpus) > v_max_gpus
            OR abs(a.local_cores) > v_max_local_cores
            OR abs(a.local_gpus) > v_max_local_gpus
        );
END
$$;

COMMENT ON FUNCTION retally.write_job(p_rows retally.comparison[]) IS 'Writes into job totals that still hold what was found.';

CREATE FUNCTION retally.write_layer(p_rows retally.comparison[]) RETURNS TABLE(show_id text, key text, fits boolean)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('layer_resource', 'int_cores');
    v_max_gpus numeric := retally.column_limit('layer_resource', 'int_gpus');
BEGIN
    RETURN QUERY
    WITH wanted AS (
        SELECT a.*
        FROM unnest(p_rows) AS a
        WHERE
            a.total = 'layer'
            AND a.kind = 'row'
            AND abs(a.cores) <= v_max_cores
            AND abs(a.gpus) <= v_max_gpus
        -- neighbours in the index, one after the other
        ORDER BY a.key COLLATE "C"
    ),

    held AS MATERIALIZED (
        SELECT
            r.ctid AS place,
            a.show_id,
            a.key,
            a.cores,
            a.gpus
        FROM wanted AS a
        INNER JOIN public.layer_resource AS r ON a.key = r.pk_layer::text
        WHERE
            (r.int_cores::numeric <> a.cores OR r.int_gpus::numeric <> a.gpus)
            AND (a.was_cores IS NULL OR r.int_cores::numeric = a.was_cores)
            AND (a.was_gpus IS NULL OR r.int_gpus::numeric = a.was_gpus)
        FOR NO KEY UPDATE OF r SKIP LOCKED
    ),

    written AS (
        UPDATE public.layer_resource AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus
        FROM held AS a
        -- just the rows that are held: a key may have several
        WHERE r.ctid = a.place
        RETURNING a.show_id, a.key
    )

    SELECT
        w.show_id,
        w.key,
        TRUE
    FROM written AS w
    UNION ALL
    SELECT
        a.show_id,
        a.key,
        FALSE
    FROM unnest(p_rows) AS a
    WHERE
        a.total = 'layer'
        AND a.kind = 'row'
        AND (abs(a.cores) > v_max_cores OR abs(a.gpus) > v_max_gpus);
END
$$;

COMMENT ON FUNCTION retally.write_layer(p_rows retally.comparison[]) IS 'Writes into layer totals that still hold what was found.';

CREATE FUNCTION retally.write_point(p_rows retally.comparison[]) RETURNS TABLE(show_id text, key text, fits boolean)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('point', 'int_cores');
    v_max_gpus numeric := retally.column_limit('point', 'int_gpus');
BEGIN
    RETURN QUERY
    WITH wanted AS (
        SELECT a.*
        FROM unnest(p_rows) AS a
        WHERE
            a.total = 'point'
            AND a.kind = 'row'
            AND abs(a.cores) <= v_max_cores
            AND abs(a.gpus) <= v_max_gpus
        -- neighbours in the index, one after the other
        ORDER BY a.key COLLATE "C"
    ),

    held AS MATERIALIZED (
        SELECT
            r.ctid AS place,
            a.show_id,
            a.key,
            a.cores,
            a.gpus
        FROM wanted AS a
        INNER JOIN public.point AS r ON a.key = r.pk_dept::text AND a.show_id = r.pk_show::text
        WHERE
            (r.int_cores::numeric <> a.cores OR r.int_gpus::numeric <> a.gpus)
            AND (a.was_cores IS NULL OR r.int_cores::numeric = a.was_cores)
            AND (a.was_gpus IS NULL OR r.int_gpus::numeric = a.was_gpus)
        FOR NO KEY UPDATE OF r SKIP LOCKED
    ),

    written AS (
        UPDATE public.point AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus
        FROM held AS a
        -- just the rows that are held: a key may have several
        WHERE r.ctid = a.place
        RETURNING a.show_id, a.key
    )

    SELECT
        w.show_id,
        w.key,
        TRUE
    FROM written AS w
    UNION ALL
    SELECT
        a.show_id,
        a.key,
        FALSE
    FROM unnest(p_rows) AS a
    WHERE
        a.total = 'point'
        AND a.kind = 'row'
        AND (abs(a.cores) > v_max_cores OR abs(a.gpus) > v_max_gpus);
END
$$;

COMMENT ON FUNCTION retally.write_point(p_rows retally.comparison[]) IS 'Writes into point totals that still hold what was found.';

CREATE FUNCTION retally.write_rows(p_total text, p_rows retally.comparison[]) RETURNS TABLE(show_id text, key text, fits boolean)
    LANGUAGE plpgsql
    AS $$
BEGIN
    CASE p_total
        WHEN 'subscription' THEN
            RETURN QUERY SELECT * FROM retally.write_subscription(p_rows);
        WHEN 'layer' THEN
            RETURN QUERY SELECT * FROM retally.write_layer(p_rows);
        WHEN 'job' THEN
            RETURN QUERY SELECT * FROM retally.write_job(p_rows);
        WHEN 'folder' THEN
            RETURN QUERY SELECT * FROM retally.write_folder(p_rows);
        WHEN 'point' THEN
            RETURN QUERY SELECT * FROM retally.write_point(p_rows);
    END CASE;
END
$$;

COMMENT ON FUNCTION retally.write_rows(p_total text, p_rows retally.comparison[]) IS 'Writes into the rows of one total, by the total''s name.';

CREATE FUNCTION retally.write_subscription(p_rows retally.comparison[]) RETURNS TABLE(show_id text, key text, fits boolean)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_max_cores numeric := retally.column_limit('subscription', 'int_cores');
    v_max_gpus numeric := retally.column_limit('subscription', 'int_gpus');
    v_shows text[];
    v_keys text[];
    v_over boolean[];
BEGIN
    WITH wanted AS (
        SELECT a.*
        FROM unnest(p_rows) AS a
        WHERE
            a.total = 'subscription'
            AND a.kind = 'row'
            AND abs(a.cores) <= v_max_cores
            AND abs(a.gpus) <= v_max_gpus
        -- neighbours in the index, one after the other
        ORDER BY a.key COLLATE "C"
    ),

    held AS MATERIALIZED (
        SELECT
            r.ctid AS place,
            a.show_id,
            a.key,
            a.cores,
            a.gpus,
            r.int_burst AS burst,
            a.cores > r.int_cores::numeric AND a.cores > r.int_burst::numeric AS over_burst
        FROM wanted AS a
        INNER JOIN public.subscription AS r
            ON a.show_id = r.pk_show::text AND a.key = r.pk_alloc::text
        WHERE
            (r.int_cores::numeric <> a.cores OR r.int_gpus::numeric <> a.gpus)
            AND (a.was_cores IS NULL OR r.int_cores::numeric = a.was_cores)
            AND (a.was_gpus IS NULL OR r.int_gpus::numeric = a.was_gpus)
        FOR NO KEY UPDATE OF r SKIP LOCKED
    ),

    written AS (
        UPDATE public.subscription AS r
        SET
            int_cores = a.cores,
            int_gpus = a.gpus,
            int_burst = a.burst - a.over_burst::integer
        FROM held AS a
        -- just the rows that are held: a key may have several
        WHERE r.ctid = a.place
        RETURNING a.show_id, a.key, a.over_burst
    )

    SELECT
        coalesce(array_agg(w.show_id), '{}'),
        coalesce(array_agg(w.key), '{}'),
        coalesce(array_agg(w.over_burst), '{}')
    INTO v_shows, v_keys, v_over
    FROM written AS w;

    IF TRUE = any(v_over) THEN
        UPDATE public.subscription AS r
        SET int_burst = r.int_burst + 1
        FROM unnest(v_shows, v_keys, v_over) AS w (show_id, key, over_burst)
        WHERE w.over_burst AND r.pk_show::text = w.show_id AND r.pk_alloc::text = w.key;
    END IF;

    RETURN QUERY
    SELECT
        w.show_id,
        w.key,
        TRUE
    FROM unnest(v_shows, v_keys) AS w (show_id, key)
    UNION ALL
    SELECT
        a.show_id,
        a.key,
        FALSE
    FROM unnest(p_rows) AS a
    WHERE
        a.total = 'subscription'
        AND a.kind = 'row'
        AND (abs(a.cores) > v_max_cores OR abs(a.gpus) > v_max_gpus);
END
$$;

COMMENT ON FUNCTION retally.write_subscription(p_rows retally.comparison[]) IS 'Writes into subscription totals that still hold what was found.';

CREATE FUNCTION retally.write_what_fits(p_show_id text, p_total text, p_amounts retally.amount[], OUT written text[], OUT misfits text[], OUT refusals text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
DECLARE
    -- whatever these rows hold: they are locked
    v_rows retally.comparison[] := ARRAY(
        SELECT
            ROW(
                p_show_id, p_total, a.key, 'row', NULL, NULL, NULL, NULL, a.cores, a.gpus,
                a.local_cores, a.local_gpus
            )::retally.comparison
        FROM unnest(p_amounts) AS a
    );
    v_row retally.comparison;
    v_fits boolean;
    v_refusal text;
BEGIN
    SELECT '{}', '{}', '{}'
    INTO written, misfits, refusals;
    IF cardinality(p_amounts) = 0 THEN
        RETURN;
    END IF;
    BEGIN
        SELECT
            coalesce(array_agg(w.key) FILTER (WHERE w.fits), '{}'),
            coalesce(array_agg(w.key) FILTER (WHERE NOT w.fits), '{}')
        INTO written, misfits
        FROM retally.write_rows(p_total, v_rows) AS w;
        RETURN;
    EXCEPTION
        WHEN data_exception OR raise_exception OR integrity_constraint_violation THEN
            written := '{}';
            misfits := '{}';
    END;

    FOREACH v_row IN ARRAY v_rows LOOP
        v_refusal := NULL;
        BEGIN
            SELECT bool_and(w.fits)
            INTO v_fits
            FROM retally.write_rows(p_total, ARRAY[v_row]) AS w;
        EXCEPTION
            WHEN data_exception THEN
                v_fits := FALSE;
            WHEN raise_exception OR integrity_constraint_violation THEN
                v_fits := FALSE;
                v_refusal := sqlerrm;
        END;
        IF v_fits THEN
            written := written || v_row.key;
        ELSIF NOT v_fits THEN
            misfits := misfits || v_row.key;
            refusals := refusals || v_refusal;
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION retally.write_what_fits(p_show_id text, p_total text, p_amounts retally.amount[], OUT written text[], OUT misfits text[], OUT refusals text[]) IS 'Writes amounts into locked rows of one total of a show, all that the farm takes.';

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
    every interval NOT NULL,
    claimed_by text NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    error text
)
WITH (fillfactor='50');

COMMENT ON TABLE retally.due IS 'When each scope is due again in each tick. Claiming a scope moves its due time on.';

COMMENT ON COLUMN retally.due.every IS 'How far ahead the due time was set: the interval of the tick, or the pause after a failure.';

COMMENT ON COLUMN retally.due.failures IS 'How many passes running have failed.';

CREATE UNLOGGED TABLE retally.history (
    finished_at timestamp with time zone NOT NULL,
    scope text NOT NULL,
    tick text NOT NULL,
    total text NOT NULL,
    action text NOT NULL,
    worker text NOT NULL,
    seconds double precision NOT NULL,
    rows_adrift bigint NOT NULL,
    rows_changed bigint NOT NULL,
    rows_deferred bigint NOT NULL,
    rows_failed bigint NOT NULL,
    core_units_adrift numeric NOT NULL,
    gpus_adrift numeric NOT NULL
);

COMMENT ON TABLE retally.history IS 'Passes: one for each total of each scope in setting.history_every, and all that found something. Unlogged: a tick should cost no WAL; so it is empty after a crash.';

CREATE TABLE retally.installed (
    only_row boolean DEFAULT true NOT NULL,
    program text NOT NULL,
    digest text NOT NULL,
    installed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    installed_by text DEFAULT CURRENT_USER NOT NULL,
    CONSTRAINT installed_has_one_row CHECK (only_row)
);

COMMENT ON TABLE retally.installed IS 'Which routines are installed: the version of retally that brought them, and their digest.';

CREATE TABLE retally.journal (
    scope text NOT NULL,
    host_id text,
    layer_id text,
    job_id text,
    local boolean NOT NULL,
    cores bigint NOT NULL,
    gpus bigint NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

COMMENT ON TABLE retally.journal IS 'What procs of journaled scopes have booked (above zero) and released (below) since the last fold.';

COMMENT ON COLUMN retally.journal.cores IS 'Core units.';

CREATE TABLE retally.migration (
    version integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

COMMENT ON TABLE retally.migration IS 'The migrations of retally''s own tables that were applied.';

CREATE TABLE retally.run (
    run bigint NOT NULL,
    begun_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    worker text NOT NULL,
    cause text NOT NULL,
    forced boolean NOT NULL,
    undoes bigint
);

COMMENT ON TABLE retally.run IS 'The repairs of unmanaged scopes, and what undid them.';

COMMENT ON COLUMN retally.run.cause IS 'What asked for it: a tick, or a call by hand.';

COMMENT ON COLUMN retally.run.forced IS 'Its limits were lifted by whoever asked.';

COMMENT ON COLUMN retally.run.undoes IS 'The run that this one has put back.';

ALTER TABLE retally.run ALTER COLUMN run ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME retally.run_run_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE retally.scope_flag (
    scope text CONSTRAINT managed_scope_scope_not_null NOT NULL,
    set_at timestamp with time zone DEFAULT clock_timestamp() CONSTRAINT managed_scope_managed_since_not_null NOT NULL,
    set_by text DEFAULT CURRENT_USER CONSTRAINT managed_scope_managed_by_not_null NOT NULL,
    asked boolean NOT NULL,
    managed boolean NOT NULL,
    journaled boolean DEFAULT false NOT NULL,
    CONSTRAINT scope_flag_journaled_is_managed CHECK ((managed OR (NOT journaled)))
);

COMMENT ON TABLE retally.scope_flag IS 'The feature flag of each scope. Written by set_managed() and set_override() only: a flip has to wait for bookings in flight. A scope without a row follows setting.override.';

COMMENT ON COLUMN retally.scope_flag.asked IS 'What set_managed() asked for; in force while the override is per-show.';

COMMENT ON COLUMN retally.scope_flag.managed IS 'What is in force: bookings through retally write no total of this scope.';

COMMENT ON COLUMN retally.scope_flag.journaled IS 'What its procs book and release goes into retally.journal, by triggers on the farm''s proc, and ticks fold that into the totals. Written by set_journal() and flip() only.';

CREATE TABLE retally.scope_mode (
    scope text NOT NULL,
    mode text NOT NULL,
    set_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    set_by text DEFAULT CURRENT_USER NOT NULL,
    CONSTRAINT scope_mode_is_known CHECK ((mode = ANY (ARRAY['off'::text, 'watch'::text, 'repair'::text])))
);

COMMENT ON TABLE retally.scope_mode IS 'What the ticks do to a scope while it is unmanaged; one without a row follows the worker''s setting unmanaged.';

CREATE TABLE retally.setting (
    only_row boolean DEFAULT true NOT NULL,
    follow_farm_flag boolean DEFAULT true NOT NULL,
    wait_after_passes integer DEFAULT 3 NOT NULL,
    longest_wait interval DEFAULT '00:00:00.5'::interval NOT NULL,
    override text DEFAULT 'per-show'::text NOT NULL,
    longest_flip interval DEFAULT '00:00:05'::interval NOT NULL,
    notify boolean DEFAULT false CONSTRAINT setting_notify_releases_not_null NOT NULL,
    repair_share numeric DEFAULT 0.5 NOT NULL,
    history_every interval DEFAULT '00:01:00'::interval NOT NULL,
    history_age interval DEFAULT '7 days'::interval NOT NULL,
    ledger_age interval DEFAULT '90 days'::interval NOT NULL,
    CONSTRAINT setting_has_one_row CHECK (only_row),
    CONSTRAINT setting_history_age_is_not_negative CHECK ((history_age >= '00:00:00'::interval)),
    CONSTRAINT setting_history_every_is_not_negative CHECK ((history_every >= '00:00:00'::interval)),
    CONSTRAINT setting_ledger_age_is_not_negative CHECK ((ledger_age >= '00:00:00'::interval)),
    CONSTRAINT setting_longest_flip_is_short CHECK (((longest_flip >= '00:00:00'::interval) AND (longest_flip <= '01:00:00'::interval))),
    CONSTRAINT setting_longest_wait_is_not_negative CHECK ((longest_wait >= '00:00:00'::interval)),
    CONSTRAINT setting_override_is_known CHECK ((override = ANY (ARRAY['per-show'::text, 'all'::text, 'none'::text]))),
    CONSTRAINT setting_repair_share_is_a_share CHECK (((repair_share >= (0)::numeric) AND (repair_share <= (1)::numeric))),
    CONSTRAINT setting_wait_after_passes_is_positive CHECK ((wait_after_passes > 0))
);

COMMENT ON TABLE retally.setting IS 'What holds for the whole farm; one row, changed by UPDATE.';

COMMENT ON COLUMN retally.setting.follow_farm_flag IS 'Ticks also rebuild the shows that the farm itself flags (show.b_scheduler_managed).';

COMMENT ON COLUMN retally.setting.wait_after_passes IS 'A row that was busy in this many passes running is waited for by the next one.';

COMMENT ON COLUMN retally.setting.longest_wait IS 'How long one pass over a show waits for busy rows, at most half of deadlock_timeout.';

COMMENT ON COLUMN retally.setting.override IS 'Which flag is in force: each show''s own (per-show), or on (all) or off (none) for every show. Changed by CALL retally.set_override(), never by UPDATE.';

COMMENT ON COLUMN retally.setting.longest_flip IS 'How long a change of a flag waits for the bookings in flight; new ones wait behind it.';

COMMENT ON COLUMN retally.setting.notify IS 'Releases of managed shows'' procs and changes of caps also send pg_notify(): acct_release, acct_limit_change.';

COMMENT ON COLUMN retally.setting.repair_share IS 'A repair that would change more than this share of a show''s rows or core units is refused.';

COMMENT ON COLUMN retally.setting.history_every IS 'How often a quiet pass leaves a row in retally.history.';

COMMENT ON COLUMN retally.setting.history_age IS 'Older rows of retally.history are deleted.';

COMMENT ON COLUMN retally.setting.ledger_age IS 'Older repairs are deleted from retally.run and retally.ledger.';

CREATE UNLOGGED TABLE retally.worker (
    worker text NOT NULL,
    tick text NOT NULL,
    every interval NOT NULL,
    seen_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE retally.worker IS 'The workers, and when each was last seen in each tick: due scopes are shared out among them.';

ALTER TABLE ONLY retally.deferred
    ADD CONSTRAINT deferred_pk PRIMARY KEY (scope, total, key);

ALTER TABLE ONLY retally.due
    ADD CONSTRAINT due_pk PRIMARY KEY (tick, scope);

ALTER TABLE ONLY retally.installed
    ADD CONSTRAINT installed_pk PRIMARY KEY (only_row);

ALTER TABLE ONLY retally.lease
    ADD CONSTRAINT lease_pk PRIMARY KEY (scope);

ALTER TABLE ONLY retally.ledger
    ADD CONSTRAINT ledger_pk PRIMARY KEY (run, scope, total, key, slot);

ALTER TABLE ONLY retally.migration
    ADD CONSTRAINT migration_pk PRIMARY KEY (version);

ALTER TABLE ONLY retally.pass
    ADD CONSTRAINT pass_pk PRIMARY KEY (scope, tick, total);

ALTER TABLE ONLY retally.run
    ADD CONSTRAINT run_pk PRIMARY KEY (run);

ALTER TABLE ONLY retally.scope_flag
    ADD CONSTRAINT scope_flag_pk PRIMARY KEY (scope);

ALTER TABLE ONLY retally.scope_mode
    ADD CONSTRAINT scope_mode_pk PRIMARY KEY (scope);

ALTER TABLE ONLY retally.setting
    ADD CONSTRAINT setting_pk PRIMARY KEY (only_row);

ALTER TABLE ONLY retally.worker
    ADD CONSTRAINT worker_pk PRIMARY KEY (worker, tick);

CREATE INDEX history_finished_at ON retally.history USING btree (finished_at);

CREATE INDEX history_scope_total ON retally.history USING btree (scope, total, finished_at);

CREATE INDEX run_begun_at ON retally.run USING btree (begun_at);

CREATE RULE setting_keeps_its_row AS
    ON DELETE TO retally.setting DO INSTEAD NOTHING;

ALTER TABLE ONLY retally.ledger
    ADD CONSTRAINT ledger_run_fk FOREIGN KEY (run) REFERENCES retally.run(run) ON DELETE CASCADE;
