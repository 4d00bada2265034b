-- Adds p_deltas to totals that hold_deltas() has locked. Answers with what was added: not to rows
-- that are missing, nor where the sum does not fit the column.
-- The farm's triggers refuse a rise above a cap, but only while the cap stays the same: so just
-- such a row goes through a cap of one less, put back at once under the same row lock.
-- Locks nothing new. Writes: these rows. The limits are asked for in subselects, which are run
-- once; as a condition they would be asked for at every row.
CREATE OR REPLACE FUNCTION retally.add_deltas(p_deltas retally.delta[])
RETURNS SETOF retally.delta
LANGUAGE plpgsql VOLATILE
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
COMMENT ON FUNCTION retally.add_deltas(retally.delta[]) IS 'Adds amounts to the totals.';
