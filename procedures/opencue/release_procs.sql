-- Ends many procs in one transaction and gives back what their rows say at that moment. One answer
-- for each entry, by its place nr from 1: released is false where the proc is gone, or was named
-- before. p_procs: pk_proc of each.
-- Locks and writes: as release_proc(), in key order; one notification for each job and host's
-- allocation, at most. Raises RT003.
CREATE OR REPLACE FUNCTION retally.release_procs(p_procs text[])
RETURNS TABLE (nr integer, proc text, released boolean)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET jit = off
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
COMMENT ON FUNCTION retally.release_procs(text[]) IS
'Ends many procs in one transaction; one answer for each entry.';
