-- Takes a worker that stops off the list, so that the others share out its scopes at once.
-- Writes: retally.worker.
CREATE OR REPLACE FUNCTION retally.forget_worker(p_worker text)
RETURNS void
LANGUAGE sql VOLATILE
AS $$
    DELETE FROM retally.worker AS w
    WHERE w.worker = p_worker
$$;
COMMENT ON FUNCTION retally.forget_worker(text) IS 'Takes a worker that stops off the list.';
