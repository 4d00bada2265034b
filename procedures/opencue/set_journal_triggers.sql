-- Puts the triggers of the journal on the farm's proc, or takes them away; those that are there as
-- wanted stay. No transaction that has written procs and has not ended is left behind it.
-- Locks: public.proc against writers, and to take triggers away also against readers, until the
-- transaction ends; waits for them for setting.longest_flip. Writes: the triggers.
-- Raises RT005 when proc stayed locked.
CREATE OR REPLACE FUNCTION retally.set_journal_triggers(p_on boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_before text := retally.set_lock_timeout(
        (SELECT s.longest_flip FROM retally.setting AS s)
    );
BEGIN
    IF NOT p_on THEN
        -- without any it need not be locked
        IF EXISTS (SELECT FROM retally.journal_triggers() AS t) THEN
            DROP TRIGGER IF EXISTS retally_booked ON public.proc;
            DROP TRIGGER IF EXISTS retally_released ON public.proc;
            DROP TRIGGER IF EXISTS retally_changed ON public.proc;
        END IF;
    ELSE
        LOCK TABLE public.proc IN SHARE ROW EXCLUSIVE MODE;
        CREATE OR REPLACE TRIGGER retally_booked
        AFTER INSERT ON public.proc
        REFERENCING NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION retally.journal_procs();
        CREATE OR REPLACE TRIGGER retally_released
        AFTER DELETE ON public.proc
        REFERENCING OLD TABLE AS old_rows
        FOR EACH STATEMENT EXECUTE FUNCTION retally.journal_procs();
        -- by row: what a host reports of its procs every minute changes none of this, and then
        -- costs no call
        CREATE OR REPLACE TRIGGER retally_changed
        AFTER UPDATE ON public.proc
        FOR EACH ROW WHEN (
            old.pk_show IS DISTINCT FROM new.pk_show
            OR old.pk_host IS DISTINCT FROM new.pk_host
            OR old.pk_layer IS DISTINCT FROM new.pk_layer
            OR old.pk_job IS DISTINCT FROM new.pk_job
            OR old.b_local IS DISTINCT FROM new.b_local
            OR old.int_cores_reserved IS DISTINCT FROM new.int_cores_reserved
            OR old.int_gpus_reserved IS DISTINCT FROM new.int_gpus_reserved
        ) EXECUTE FUNCTION retally.journal_procs();
    END IF;
    PERFORM set_config('lock_timeout', v_before, TRUE);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'others have the farm''s table proc locked for too long'
            USING ERRCODE = 'RT005',
                HINT = 'Look for a long transaction, with `retally doctor`, and try again.';
END
$$;
COMMENT ON FUNCTION retally.set_journal_triggers(boolean) IS
'Puts the triggers of the journal on the farm''s proc, or takes them away.';
