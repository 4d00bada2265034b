-- retally's own state. A scope is what one pass covers: on a render farm, a show (pk_show).
-- No foreign key leads into the farm: it would put triggers on the farm's tables.

CREATE TABLE retally.setting (
    only_row boolean CONSTRAINT setting_pk PRIMARY KEY DEFAULT TRUE,
    follow_farm_flag boolean NOT NULL DEFAULT TRUE,
    wait_after_passes integer NOT NULL DEFAULT 3,
    longest_wait interval NOT NULL DEFAULT '500 milliseconds',
    CONSTRAINT setting_has_one_row CHECK (only_row),
    CONSTRAINT setting_wait_after_passes_is_positive CHECK (wait_after_passes > 0),
    CONSTRAINT setting_longest_wait_is_not_negative CHECK (longest_wait >= interval '0')
);
INSERT INTO retally.setting DEFAULT VALUES;
COMMENT ON TABLE retally.setting IS
'What holds for the whole farm; one row, changed by UPDATE.';
COMMENT ON COLUMN retally.setting.follow_farm_flag IS
'Ticks also rebuild the shows that the farm itself flags (show.b_scheduler_managed).';
COMMENT ON COLUMN retally.setting.wait_after_passes IS
'A row that was busy in this many passes running is waited for by the next one.';
COMMENT ON COLUMN retally.setting.longest_wait IS
'How long one pass over a show waits for busy rows, at most half of deadlock_timeout.';

CREATE TABLE retally.managed_scope (
    scope text CONSTRAINT managed_scope_pk PRIMARY KEY,
    managed_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    managed_by text NOT NULL DEFAULT current_user
);
COMMENT ON TABLE retally.managed_scope IS
'The feature flag: a row for each scope whose bookings through retally write no total.';

CREATE UNLOGGED TABLE retally.pass (
    scope text NOT NULL,
    total text NOT NULL,
    finished_at timestamptz NOT NULL,
    seconds double precision NOT NULL,
    rows_adrift bigint NOT NULL,
    rows_changed bigint NOT NULL,
    rows_deferred bigint NOT NULL,
    rows_failed bigint NOT NULL,
    core_units_adrift numeric NOT NULL,
    gpus_adrift numeric NOT NULL,
    problems text[] NOT NULL,
    CONSTRAINT pass_pk PRIMARY KEY (scope, total)
) WITH (fillfactor = 50);
COMMENT ON TABLE retally.pass IS
'The latest pass over each total of each scope. Unlogged: a tick should cost no WAL.';

CREATE UNLOGGED TABLE retally.deferred (
    scope text NOT NULL,
    total text NOT NULL,
    key text NOT NULL,
    passes integer NOT NULL,
    since timestamptz NOT NULL,
    CONSTRAINT deferred_pk PRIMARY KEY (scope, total, key)
);
COMMENT ON TABLE retally.deferred IS
'Rows that the latest passes left because they were locked, and how many passes running.';

CREATE UNLOGGED TABLE retally.due (
    tick text NOT NULL,
    scope text NOT NULL,
    due_at timestamptz NOT NULL,
    every interval NOT NULL,
    claimed_by text NOT NULL,
    CONSTRAINT due_pk PRIMARY KEY (tick, scope)
) WITH (fillfactor = 50);
COMMENT ON TABLE retally.due IS
'When each scope is due again in each tick. Claiming a scope moves its due time on.';

CREATE TYPE retally.finding AS (
    show_id text,
    total text,
    keys text [],
    rows_adrift bigint,
    rows_failed bigint,
    core_units numeric,
    gpus numeric,
    problems text []
);
COMMENT ON TYPE retally.finding IS
'What one statement found of one total of a show: the keys adrift and by how much in all.';
