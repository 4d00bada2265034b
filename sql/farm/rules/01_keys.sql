-- Primary and unique keys, under the names that OpenCue gives them.
ALTER TABLE public.facility
ADD CONSTRAINT c_facility_pk PRIMARY KEY (pk_facility);
ALTER TABLE public.dept
ADD CONSTRAINT c_dept_pk PRIMARY KEY (pk_dept);
ALTER TABLE public.alloc
ADD CONSTRAINT c_alloc_pk PRIMARY KEY (pk_alloc),
ADD CONSTRAINT c_alloc_name_uniq UNIQUE (str_name);
ALTER TABLE public.show
ADD CONSTRAINT c_show_pk PRIMARY KEY (pk_show);
ALTER TABLE public.show_alias
ADD CONSTRAINT c_show_alias_pk PRIMARY KEY (pk_show_alias);
ALTER TABLE public.subscription
ADD CONSTRAINT c_subscription_pk PRIMARY KEY (pk_subscription),
ADD CONSTRAINT c_subscription_uk UNIQUE (pk_show, pk_alloc);
ALTER TABLE public.folder
ADD CONSTRAINT c_folder_pk PRIMARY KEY (pk_folder),
ADD CONSTRAINT c_folder_uk UNIQUE (pk_parent_folder, str_name);
ALTER TABLE public.folder_level
ADD CONSTRAINT c_folder_level_pk PRIMARY KEY (pk_folder_level),
ADD CONSTRAINT c_folder_level_uk UNIQUE (pk_folder);
ALTER TABLE public.folder_resource
ADD CONSTRAINT c_folder_resource_pk PRIMARY KEY (pk_folder_resource);
ALTER TABLE public.point
ADD CONSTRAINT c_point_pk PRIMARY KEY (pk_point),
ADD CONSTRAINT c_point_pk_show_dept UNIQUE (pk_show, pk_dept);
ALTER TABLE public.job
ADD CONSTRAINT c_job_pk PRIMARY KEY (pk_job),
ADD CONSTRAINT c_job_uk UNIQUE (str_visible_name);
ALTER TABLE public.job_resource
ADD CONSTRAINT c_job_resource_pk PRIMARY KEY (pk_job_resource),
ADD CONSTRAINT c_job_resource_uk UNIQUE (pk_job);
ALTER TABLE public.job_stat
ADD CONSTRAINT c_job_stat_pk PRIMARY KEY (pk_job_stat);
ALTER TABLE public.job_usage
ADD CONSTRAINT c_job_usage_pk PRIMARY KEY (pk_job_usage),
ADD CONSTRAINT c_job_usage_pk_job_uniq UNIQUE (pk_job);
ALTER TABLE public.job_mem
ADD CONSTRAINT c_job_mem_pk PRIMARY KEY (pk_job_mem);
ALTER TABLE public.layer
ADD CONSTRAINT c_layer_pk PRIMARY KEY (pk_layer),
ADD CONSTRAINT c_layer_str_name_unq UNIQUE (str_name, pk_job);
ALTER TABLE public.layer_resource
ADD CONSTRAINT c_layerresource_pk PRIMARY KEY (pk_layer_resource),
ADD CONSTRAINT c_layerresource_uk UNIQUE (pk_layer);
ALTER TABLE public.layer_stat
ADD CONSTRAINT c_layerstat_pk PRIMARY KEY (pk_layer_stat);
ALTER TABLE public.layer_usage
ADD CONSTRAINT c_layer_usage_pk PRIMARY KEY (pk_layer_usage),
ADD CONSTRAINT c_layer_usage_pk_layer_uk UNIQUE (pk_layer);
ALTER TABLE public.layer_mem
ADD CONSTRAINT c_layer_mem_pk PRIMARY KEY (pk_layer_mem);
ALTER TABLE public.frame
ADD CONSTRAINT c_frame_pk PRIMARY KEY (pk_frame),
ADD CONSTRAINT c_frame_str_name_unq UNIQUE (str_name, pk_job);
ALTER TABLE public.host
ADD CONSTRAINT c_host_pk PRIMARY KEY (pk_host),
ADD CONSTRAINT c_host_uk UNIQUE (str_name),
ADD CONSTRAINT c_str_host_fqdn_uk UNIQUE (str_fqdn);
ALTER TABLE public.host_stat
ADD CONSTRAINT c_hoststat_pk PRIMARY KEY (pk_host_stat),
ADD CONSTRAINT c_host_stat_pk_host_uk UNIQUE (pk_host);
ALTER TABLE public.host_local
ADD CONSTRAINT c_pk_host_local PRIMARY KEY (pk_host_local);
ALTER TABLE public.job_local
ADD CONSTRAINT c_pk_job_local PRIMARY KEY (pk_job_local);
ALTER TABLE public.proc
ADD CONSTRAINT c_proc_pk PRIMARY KEY (pk_proc),
ADD CONSTRAINT c_proc_uk UNIQUE (pk_frame);
