-- Foreign keys. A proc has two only, so a proc whose job is gone is possible, as on a real farm.
ALTER TABLE public.alloc
ADD CONSTRAINT c_alloc_pk_facility
FOREIGN KEY (pk_facility) REFERENCES public.facility (pk_facility);
ALTER TABLE public.show_alias
ADD CONSTRAINT c_show_alias_pk_show
FOREIGN KEY (pk_show) REFERENCES public.show (pk_show);
ALTER TABLE public.subscription
ADD CONSTRAINT c_subscription_pk_alloc
FOREIGN KEY (pk_alloc) REFERENCES public.alloc (pk_alloc),
ADD CONSTRAINT c_subscription_pk_show
FOREIGN KEY (pk_show) REFERENCES public.show (pk_show);
ALTER TABLE public.folder
ADD CONSTRAINT c_folder_pk_dept
FOREIGN KEY (pk_dept) REFERENCES public.dept (pk_dept),
ADD CONSTRAINT c_folder_pk_show
FOREIGN KEY (pk_show) REFERENCES public.show (pk_show);
ALTER TABLE public.folder_level
ADD CONSTRAINT c_folder_level_pk_folder
FOREIGN KEY (pk_folder) REFERENCES public.folder (pk_folder);
ALTER TABLE public.folder_resource
ADD CONSTRAINT c_folder_resource_pk_folder
FOREIGN KEY (pk_folder) REFERENCES public.folder (pk_folder);
ALTER TABLE public.point
ADD CONSTRAINT c_point_pk_dept
FOREIGN KEY (pk_dept) REFERENCES public.dept (pk_dept),
ADD CONSTRAINT c_point_pk_show
FOREIGN KEY (pk_show) REFERENCES public.show (pk_show);
ALTER TABLE public.job
ADD CONSTRAINT c_job_pk_dept
FOREIGN KEY (pk_dept) REFERENCES public.dept (pk_dept),
ADD CONSTRAINT c_job_pk_facility
FOREIGN KEY (pk_facility) REFERENCES public.facility (pk_facility),
ADD CONSTRAINT c_job_pk_folder
FOREIGN KEY (pk_folder) REFERENCES public.folder (pk_folder),
ADD CONSTRAINT c_job_pk_show
FOREIGN KEY (pk_show) REFERENCES public.show (pk_show);
ALTER TABLE public.job_resource
ADD CONSTRAINT c_job_resource_pk_job
FOREIGN KEY (pk_job) REFERENCES public.job (pk_job);
ALTER TABLE public.job_stat
ADD CONSTRAINT c_job_stat_pk_job
FOREIGN KEY (pk_job) REFERENCES public.job (pk_job);
ALTER TABLE public.job_usage
ADD CONSTRAINT c_job_usage_pk_job
FOREIGN KEY (pk_job) REFERENCES public.job (pk_job);
ALTER TABLE public.job_mem
ADD CONSTRAINT c_job_mem_pk_job
FOREIGN KEY (pk_job) REFERENCES public.job (pk_job);
ALTER TABLE public.layer
ADD CONSTRAINT c_layer_pk_job
FOREIGN KEY (pk_job) REFERENCES public.job (pk_job);
ALTER TABLE public.layer_resource
ADD CONSTRAINT c_layer_resource_pk_job
FOREIGN KEY (pk_job) REFERENCES public.job (pk_job),
ADD CONSTRAINT c_layer_resource_pk_layer
FOREIGN KEY (pk_layer) REFERENCES public.layer (pk_layer);
ALTER TABLE public.layer_stat
ADD CONSTRAINT c_layer_stat_pk_job
FOREIGN KEY (pk_job) REFERENCES public.job (pk_job),
ADD CONSTRAINT c_layer_stat_pk_layer
FOREIGN KEY (pk_layer) REFERENCES public.layer (pk_layer);
ALTER TABLE public.layer_usage
ADD CONSTRAINT c_layer_usage_pk_job
FOREIGN KEY (pk_job) REFERENCES public.job (pk_job),
ADD CONSTRAINT c_layer_usage_pk_layer
FOREIGN KEY (pk_layer) REFERENCES public.layer (pk_layer);
ALTER TABLE public.layer_mem
ADD CONSTRAINT c_layer_mem_pk_job
FOREIGN KEY (pk_job) REFERENCES public.job (pk_job),
ADD CONSTRAINT c_layer_mem_pk_layer
FOREIGN KEY (pk_layer) REFERENCES public.layer (pk_layer);
ALTER TABLE public.frame
ADD CONSTRAINT c_frame_pk_job
FOREIGN KEY (pk_job) REFERENCES public.job (pk_job),
ADD CONSTRAINT c_frame_pk_layer
FOREIGN KEY (pk_layer) REFERENCES public.layer (pk_layer);
ALTER TABLE public.host
ADD CONSTRAINT c_host_pk_alloc
FOREIGN KEY (pk_alloc) REFERENCES public.alloc (pk_alloc);
ALTER TABLE public.host_stat
ADD CONSTRAINT c_host_stat_pk_host
FOREIGN KEY (pk_host) REFERENCES public.host (pk_host);
ALTER TABLE public.host_local
ADD CONSTRAINT c_host_local_pk_host
FOREIGN KEY (pk_host) REFERENCES public.host (pk_host),
ADD CONSTRAINT c_host_local_pk_job
FOREIGN KEY (pk_job) REFERENCES public.job (pk_job);
ALTER TABLE public.job_local
ADD CONSTRAINT c_job_local_pk_host
FOREIGN KEY (pk_host) REFERENCES public.host (pk_host),
ADD CONSTRAINT c_job_local_pk_job
FOREIGN KEY (pk_job) REFERENCES public.job (pk_job);
ALTER TABLE public.proc
ADD CONSTRAINT c_proc_pk_frame
FOREIGN KEY (pk_frame) REFERENCES public.frame (pk_frame),
ADD CONSTRAINT c_proc_pk_host
FOREIGN KEY (pk_host) REFERENCES public.host (pk_host);
