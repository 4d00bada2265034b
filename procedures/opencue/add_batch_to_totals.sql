-- As add_to_totals() for the bookings of a batch whose show is not managed, one statement for each
-- total; p_sign -1 takes them away. p_managed: the shows that are managed.
-- lock_totals() comes first, so the order in which rows are written does not matter.
-- Locks and writes: a row of each total for each key.
-- Raises RT012 when a cap would be passed or a subscription is missing; first_come() says whose.
CREATE OR REPLACE FUNCTION retally.add_batch_to_totals(
    p_bookings retally.booking[], p_managed text[], p_sign integer
)
RETURNS void
LANGUAGE plpgsql VOLATILE
-- the farm's triggers call their helpers unqualified
SET search_path = public, pg_temp
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
COMMENT ON FUNCTION retally.add_batch_to_totals(retally.booking[], text[], integer) IS
'What a batch adds to the totals of unmanaged shows, or takes away.';
