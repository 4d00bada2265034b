-- Statistics: without them the first recompute would plan for empty tables.
ANALYZE
public.facility, public.dept, public.alloc, public.show, public.subscription, public.folder,
public.folder_level, public.folder_resource, public.point, public.job, public.job_resource,
public.job_stat, public.job_usage, public.job_mem, public.layer, public.layer_resource,
public.layer_stat, public.layer_usage, public.layer_mem, public.frame, public.host,
public.host_stat, public.host_local, public.proc;
