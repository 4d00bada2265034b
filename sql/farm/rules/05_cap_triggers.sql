-- What an update may not do: raise a total above its cap, or an idle amount below zero.
-- All refusals are plain exceptions (SQLSTATE P0001). A cap that is changed in the same update is
-- not checked, so that an admin may lower it below what runs; a later rise is refused again.
CREATE FUNCTION public.trigger__verify_subscription() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.int_cores > NEW.int_burst THEN
        RAISE EXCEPTION 'subscription % would use % core units, above its burst of %',
            NEW.pk_subscription, NEW.int_cores, NEW.int_burst;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__verify_subscription()
IS 'Refuses cores that rise above the burst.';

CREATE TRIGGER verify_subscription BEFORE UPDATE ON public.subscription
FOR EACH ROW
WHEN (new.int_burst = old.int_burst AND new.int_cores > old.int_cores)
EXECUTE FUNCTION public.trigger__verify_subscription();

CREATE FUNCTION public.trigger__verify_job_resources() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.int_cores > NEW.int_max_cores THEN
        RAISE EXCEPTION 'job % would use % core units, above its maximum of %',
            NEW.pk_job, NEW.int_cores, NEW.int_max_cores;
    END IF;
    IF NEW.int_gpus > NEW.int_max_gpus THEN
        RAISE EXCEPTION 'job % would use % GPUs, above its maximum of %',
            NEW.pk_job, NEW.int_gpus, NEW.int_max_gpus;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__verify_job_resources()
IS 'Refuses cores or GPUs that rise while either is above its maximum; local work is not counted.';

CREATE TRIGGER verify_job_resources BEFORE UPDATE ON public.job_resource
FOR EACH ROW
WHEN (
    (new.int_max_cores = old.int_max_cores AND new.int_cores > old.int_cores)
    OR (new.int_max_gpus = old.int_max_gpus AND new.int_gpus > old.int_gpus)
)
EXECUTE FUNCTION public.trigger__verify_job_resources();

CREATE FUNCTION public.trigger__verify_job_local() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.int_cores > NEW.int_max_cores THEN
        RAISE EXCEPTION 'local job % would use % core units, above its maximum of %',
            NEW.pk_job, NEW.int_cores, NEW.int_max_cores;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__verify_job_local()
IS 'Refuses cores that rise above the maximum.';

CREATE TRIGGER verify_job_local BEFORE UPDATE ON public.job_local
FOR EACH ROW
WHEN (new.int_max_cores = old.int_max_cores AND new.int_cores > old.int_cores)
EXECUTE FUNCTION public.trigger__verify_job_local();

CREATE FUNCTION public.refuse_negative_idle() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    v_short text := CASE
        WHEN NEW.int_cores_idle < 0 THEN 'core units'
        WHEN NEW.int_mem_idle < 0 THEN 'kB of memory'
        WHEN NEW.int_gpus_idle < 0 THEN 'GPUs'
        WHEN NEW.int_gpu_mem_idle < 0 THEN 'kB of GPU memory'
    END;
BEGIN
    IF v_short IS NOT NULL THEN
        RAISE EXCEPTION '% % has not enough idle %', TG_TABLE_NAME, NEW.pk_host, v_short;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.refuse_negative_idle()
IS 'For host and host_local: refuses an idle amount below zero.';

CREATE TRIGGER verify_host_resources BEFORE UPDATE ON public.host
FOR EACH ROW
WHEN (
    new.int_cores_idle != old.int_cores_idle
    OR new.int_mem_idle != old.int_mem_idle
    OR new.int_gpus_idle != old.int_gpus_idle
    OR new.int_gpu_mem_idle != old.int_gpu_mem_idle
)
EXECUTE FUNCTION public.refuse_negative_idle();

-- OpenCue checks a local share only when its cores or memory and its GPUs change together.
CREATE TRIGGER verify_host_local BEFORE UPDATE ON public.host_local
FOR EACH ROW
WHEN (
    (new.int_cores_max, new.int_mem_max) = (old.int_cores_max, old.int_mem_max)
    AND (new.int_gpus_max, new.int_gpu_mem_max) = (old.int_gpus_max, old.int_gpu_mem_max)
    AND (new.int_cores_idle, new.int_mem_idle) != (old.int_cores_idle, old.int_mem_idle)
    AND (new.int_gpus_idle, new.int_gpu_mem_idle) != (old.int_gpus_idle, old.int_gpu_mem_idle)
)
EXECUTE FUNCTION public.refuse_negative_idle();

CREATE FUNCTION public.trigger__before_insert_proc() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.int_cores_reserved <= 0 THEN
        RAISE EXCEPTION 'a proc needs cores, % core units were asked for', NEW.int_cores_reserved;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__before_insert_proc() IS 'Refuses a proc without cores.';

CREATE TRIGGER before_insert_proc BEFORE INSERT ON public.proc
FOR EACH ROW EXECUTE FUNCTION public.trigger__before_insert_proc();
