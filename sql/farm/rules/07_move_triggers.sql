-- What moves takes its share of the totals along, by increments: where it arrives first, then
-- where it left. Amounts below zero (drift) are not moved.
CREATE FUNCTION public.trigger__after_job_moved() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    v_cores bigint;
    v_gpus bigint;
BEGIN
    SELECT greatest(job.int_cores, 0), greatest(job.int_gpus, 0)
    INTO v_cores, v_gpus
    FROM public.job_resource AS job WHERE job.pk_job = NEW.pk_job;
    IF v_cores > 0 OR v_gpus > 0 THEN
        UPDATE public.folder_resource AS arrived
        SET int_cores = arrived.int_cores + v_cores, int_gpus = arrived.int_gpus + v_gpus
        WHERE arrived.pk_folder = NEW.pk_folder;
        UPDATE public.folder_resource AS left_behind
        SET int_cores = left_behind.int_cores - v_cores, int_gpus = left_behind.int_gpus - v_gpus
        WHERE left_behind.pk_folder = OLD.pk_folder;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION public.trigger__after_job_moved()
IS 'A job that changes its folder takes its cores and GPUs along.';

CREATE TRIGGER after_job_moved AFTER UPDATE ON public.job
FOR EACH ROW
WHEN (new.pk_folder != old.pk_folder)
EXECUTE FUNCTION public.trigger__after_job_moved();

CREATE FUNCTION public.trigger__after_job_dept_update() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    v_cores bigint;
    v_gpus bigint;
BEGIN
    SELECT greatest(job.int_cores, 0), greatest(job.int_gpus, 0)
    INTO v_cores, v_gpus
    FROM public.job_resource AS job WHERE job.pk_job = NEW.pk_job;
    IF v_cores > 0 OR v_gpus > 0 THEN
        UPDATE public.point AS arrived
        SET int_cores = arrived.int_cores + v_cores, int_gpus = arrived.int_gpus + v_gpus
        WHERE arrived.pk_show = NEW.pk_show AND arrived.pk_dept = NEW.pk_dept;
        UPDATE public.point AS left_behind
        SET int_cores = left_behind.int_cores - v_cores, int_gpus = left_behind.int_gpus - v_gpus
        WHERE left_behind.pk_show = OLD.pk_show AND left_behind.pk_dept = OLD.pk_dept;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION public.trigger__after_job_dept_update()
IS 'A job that changes its department takes its cores and GPUs along, if there is a point.';

CREATE TRIGGER after_job_dept_update AFTER UPDATE ON public.job
FOR EACH ROW
WHEN (new.pk_dept != old.pk_dept AND new.str_state = 'PENDING')
EXECUTE FUNCTION public.trigger__after_job_dept_update();

CREATE FUNCTION public.trigger__update_proc_update_layer() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE public.layer_resource AS arrived
    SET int_cores = arrived.int_cores + NEW.int_cores_reserved,
        int_gpus = arrived.int_gpus + NEW.int_gpus_reserved
    WHERE arrived.pk_layer = NEW.pk_layer;
    UPDATE public.layer_resource AS left_behind
    SET int_cores = left_behind.int_cores - OLD.int_cores_reserved,
        int_gpus = left_behind.int_gpus - OLD.int_gpus_reserved
    WHERE left_behind.pk_layer = OLD.pk_layer;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION public.trigger__update_proc_update_layer()
IS 'A proc that goes on with another layer takes its cores and GPUs along.';

CREATE TRIGGER update_proc_update_layer AFTER UPDATE ON public.proc
FOR EACH ROW
WHEN (new.pk_layer != old.pk_layer)
EXECUTE FUNCTION public.trigger__update_proc_update_layer();

CREATE FUNCTION public.trigger__upgrade_proc_memory_usage() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE public.host AS here
    SET int_mem_idle = here.int_mem_idle + OLD.int_mem_reserved - NEW.int_mem_reserved
    WHERE here.pk_host = NEW.pk_host;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION public.trigger__upgrade_proc_memory_usage()
IS 'A proc that reserves more or less memory takes it from its host, or gives it back.';

CREATE TRIGGER upgrade_proc_memory_usage AFTER UPDATE ON public.proc
FOR EACH ROW
WHEN (new.int_mem_reserved != old.int_mem_reserved)
EXECUTE FUNCTION public.trigger__upgrade_proc_memory_usage();
