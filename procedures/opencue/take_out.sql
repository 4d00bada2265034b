-- Takes the entries of these shows out of the journal; answers with what they add to the totals.
-- lost: this finds no row, as the host or the job of an entry is gone; its id in place of the key.
-- Locks nothing of the farm. Writes: retally.journal.
CREATE OR REPLACE FUNCTION retally.take_out(p_show_ids text[])
RETURNS TABLE (delta retally.delta, lost boolean)
LANGUAGE plpgsql VOLATILE
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
COMMENT ON FUNCTION retally.take_out(text[]) IS
'Takes the entries of these shows out of the journal.';
