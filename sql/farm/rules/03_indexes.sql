-- Indexes, under the names that OpenCue gives them.
CREATE INDEX i_alloc_pk_facility ON public.alloc (pk_facility);
CREATE INDEX i_show_alias_pk_show ON public.show_alias (pk_show);
CREATE INDEX i_sub_tier ON public.subscription (float_tier);
CREATE INDEX i_subscription_pkalloc ON public.subscription (pk_alloc);
CREATE INDEX i_folder_pkparentfolder ON public.folder (pk_parent_folder);
CREATE INDEX i_folder_pkshow ON public.folder (pk_show);
CREATE INDEX i_folder_strname ON public.folder (str_name);
CREATE INDEX i_folder_res_int_max_cores ON public.folder_resource (int_max_cores);
CREATE INDEX i_folder_res_int_max_gpus ON public.folder_resource (int_max_gpus);
CREATE INDEX i_folder_resource_fl_tier ON public.folder_resource (float_tier);
CREATE INDEX i_folder_resource_int_cores ON public.folder_resource (int_cores);
CREATE INDEX i_folderresource_pkfolder ON public.folder_resource (pk_folder);
CREATE INDEX i_point_pk_dept ON public.point (pk_dept);
CREATE INDEX i_point_pk_show ON public.point (pk_show);
CREATE INDEX i_point_tier ON public.point (float_tier);
CREATE INDEX i_booking_3 ON public.job (str_state, b_paused, pk_show, pk_facility);
CREATE INDEX i_job_active_pkjob ON public.job (pk_job)
WHERE str_state <> 'FINISHED';
CREATE INDEX i_job_int_min_cores ON public.job (int_min_cores);
CREATE INDEX i_job_pk_dept ON public.job (pk_dept);
CREATE INDEX i_job_pk_facility ON public.job (pk_facility);
CREATE INDEX i_job_pkgroup ON public.job (pk_folder);
CREATE INDEX i_job_pkshow ON public.job (pk_show);
CREATE INDEX i_job_str_name ON public.job (str_name);
CREATE INDEX i_job_str_os ON public.job (str_os);
CREATE INDEX i_job_str_shot ON public.job (str_shot);
CREATE INDEX i_job_str_state ON public.job (str_state);
CREATE INDEX i_job_ts_updated ON public.job (ts_updated);
CREATE INDEX idx_job_pending_lookup ON public.job (pk_show, pk_facility, str_state, b_paused)
WHERE str_state = 'PENDING' AND b_paused = FALSE;
CREATE INDEX i_job_resource_cores ON public.job_resource (int_cores);
CREATE INDEX i_job_resource_gpus ON public.job_resource (int_gpus);
CREATE INDEX i_job_resource_gpus_min_max ON public.job_resource (int_min_gpus, int_max_gpus);
CREATE INDEX i_job_resource_int_priority ON public.job_resource (int_priority);
CREATE INDEX i_job_resource_max_c ON public.job_resource (int_max_cores);
CREATE INDEX i_job_resource_max_gpus ON public.job_resource (int_max_gpus);
CREATE INDEX i_job_resource_min_max ON public.job_resource (int_min_cores, int_max_cores);
CREATE INDEX i_job_tier ON public.job_resource (float_tier);
CREATE INDEX i_job_stat_int_waiting_count ON public.job_stat (int_waiting_count);
CREATE UNIQUE INDEX i_job_stat_pk_job ON public.job_stat (pk_job);
CREATE INDEX i_job_mem_int_max_rss ON public.job_mem (int_max_rss);
CREATE UNIQUE INDEX i_job_mem_pk_job ON public.job_mem (pk_job);
CREATE INDEX i_max_pss_job ON public.job_mem (int_max_pss);
CREATE INDEX i_layer_b_threadable ON public.layer (b_threadable);
CREATE INDEX i_layer_cores_gpus_mem ON public.layer (
    int_cores_min, int_gpus_min, int_mem_min, int_gpu_mem_min
);
CREATE INDEX i_layer_cores_gpus_mem_thread ON public.layer (
    int_cores_min, int_gpus_min, int_mem_min, int_gpu_mem_min, b_threadable
);
CREATE INDEX i_layer_cores_mem ON public.layer (int_cores_min, int_mem_min);
CREATE INDEX i_layer_cores_mem_thread ON public.layer (int_cores_min, int_mem_min, b_threadable);
CREATE INDEX i_layer_int_cores_max ON public.layer (int_cores_max);
CREATE INDEX i_layer_int_dispatch_order ON public.layer (int_dispatch_order);
CREATE INDEX i_layer_int_gpu_mem_min ON public.layer (int_gpu_mem_min);
CREATE INDEX i_layer_int_gpus_mem_min_1 ON public.layer (int_gpu_mem_min);
CREATE INDEX i_layer_int_gpus_min ON public.layer (int_gpus_min);
CREATE INDEX i_layer_mem_min ON public.layer (int_mem_min);
CREATE INDEX i_layer_pkjob ON public.layer (pk_job);
CREATE INDEX i_layer_start_after ON public.layer (ts_start_after)
WHERE ts_start_after IS NOT NULL;
CREATE INDEX i_layer_str_tags ON public.layer (str_tags);
CREATE INDEX i_layer_strname ON public.layer (str_name);
CREATE INDEX idx_layer_tags_array ON public.layer USING gin (
    string_to_array(replace(str_tags, ' ', ''), '|')
);
CREATE INDEX i_layer_resource_pk_job ON public.layer_resource (pk_job);
CREATE UNIQUE INDEX i_layer_stat_pk_layer ON public.layer_stat (pk_layer);
CREATE INDEX i_layerstat_int_waiting_count ON public.layer_stat (
    (CASE WHEN int_waiting_count > 0 THEN 1 END),
    (CASE WHEN int_waiting_count > 0 THEN pk_layer END)
);
CREATE INDEX i_layerstat_pkjob ON public.layer_stat (pk_job);
CREATE INDEX idx_layer_stat_waiting ON public.layer_stat (pk_layer)
WHERE int_waiting_count > 0;
CREATE INDEX i_layer_usage_pk_job ON public.layer_usage (pk_job);
CREATE INDEX i_layer_mem_int_max_rss ON public.layer_mem (int_max_rss);
CREATE INDEX i_layer_mem_pk_job ON public.layer_mem (pk_job);
CREATE UNIQUE INDEX i_layer_mem_pk_layer ON public.layer_mem (pk_layer);
CREATE INDEX i_max_pss_layer ON public.layer_mem (int_max_pss);
CREATE INDEX i_frame_depend_candidates ON public.frame (pk_job, pk_layer, pk_frame)
WHERE str_state = 'DEPEND' AND int_depend_count > 0;
CREATE INDEX i_frame_dispatch_idx ON public.frame (int_dispatch_order, int_layer_order);
CREATE INDEX i_frame_int_gpu_mem_reserved ON public.frame (int_gpu_mem_reserved);
CREATE INDEX i_frame_pk_job ON public.frame (pk_job);
CREATE INDEX i_frame_pkjoblayer ON public.frame (pk_layer);
CREATE INDEX i_frame_state_job ON public.frame (str_state, pk_job);
CREATE INDEX i_host_int_gpu ON public.host (int_gpu_mem);
CREATE INDEX i_host_int_gpu_idle ON public.host (int_gpu_mem_idle);
CREATE INDEX i_host_int_gpu_mem ON public.host (int_gpu_mem);
CREATE INDEX i_host_int_gpu_mem_idle ON public.host (int_gpu_mem_idle);
CREATE INDEX i_host_int_gpus ON public.host (int_gpus);
CREATE INDEX i_host_int_gpus_idle ON public.host (int_gpus_idle);
CREATE INDEX i_host_pkalloc ON public.host (pk_alloc);
CREATE INDEX i_host_str_tags ON public.host (str_tags);
CREATE INDEX i_host_strlockstate ON public.host (str_lock_state);
CREATE INDEX i_host_stat_int_gpu_mem_free ON public.host_stat (int_gpu_mem_free);
CREATE INDEX i_host_stat_int_gpu_mem_total ON public.host_stat (int_gpu_mem_total);
CREATE INDEX i_host_stat_str_os ON public.host_stat (str_os);
CREATE INDEX i_host_local ON public.host_local (pk_host);
CREATE INDEX i_host_local_int_gpu_idle ON public.host_local (int_gpu_mem_idle);
CREATE INDEX i_host_local_int_gpu_max ON public.host_local (int_gpu_mem_max);
CREATE INDEX i_host_local_int_gpus_idle ON public.host_local (int_gpus_idle);
CREATE INDEX i_host_local_int_gpus_max ON public.host_local (int_gpus_max);
CREATE INDEX i_host_local_pk_job ON public.host_local (pk_job);
CREATE UNIQUE INDEX i_host_local_unique ON public.host_local (pk_host, pk_job);
CREATE UNIQUE INDEX i_job_local_pk_host ON public.job_local (pk_host);
CREATE UNIQUE INDEX i_job_local_pk_job ON public.job_local (pk_job);
CREATE INDEX i_proc_int_gpu_mem_reserved ON public.proc (int_gpu_mem_reserved);
CREATE INDEX i_proc_pkhost ON public.proc (pk_host);
CREATE INDEX i_proc_pkjob ON public.proc (pk_job);
CREATE INDEX i_proc_pklayer ON public.proc (pk_layer);
CREATE INDEX i_proc_pkshow ON public.proc (pk_show);
