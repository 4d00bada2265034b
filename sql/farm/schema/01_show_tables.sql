-- Shows, where their work may run, and two of the five totals: subscription and point;
-- a folder's total is folder_resource.
CREATE TABLE public.facility (
    pk_facility varchar(36) NOT NULL,
    str_name varchar(36) NOT NULL,
    b_default boolean NOT NULL DEFAULT FALSE
);
COMMENT ON TABLE public.facility IS 'A site that owns allocations and runs jobs.';

CREATE TABLE public.dept (
    pk_dept varchar(36) NOT NULL,
    str_name varchar(36) NOT NULL,
    b_default boolean NOT NULL DEFAULT FALSE
);
COMMENT ON TABLE public.dept
IS 'A department; jobs belong to one, a point counts its cores per show.';

CREATE TABLE public.alloc (
    pk_alloc varchar(36) NOT NULL,
    str_name varchar(36) NOT NULL,
    b_allow_edit boolean NOT NULL DEFAULT TRUE,
    b_default boolean NOT NULL DEFAULT FALSE,
    str_tag varchar(24),
    b_billable boolean NOT NULL DEFAULT TRUE,
    pk_facility varchar(36) NOT NULL,
    b_enabled boolean DEFAULT TRUE
);
COMMENT ON TABLE public.alloc
IS 'An allocation: a set of hosts that shows subscribe to. Its name is facility.tag.';

CREATE TABLE public.show (
    pk_show varchar(36) NOT NULL,
    str_name varchar(512) NOT NULL,
    b_paused boolean NOT NULL DEFAULT FALSE,
    int_default_min_cores integer NOT NULL DEFAULT 100,
    int_default_max_cores integer NOT NULL DEFAULT 10000,
    b_booking_enabled boolean NOT NULL DEFAULT TRUE,
    b_dispatch_enabled boolean NOT NULL DEFAULT TRUE,
    b_active boolean NOT NULL DEFAULT TRUE,
    str_comment_email varchar(1024),
    int_default_min_gpus integer NOT NULL DEFAULT 100,
    int_default_max_gpus integer NOT NULL DEFAULT 100000,
    b_scheduler_managed boolean NOT NULL DEFAULT FALSE
);
COMMENT ON TABLE public.show
IS 'A show, the tenant. b_scheduler_managed: another scheduler keeps its totals.';

CREATE TABLE public.show_alias (
    pk_show_alias varchar(36) NOT NULL,
    pk_show varchar(36) NOT NULL,
    str_name varchar(16) NOT NULL
);
COMMENT ON TABLE public.show_alias IS 'A second name for a show.';

CREATE TABLE public.subscription (
    pk_subscription varchar(36) NOT NULL,
    pk_alloc varchar(36) NOT NULL,
    pk_show varchar(36) NOT NULL,
    int_size bigint NOT NULL DEFAULT 0,
    int_burst bigint NOT NULL DEFAULT 0,
    int_cores integer NOT NULL DEFAULT 0,
    float_tier numeric(16, 2) NOT NULL DEFAULT 0,
    int_gpus integer NOT NULL DEFAULT 0
);
COMMENT ON TABLE public.subscription
IS 'What a show may use of an allocation (size, burst) and uses, in core units.';

CREATE TABLE public.folder (
    pk_folder varchar(36) NOT NULL,
    pk_parent_folder varchar(36),
    pk_show varchar(36) NOT NULL,
    str_name varchar(36) NOT NULL,
    int_priority bigint NOT NULL DEFAULT 1,
    b_default boolean NOT NULL DEFAULT FALSE,
    pk_dept varchar(36) NOT NULL,
    int_job_min_cores integer NOT NULL DEFAULT -1,
    int_job_max_cores integer NOT NULL DEFAULT -1,
    int_job_priority integer NOT NULL DEFAULT -1,
    int_min_cores integer NOT NULL DEFAULT 0,
    int_max_cores integer NOT NULL DEFAULT -1,
    b_exclude_managed boolean NOT NULL DEFAULT FALSE,
    f_order integer NOT NULL DEFAULT 0,
    int_job_min_gpus integer NOT NULL DEFAULT -1,
    int_job_max_gpus integer NOT NULL DEFAULT -1,
    int_min_gpus integer NOT NULL DEFAULT 0,
    int_max_gpus integer NOT NULL DEFAULT -1
);
COMMENT ON TABLE public.folder IS 'A show''s folder of jobs. Maxima of -1 mean unlimited.';

CREATE TABLE public.folder_level (
    pk_folder_level varchar(36) NOT NULL,
    pk_folder varchar(36) NOT NULL,
    int_level bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE public.folder_level IS 'How deep a folder lies; the root is 0.';

CREATE TABLE public.folder_resource (
    pk_folder_resource varchar(36) NOT NULL,
    pk_folder varchar(36) NOT NULL,
    int_cores integer NOT NULL DEFAULT 0,
    int_max_cores integer NOT NULL DEFAULT -1,
    int_min_cores integer NOT NULL DEFAULT 0,
    float_tier numeric(16, 2) NOT NULL DEFAULT 0,
    int_gpus integer NOT NULL DEFAULT 0,
    int_max_gpus integer NOT NULL DEFAULT -1,
    int_min_gpus integer NOT NULL DEFAULT 0
);
COMMENT ON TABLE public.folder_resource
IS 'What the jobs directly in a folder use, in core units, and their caps (-1: none).';

CREATE TABLE public.point (
    pk_point varchar(36) NOT NULL,
    pk_dept varchar(36) NOT NULL,
    pk_show varchar(36) NOT NULL,
    str_ti_task varchar(36),
    int_cores integer NOT NULL DEFAULT 0,
    b_managed boolean NOT NULL DEFAULT FALSE,
    int_min_cores integer NOT NULL DEFAULT 0,
    float_tier numeric(16, 2) NOT NULL DEFAULT 0,
    ts_updated timestamp(6) with time zone NOT NULL DEFAULT current_timestamp,
    int_gpus integer NOT NULL DEFAULT 0,
    int_min_gpus integer NOT NULL DEFAULT 0
);
COMMENT ON TABLE public.point IS 'What a department uses on a show, in core units.';
