-- Why a booking is not let in whose caps were counted where its proc would not be: its job has
-- moved to another folder, or its host to another allocation. RT020.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.moved(
    p_host text, p_job text, OUT problem text, OUT message text, OUT hint text
)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT
        'RT020',
        format('job "%s" or host "%s" has moved since its caps were counted', p_job, p_host),
        'Count them where it is now, and try again.'
$$;
COMMENT ON FUNCTION retally.moved(text, text) IS
'Why a booking is not let in whose caps were counted where its proc would not be.';
