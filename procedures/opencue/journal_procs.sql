-- Appends to the journal what procs of journaled shows book and release; the triggers on proc that
-- set_journal() makes call it: after INSERT and DELETE once a statement, after an UPDATE that
-- matters once a row. With the rights of its owner, since a booking must not fail for lack of ours.
-- Locks nothing that another booking waits for. Writes: retally.journal. Raises 42501 for a trigger
-- on any other table.
CREATE OR REPLACE FUNCTION retally.journal_procs()
RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_layer_moved boolean := FALSE;
BEGIN
    -- first of all: on a table of somebody else's, whatever follows would run with our rights
    IF TG_RELID <> 'public.proc'::regclass THEN
        RAISE EXCEPTION 'the journal is for public.proc only'
            USING ERRCODE = 'insufficient_privilege', HINT = 'See retally.set_journal().';
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO retally.journal (scope, host_id, layer_id, job_id, local, cores, gpus)
        SELECT
            n.pk_show,
            n.pk_host,
            n.pk_layer,
            n.pk_job,
            n.b_local,
            n.int_cores_reserved,
            n.int_gpus_reserved
        FROM new_rows AS n
        INNER JOIN retally.scope_flag AS f ON n.pk_show::text = f.scope AND f.journaled;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO retally.journal (scope, host_id, layer_id, job_id, local, cores, gpus)
        SELECT
            o.pk_show,
            o.pk_host,
            o.pk_layer,
            o.pk_job,
            o.b_local,
            -o.int_cores_reserved,
            -o.int_gpus_reserved
        FROM old_rows AS o
        INNER JOIN retally.scope_flag AS f ON o.pk_show::text = f.scope AND f.journaled;
    ELSE
        -- a proc that goes on with another layer is moved in the layers' totals by the farm itself
        v_layer_moved := coalesce(old.pk_layer <> new.pk_layer, FALSE);
        INSERT INTO retally.journal (scope, host_id, layer_id, job_id, local, cores, gpus)
        SELECT e.*
        FROM (
            VALUES
            (
                old.pk_show, old.pk_host,
                CASE WHEN NOT v_layer_moved THEN old.pk_layer END, old.pk_job, old.b_local,
                -old.int_cores_reserved, -old.int_gpus_reserved
            ),
            (
                new.pk_show, new.pk_host,
                CASE WHEN NOT v_layer_moved THEN new.pk_layer END, new.pk_job, new.b_local,
                new.int_cores_reserved, new.int_gpus_reserved
            )
        ) AS e (scope, host_id, layer_id, job_id, local, cores, gpus)
        INNER JOIN retally.scope_flag AS f ON e.scope::text = f.scope AND f.journaled;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION retally.journal_procs() IS
'Appends to the journal what procs of journaled shows book and release.';
