-- Which entries of a batch are kept out, by nr: stopped_by is lease, where the show is managed and
-- the token does not stand, or move, where the job is not in the folder in which it was counted, or
-- the host (p_moved) not in the allocation.
-- p_tokens, p_folders: as of book_procs(). pin_flags() comes first. Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.kept_out(
    p_bookings retally.booking[], p_managed text[], p_tokens bigint[], p_folders text[],
    p_moved integer[]
)
RETURNS TABLE (nr integer, stopped_by text)
LANGUAGE sql VOLATILE
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
COMMENT ON FUNCTION retally.kept_out(retally.booking[], text[], bigint[], text[], integer[]) IS
'Which entries of a batch are kept out, and why.';
