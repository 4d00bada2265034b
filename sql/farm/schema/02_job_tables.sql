-- A job and its four side rows; job_resource holds the job's total.
CREATE TABLE public.job (
    pk_job varchar(36) NOT NULL,
    pk_folder varchar(36) NOT NULL,
    pk_show varchar(36) NOT NULL,
    str_name varchar(255) NOT NULL,
    str_visible_name varchar(255),
    str_shot varchar(64) NOT NULL,
    str_user varchar(32) NOT NULL,
    str_state varchar(16) NOT NULL,
    str_log_dir varchar(4000) NOT NULL DEFAULT '',
    int_uid bigint,
    b_paused boolean NOT NULL DEFAULT FALSE,
    b_autoeat boolean NOT NULL DEFAULT FALSE,
    int_frame_count integer NOT NULL DEFAULT 0,
    int_layer_count integer NOT NULL DEFAULT 0,
    int_max_retries smallint NOT NULL DEFAULT 3,
    b_auto_book boolean NOT NULL DEFAULT TRUE,
    b_auto_unbook boolean NOT NULL DEFAULT TRUE,
    b_comment boolean NOT NULL DEFAULT FALSE,
    str_email varchar(256),
    pk_facility varchar(36) NOT NULL,
    pk_dept varchar(36) NOT NULL,
    ts_started timestamp(6) with time zone NOT NULL DEFAULT current_timestamp,
    ts_stopped timestamp(6) with time zone,
    int_min_cores integer NOT NULL DEFAULT 100,
    int_max_cores integer NOT NULL DEFAULT 20000,
    str_show varchar(512) NOT NULL DEFAULT 'none',
    ts_updated timestamp(6) with time zone NOT NULL DEFAULT current_timestamp,
    str_os varchar(12),
    int_min_gpus integer NOT NULL DEFAULT 0,
    int_max_gpus integer NOT NULL DEFAULT 100000,
    str_loki_url varchar(256),
    ts_eligible timestamp(6) with time zone NOT NULL DEFAULT current_timestamp
);
COMMENT ON TABLE public.job IS 'A job: PENDING while it may run, FINISHED afterwards.';

CREATE TABLE public.job_resource (
    pk_job_resource varchar(36) NOT NULL,
    pk_job varchar(36) NOT NULL,
    int_cores bigint NOT NULL DEFAULT 0,
    int_max_rss bigint NOT NULL DEFAULT 0,
    int_max_vss bigint NOT NULL DEFAULT 0,
    int_min_cores integer NOT NULL DEFAULT 100,
    int_max_cores integer NOT NULL DEFAULT 10000,
    float_tier numeric(16, 2) NOT NULL DEFAULT 0,
    int_priority integer NOT NULL DEFAULT 1,
    int_local_cores integer NOT NULL DEFAULT 0,
    int_gpus integer NOT NULL DEFAULT 0,
    int_min_gpus integer NOT NULL DEFAULT 0,
    int_max_gpus integer NOT NULL DEFAULT 100,
    int_local_gpus integer NOT NULL DEFAULT 0,
    int_gpu_mem_max bigint NOT NULL DEFAULT 0,
    int_max_pss bigint DEFAULT 0
);
COMMENT ON TABLE public.job_resource
IS 'What a job uses and may use, in core units; local work is counted apart.';

CREATE TABLE public.job_stat (
    pk_job_stat varchar(36) NOT NULL,
    pk_job varchar(36) NOT NULL,
    int_waiting_count bigint NOT NULL DEFAULT 0,
    int_running_count bigint NOT NULL DEFAULT 0,
    int_dead_count bigint NOT NULL DEFAULT 0,
    int_depend_count bigint NOT NULL DEFAULT 0,
    int_eaten_count bigint NOT NULL DEFAULT 0,
    int_succeeded_count bigint NOT NULL DEFAULT 0,
    int_checkpoint_count bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE public.job_stat IS 'How many frames of a job are in each state.';

CREATE TABLE public.job_usage (
    pk_job_usage varchar(36) NOT NULL,
    pk_job varchar(36) NOT NULL,
    int_core_time_success bigint NOT NULL DEFAULT 0,
    int_core_time_fail bigint NOT NULL DEFAULT 0,
    int_frame_success_count integer NOT NULL DEFAULT 0,
    int_frame_fail_count integer NOT NULL DEFAULT 0,
    int_clock_time_fail integer NOT NULL DEFAULT 0,
    int_clock_time_high integer NOT NULL DEFAULT 0,
    int_clock_time_success integer NOT NULL DEFAULT 0,
    int_gpu_time_success bigint NOT NULL DEFAULT 0,
    int_gpu_time_fail bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE public.job_usage IS 'Time that a job has used, in core seconds and seconds.';

CREATE TABLE public.job_mem (
    pk_job_mem varchar(36) NOT NULL,
    pk_job varchar(36) NOT NULL,
    int_max_rss bigint NOT NULL DEFAULT 0,
    int_max_vss bigint NOT NULL DEFAULT 0,
    int_gpu_mem_max bigint NOT NULL DEFAULT 0,
    int_max_pss bigint DEFAULT 0
);
COMMENT ON TABLE public.job_mem IS 'The most memory that a frame of the job took, in kB.';
