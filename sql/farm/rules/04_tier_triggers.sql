-- Every update of a total rebuilds its tier; subscription and job count beyond their minimum,
-- folder and point only up to it. Trigger names are OpenCue's, and with them the firing order.
CREATE FUNCTION public.trigger__tier_subscription() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.float_tier := public.tier(NEW.int_cores, NEW.int_size);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__tier_subscription() IS 'Tier: cores in use over the size.';

CREATE TRIGGER tier_subscription BEFORE UPDATE ON public.subscription
FOR EACH ROW EXECUTE FUNCTION public.trigger__tier_subscription();

CREATE FUNCTION public.trigger__tier_job() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.float_tier := public.tier(NEW.int_cores, NEW.int_min_cores);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__tier_job() IS 'Tier: cores in use over the minimum.';

CREATE TRIGGER tier_job BEFORE UPDATE ON public.job_resource
FOR EACH ROW EXECUTE FUNCTION public.trigger__tier_job();

CREATE FUNCTION public.trigger__tier_folder() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.float_tier := public.soft_tier(NEW.int_cores, NEW.int_min_cores);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__tier_folder() IS 'Soft tier: cores in use over the minimum.';

CREATE TRIGGER tier_folder BEFORE UPDATE ON public.folder_resource
FOR EACH ROW EXECUTE FUNCTION public.trigger__tier_folder();

CREATE FUNCTION public.trigger__point_tier() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.float_tier := public.soft_tier(NEW.int_cores, NEW.int_min_cores);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__point_tier() IS 'Soft tier: cores in use over the minimum.';

CREATE TRIGGER point_tier BEFORE UPDATE ON public.point
FOR EACH ROW EXECUTE FUNCTION public.trigger__point_tier();

CREATE FUNCTION public.trigger__tier_host_local() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.float_tier := public.tier(NEW.int_cores_max - NEW.int_cores_idle, NEW.int_cores_max);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__tier_host_local() IS 'Tier: cores in use over the share.';

CREATE TRIGGER tier_host_local BEFORE UPDATE ON public.host_local
FOR EACH ROW EXECUTE FUNCTION public.trigger__tier_host_local();
