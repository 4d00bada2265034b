-- The dispatch path: the flag as bookings read it, the farm-wide override, what a release tells.

ALTER TABLE retally.managed_scope RENAME TO scope_flag;
ALTER TABLE retally.scope_flag RENAME CONSTRAINT managed_scope_pk TO scope_flag_pk;
ALTER TABLE retally.scope_flag RENAME COLUMN managed_since TO set_at;
ALTER TABLE retally.scope_flag RENAME COLUMN managed_by TO set_by;
ALTER TABLE retally.scope_flag ADD COLUMN asked boolean NOT NULL DEFAULT TRUE;
ALTER TABLE retally.scope_flag ADD COLUMN managed boolean NOT NULL DEFAULT TRUE;
ALTER TABLE retally.scope_flag ALTER COLUMN asked DROP DEFAULT;
ALTER TABLE retally.scope_flag ALTER COLUMN managed DROP DEFAULT;
COMMENT ON TABLE retally.scope_flag IS
'The feature flag of each scope. Written by set_managed() and set_override() only: a flip has to '
'wait for bookings in flight. A scope without a row follows setting.override.';
COMMENT ON COLUMN retally.scope_flag.asked IS
'What set_managed() asked for; in force while the override is per-show.';
COMMENT ON COLUMN retally.scope_flag.managed IS
'What is in force: bookings through retally write no total of this scope.';

ALTER TABLE retally.setting ADD COLUMN override text NOT NULL DEFAULT 'per-show';
ALTER TABLE retally.setting ADD CONSTRAINT setting_override_is_known
CHECK (override IN ('per-show', 'all', 'none'));
ALTER TABLE retally.setting ADD COLUMN longest_flip interval NOT NULL DEFAULT '5 seconds';
ALTER TABLE retally.setting ADD CONSTRAINT setting_longest_flip_is_short
CHECK (longest_flip BETWEEN interval '0' AND interval '1 hour');
ALTER TABLE retally.setting ADD COLUMN notify_releases boolean NOT NULL DEFAULT FALSE;
COMMENT ON COLUMN retally.setting.override IS
'Which flag is in force: each show''s own (per-show), or on (all) or off (none) for every show. '
'Changed by CALL retally.set_override(), never by UPDATE.';
COMMENT ON COLUMN retally.setting.longest_flip IS
'How long a change of a flag waits for the bookings in flight; new ones wait behind it.';
COMMENT ON COLUMN retally.setting.notify_releases IS
'A release of a managed show''s proc also sends pg_notify(''acct_release'', …).';

CREATE TYPE retally.booking AS (
    nr integer,
    proc text,
    show text,
    alloc text,
    host text,
    job text,
    layer text,
    frame text,
    cores bigint,
    mem_kb bigint,
    gpus bigint,
    gpu_mem_kb bigint,
    local boolean
);
COMMENT ON TYPE retally.booking IS
'A proc that a batch books or releases: nr is its place in the batch, the others are ids and '
'amounts; cores in core units.';
