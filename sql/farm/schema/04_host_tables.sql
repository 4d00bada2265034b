-- Hosts and what runs on them. proc is the one truth from which every total follows.
CREATE TABLE public.host (
    pk_host varchar(36) NOT NULL,
    pk_alloc varchar(36) NOT NULL,
    str_name varchar(45) NOT NULL,
    str_lock_state varchar(36) NOT NULL,
    b_nimby boolean NOT NULL DEFAULT FALSE,
    ts_created timestamp(6) NOT NULL DEFAULT current_timestamp,
    int_cores bigint NOT NULL DEFAULT 0,
    int_procs bigint NOT NULL DEFAULT 0,
    int_cores_idle bigint NOT NULL DEFAULT 0,
    int_mem bigint NOT NULL DEFAULT 0,
    int_mem_idle bigint NOT NULL DEFAULT 0,
    b_unlock_boot boolean NOT NULL DEFAULT FALSE,
    b_unlock_idle boolean NOT NULL DEFAULT FALSE,
    b_reboot_idle boolean NOT NULL DEFAULT FALSE,
    str_tags varchar(128),
    str_fqdn varchar(128),
    b_comment boolean NOT NULL DEFAULT FALSE,
    int_thread_mode integer NOT NULL DEFAULT 0,
    str_lock_source varchar(128),
    int_gpu_mem bigint NOT NULL DEFAULT 0,
    int_gpu_mem_idle bigint NOT NULL DEFAULT 0,
    int_gpus bigint NOT NULL DEFAULT 0,
    int_gpus_idle bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE public.host
IS 'A render node: what it has and what is idle. Core units, kB, whole GPUs.';

CREATE TABLE public.host_stat (
    pk_host_stat varchar(36) NOT NULL,
    pk_host varchar(36) NOT NULL,
    int_mem_total bigint NOT NULL DEFAULT 0,
    int_mem_free bigint NOT NULL DEFAULT 0,
    int_swap_total bigint NOT NULL DEFAULT 0,
    int_swap_free bigint NOT NULL DEFAULT 0,
    int_mcp_total bigint NOT NULL DEFAULT 0,
    int_mcp_free bigint NOT NULL DEFAULT 0,
    int_load bigint NOT NULL DEFAULT 0,
    ts_ping timestamp(6) with time zone NOT NULL DEFAULT current_timestamp,
    ts_booted timestamp(6) with time zone NOT NULL DEFAULT current_timestamp,
    str_state varchar(32) NOT NULL DEFAULT 'UP',
    str_os varchar(32) NOT NULL DEFAULT 'rhel40',
    int_gpu_mem_total bigint NOT NULL DEFAULT 0,
    int_gpu_mem_free bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE public.host_stat IS 'What the host last reported of itself; memory in kB.';

CREATE TABLE public.host_local (
    pk_host_local varchar(36) NOT NULL,
    pk_job varchar(36) NOT NULL,
    pk_layer varchar(36),
    pk_frame varchar(36),
    pk_host varchar(36) NOT NULL,
    ts_created timestamp(6) with time zone NOT NULL DEFAULT current_timestamp,
    ts_updated timestamp(6) with time zone,
    int_mem_max bigint NOT NULL DEFAULT 0,
    int_mem_idle bigint NOT NULL DEFAULT 0,
    int_cores_max integer NOT NULL DEFAULT 100,
    int_cores_idle integer NOT NULL DEFAULT 100,
    int_threads integer NOT NULL DEFAULT 1,
    float_tier numeric(16, 2) NOT NULL DEFAULT 0,
    b_active boolean NOT NULL DEFAULT TRUE,
    str_type varchar(36) NOT NULL,
    int_gpu_mem_idle bigint NOT NULL DEFAULT 0,
    int_gpu_mem_max bigint NOT NULL DEFAULT 0,
    int_gpus_idle integer NOT NULL DEFAULT 0,
    int_gpus_max integer NOT NULL DEFAULT 0
);
COMMENT ON TABLE public.host_local
IS 'What a job may use of its user''s own host, and what of that is idle.';

CREATE TABLE public.job_local (
    pk_job_local varchar(36) NOT NULL,
    pk_job varchar(36) NOT NULL,
    pk_host varchar(36) NOT NULL,
    str_source varchar(255) NOT NULL,
    ts_created timestamp(6) with time zone NOT NULL DEFAULT current_timestamp,
    int_cores integer NOT NULL DEFAULT 0,
    int_max_cores integer NOT NULL,
    int_gpus integer NOT NULL DEFAULT 0,
    int_max_gpus integer NOT NULL DEFAULT 0
);
COMMENT ON TABLE public.job_local
IS 'That a job runs on its user''s own host, and how much it may take there.';

CREATE TABLE public.proc (
    pk_proc varchar(36) NOT NULL,
    pk_host varchar(36) NOT NULL,
    pk_job varchar(36),
    pk_show varchar(36),
    pk_layer varchar(36),
    pk_frame varchar(36),
    int_cores_reserved bigint NOT NULL,
    int_mem_reserved bigint NOT NULL,
    int_mem_used bigint NOT NULL DEFAULT 0,
    int_mem_max_used bigint NOT NULL DEFAULT 0,
    b_unbooked boolean NOT NULL DEFAULT FALSE,
    int_mem_pre_reserved bigint NOT NULL DEFAULT 0,
    int_virt_used bigint NOT NULL DEFAULT 0,
    int_virt_max_used bigint NOT NULL DEFAULT 0,
    str_redirect varchar(265),
    b_local boolean NOT NULL DEFAULT FALSE,
    ts_ping timestamp(6) with time zone NOT NULL DEFAULT current_timestamp,
    ts_booked timestamp(6) with time zone NOT NULL DEFAULT current_timestamp,
    ts_dispatched timestamp(6) with time zone NOT NULL DEFAULT current_timestamp,
    int_gpu_mem_reserved bigint NOT NULL DEFAULT 0,
    int_gpus_reserved integer NOT NULL DEFAULT 0,
    int_gpu_mem_used bigint NOT NULL DEFAULT 0,
    int_gpu_mem_max_used bigint NOT NULL DEFAULT 0,
    int_gpu_mem_pre_reserved bigint NOT NULL DEFAULT 0,
    bytea_children bytea,
    int_swap_used bigint NOT NULL DEFAULT 0,
    int_pss_max_used bigint DEFAULT 0,
    int_pss_used bigint DEFAULT 0
);
COMMENT ON TABLE public.proc
IS 'A running frame: cores (core units), memory (kB) and GPUs reserved on a host.';
