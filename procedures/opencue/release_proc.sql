-- Ends a proc and gives back what its row says at that moment. True when it was there; a proc that
-- is gone changes nothing. p_proc: pk_proc.
-- Locks and writes: as book_proc(), with the amounts given back. With setting.notify the
-- release of a managed show's proc also sends acct_release.
-- Raises RT003.
CREATE OR REPLACE FUNCTION retally.release_proc(p_proc text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
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
COMMENT ON FUNCTION retally.release_proc(text) IS
'Ends a proc and gives back what its row says; false when it is gone.';
