-- Locks the job totals p_keys of a show in key order and answers which of them are held now;
-- rows that are gone are not in the answer.
-- p_wait: wait for busy rows, as lock_timeout allows; otherwise skip them.
-- Locks: FOR NO KEY UPDATE on public.job_resource. Writes nothing.
-- Raises 55P03 when the wait took too long.
CREATE OR REPLACE FUNCTION retally.lock_job(p_show_id text, p_keys text[], p_wait boolean)
RETURNS TABLE (key text, held boolean)
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    IF p_wait THEN
        RETURN QUERY
        SELECT
            r.pk_job::text,
            TRUE
        FROM public.job_resource AS r
        WHERE r.pk_job::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_job
        FOR NO KEY UPDATE OF r;
        RETURN;
    END IF;

    RETURN QUERY
    WITH free AS (
        SELECT r.pk_job
        FROM public.job_resource AS r
        WHERE r.pk_job::text IN (SELECT k.key FROM unnest(p_keys) AS k (key))
        ORDER BY r.pk_job
        FOR NO KEY UPDATE OF r SKIP LOCKED
    )

    SELECT
        r.pk_job::text,
        f.pk_job IS NOT NULL
    FROM public.job_resource AS r
    LEFT JOIN free AS f ON r.pk_job = f.pk_job
    WHERE r.pk_job::text IN (SELECT k.key FROM unnest(p_keys) AS k (key));
END
$$;
COMMENT ON FUNCTION retally.lock_job(text, text[], boolean) IS
'Locks job totals of a show in key order and says which are held.';
