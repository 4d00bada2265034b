-- The way of OpenCue's own repair of subscriptions, extended to all five totals: everything to
-- zero, then row by row: look its cap up, lift it while writing, put it back.
-- Kinder than that repair: rows that are zero already are not written, a cap is lifted in the same
-- update that writes the row, and totals without a cap need no look-up.
CREATE PROCEDURE bench.row_by_row()
LANGUAGE plpgsql
AS $$
DECLARE
    v_row record;
    v_cap record;
BEGIN
    UPDATE public.subscription SET int_cores = 0, int_gpus = 0
    WHERE int_cores <> 0 OR int_gpus <> 0;
    FOR v_row IN
        SELECT
            p.pk_show, h.pk_alloc,
            sum(p.int_cores_reserved) AS cores,
            sum(p.int_gpus_reserved) AS gpus
        FROM public.proc AS p
        INNER JOIN public.host AS h ON p.pk_host = h.pk_host
        WHERE NOT p.b_local
        GROUP BY p.pk_show, h.pk_alloc
    LOOP
        SELECT s.int_burst INTO v_cap FROM public.subscription AS s
        WHERE s.pk_show = v_row.pk_show AND s.pk_alloc = v_row.pk_alloc;
        UPDATE public.subscription
        SET int_cores = v_row.cores, int_gpus = v_row.gpus, int_burst = 9223372036854775807
        WHERE pk_show = v_row.pk_show AND pk_alloc = v_row.pk_alloc;
        UPDATE public.subscription SET int_burst = v_cap.int_burst
        WHERE pk_show = v_row.pk_show AND pk_alloc = v_row.pk_alloc;
    END LOOP;

    UPDATE public.layer_resource SET int_cores = 0, int_gpus = 0
    WHERE int_cores <> 0 OR int_gpus <> 0;
    FOR v_row IN
        SELECT p.pk_layer, sum(p.int_cores_reserved) AS cores, sum(p.int_gpus_reserved) AS gpus
        FROM public.proc AS p
        GROUP BY p.pk_layer
    LOOP
        UPDATE public.layer_resource SET int_cores = v_row.cores, int_gpus = v_row.gpus
        WHERE pk_layer = v_row.pk_layer;
    END LOOP;

    UPDATE public.job_resource
    SET int_cores = 0, int_gpus = 0, int_local_cores = 0, int_local_gpus = 0
    WHERE int_cores <> 0 OR int_gpus <> 0 OR int_local_cores <> 0 OR int_local_gpus <> 0;
    FOR v_row IN
        SELECT
            p.pk_job,
            coalesce(sum(p.int_cores_reserved) FILTER (WHERE NOT p.b_local), 0) AS cores,
            coalesce(sum(p.int_gpus_reserved) FILTER (WHERE NOT p.b_local), 0) AS gpus,
            coalesce(sum(p.int_cores_reserved) FILTER (WHERE p.b_local), 0) AS local_cores,
            coalesce(sum(p.int_gpus_reserved) FILTER (WHERE p.b_local), 0) AS local_gpus
        FROM public.proc AS p
        GROUP BY p.pk_job
    LOOP
        SELECT r.int_max_cores, r.int_max_gpus INTO v_cap FROM public.job_resource AS r
        WHERE r.pk_job = v_row.pk_job;
        UPDATE public.job_resource
        SET
            int_cores = v_row.cores, int_gpus = v_row.gpus,
            int_local_cores = v_row.local_cores, int_local_gpus = v_row.local_gpus,
            int_max_cores = 2147483647, int_max_gpus = 2147483647
        WHERE pk_job = v_row.pk_job;
        UPDATE public.job_resource
        SET int_max_cores = v_cap.int_max_cores, int_max_gpus = v_cap.int_max_gpus
        WHERE pk_job = v_row.pk_job;
    END LOOP;

    UPDATE public.folder_resource SET int_cores = 0, int_gpus = 0
    WHERE int_cores <> 0 OR int_gpus <> 0;
    FOR v_row IN
        SELECT j.pk_folder, sum(p.int_cores_reserved) AS cores, sum(p.int_gpus_reserved) AS gpus
        FROM public.proc AS p
        INNER JOIN public.job AS j ON p.pk_job = j.pk_job
        WHERE NOT p.b_local
        GROUP BY j.pk_folder
    LOOP
        UPDATE public.folder_resource SET int_cores = v_row.cores, int_gpus = v_row.gpus
        WHERE pk_folder = v_row.pk_folder;
    END LOOP;

    UPDATE public.point SET int_cores = 0, int_gpus = 0
    WHERE int_cores <> 0 OR int_gpus <> 0;
    FOR v_row IN
        SELECT
            j.pk_show, j.pk_dept,
            sum(p.int_cores_reserved) AS cores,
            sum(p.int_gpus_reserved) AS gpus
        FROM public.proc AS p
        INNER JOIN public.job AS j ON p.pk_job = j.pk_job
        WHERE NOT p.b_local
        GROUP BY j.pk_show, j.pk_dept
    LOOP
        UPDATE public.point SET int_cores = v_row.cores, int_gpus = v_row.gpus
        WHERE pk_show = v_row.pk_show AND pk_dept = v_row.pk_dept;
    END LOOP;
END
$$;
