-- A job's layers with their side rows, and the frames; layer_resource holds the layer's total.
CREATE TABLE public.layer (
    pk_layer varchar(36) NOT NULL,
    pk_job varchar(36) NOT NULL,
    str_name varchar(256) NOT NULL,
    str_cmd varchar(4000) NOT NULL,
    str_range varchar(4000) NOT NULL,
    int_chunk_size bigint NOT NULL DEFAULT 1,
    int_dispatch_order bigint NOT NULL DEFAULT 1,
    int_cores_min bigint NOT NULL DEFAULT 100,
    int_mem_min bigint NOT NULL DEFAULT 4194304,
    str_tags varchar(4000) NOT NULL DEFAULT '',
    str_type varchar(16) NOT NULL,
    b_threadable boolean NOT NULL DEFAULT TRUE,
    str_services varchar(128) NOT NULL DEFAULT 'default',
    b_optimize boolean NOT NULL DEFAULT TRUE,
    int_cores_max integer NOT NULL DEFAULT 0,
    int_gpu_mem_min bigint NOT NULL DEFAULT 0,
    int_timeout integer NOT NULL DEFAULT 0,
    int_timeout_llu integer NOT NULL DEFAULT 0,
    int_gpus_min bigint NOT NULL DEFAULT 0,
    int_gpus_max bigint NOT NULL DEFAULT 0,
    ts_eligible timestamp(6) with time zone NOT NULL DEFAULT current_timestamp,
    ts_start_after timestamp(6) with time zone,
    str_start_after_reason varchar(255)
);
COMMENT ON TABLE public.layer
IS 'A layer of a job: frames of one kind. Cores in core units, memory in kB.';

CREATE TABLE public.layer_resource (
    pk_layer_resource varchar(36) NOT NULL,
    pk_layer varchar(36) NOT NULL,
    pk_job varchar(36) NOT NULL,
    int_cores bigint NOT NULL DEFAULT 0,
    int_max_rss bigint NOT NULL DEFAULT 0,
    int_max_vss bigint NOT NULL DEFAULT 0,
    int_gpus integer NOT NULL DEFAULT 0,
    int_gpu_mem_max bigint NOT NULL DEFAULT 0,
    int_max_pss bigint DEFAULT 0
);
COMMENT ON TABLE public.layer_resource IS 'What a layer uses, local work too, in core units.';

CREATE TABLE public.layer_stat (
    pk_layer_stat varchar(36) NOT NULL,
    pk_layer varchar(36) NOT NULL,
    pk_job varchar(36) NOT NULL,
    int_total_count bigint NOT NULL DEFAULT 0,
    int_waiting_count bigint NOT NULL DEFAULT 0,
    int_running_count bigint NOT NULL DEFAULT 0,
    int_dead_count bigint NOT NULL DEFAULT 0,
    int_depend_count bigint NOT NULL DEFAULT 0,
    int_eaten_count bigint NOT NULL DEFAULT 0,
    int_succeeded_count bigint NOT NULL DEFAULT 0,
    int_checkpoint_count bigint NOT NULL DEFAULT 0,
    ts_started timestamp(6) with time zone,
    ts_stopped timestamp(6) with time zone
);
COMMENT ON TABLE public.layer_stat IS 'How many frames of a layer are in each state.';

CREATE TABLE public.layer_usage (
    pk_layer_usage varchar(36) NOT NULL,
    pk_layer varchar(36) NOT NULL,
    pk_job varchar(36) NOT NULL,
    int_core_time_success bigint NOT NULL DEFAULT 0,
    int_core_time_fail bigint NOT NULL DEFAULT 0,
    int_frame_success_count integer NOT NULL DEFAULT 0,
    int_frame_fail_count integer NOT NULL DEFAULT 0,
    int_clock_time_fail integer NOT NULL DEFAULT 0,
    int_clock_time_high integer NOT NULL DEFAULT 0,
    int_clock_time_low integer NOT NULL DEFAULT 0,
    int_clock_time_success integer NOT NULL DEFAULT 0,
    int_gpu_time_success bigint NOT NULL DEFAULT 0,
    int_gpu_time_fail bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE public.layer_usage IS 'Time that a layer has used, in core seconds and seconds.';

CREATE TABLE public.layer_mem (
    pk_layer_mem varchar(36) NOT NULL,
    pk_job varchar(36) NOT NULL,
    pk_layer varchar(36) NOT NULL,
    int_max_rss bigint NOT NULL DEFAULT 0,
    int_max_vss bigint NOT NULL DEFAULT 0,
    int_gpu_mem_max bigint NOT NULL DEFAULT 0,
    int_max_pss bigint DEFAULT 0
);
COMMENT ON TABLE public.layer_mem IS 'The most memory that a frame of the layer took, in kB.';

CREATE TABLE public.frame (
    pk_frame varchar(36) NOT NULL,
    pk_layer varchar(36) NOT NULL,
    pk_job varchar(36) NOT NULL,
    str_name varchar(256) NOT NULL,
    str_state varchar(24) NOT NULL,
    int_number bigint NOT NULL,
    int_depend_count bigint NOT NULL DEFAULT 0,
    int_exit_status bigint NOT NULL DEFAULT -1,
    int_retries bigint NOT NULL DEFAULT 0,
    int_mem_reserved bigint NOT NULL DEFAULT 0,
    int_mem_max_used bigint NOT NULL DEFAULT 0,
    int_mem_used bigint NOT NULL DEFAULT 0,
    int_dispatch_order bigint NOT NULL DEFAULT 0,
    str_host varchar(256),
    int_cores integer NOT NULL DEFAULT 0,
    int_layer_order integer NOT NULL,
    ts_started timestamp(6) with time zone,
    ts_stopped timestamp(6) with time zone,
    ts_last_run timestamp(6) with time zone,
    ts_updated timestamp(6) with time zone,
    int_version integer DEFAULT 0,
    str_checkpoint_state varchar(12) NOT NULL DEFAULT 'DISABLED',
    int_checkpoint_count smallint NOT NULL DEFAULT 0,
    int_gpu_mem_reserved bigint NOT NULL DEFAULT 0,
    int_total_past_core_time integer NOT NULL DEFAULT 0,
    ts_llu timestamp(6) with time zone,
    int_gpu_mem_used bigint NOT NULL DEFAULT 0,
    int_gpu_mem_max_used bigint NOT NULL DEFAULT 0,
    int_gpus integer NOT NULL DEFAULT 0,
    int_total_past_gpu_time integer NOT NULL DEFAULT 0,
    int_pss_max_used bigint DEFAULT 0,
    int_pss_used bigint DEFAULT 0,
    ts_eligible timestamp(6) with time zone
);
COMMENT ON TABLE public.frame IS 'One frame of a layer, the unit that a proc runs.';
