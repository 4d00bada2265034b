-- Books a proc: this frame runs on this host with these amounts. Returns the proc's id (pk_proc).
-- p_host, p_job, p_layer, p_frame: ids (a null frame is none). Core units, kB, whole GPUs.
-- p_token: the caller's lease on a managed show, whose caps it has counted; null: it counts none,
-- 0: it counts them and holds no lease. p_alloc, p_folder: where it has counted the proc.
-- Locks and writes: proc and host; local work, host_local; unless the show is managed, the totals
-- as add_to_totals(). The show's flag is held shared until the transaction ends.
-- Raises RT003, RT008 to RT014, RT019, RT020; nothing is booked then.
CREATE OR REPLACE FUNCTION retally.book_proc(
    p_host text, p_job text, p_layer text, p_frame text, p_cores bigint, p_mem_kb bigint,
    p_gpus integer DEFAULT 0, p_gpu_mem_kb bigint DEFAULT 0, p_local boolean DEFAULT FALSE,
    p_token bigint DEFAULT NULL, p_alloc text DEFAULT NULL, p_folder text DEFAULT NULL
)
RETURNS text
LANGUAGE plpgsql VOLATILE
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
COMMENT ON FUNCTION retally.book_proc(
    text, text, text, text, bigint, bigint, integer, bigint, boolean, bigint, text, text
) IS 'Books a proc: this frame runs on this host with these amounts; returns its id.';
