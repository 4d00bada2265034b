-- Admission: who serves a scope, so that caps can be counted in one dispatcher's memory.

CREATE TABLE retally.lease (
    scope text CONSTRAINT lease_pk PRIMARY KEY,
    token bigint NOT NULL,
    holder text,
    expires_at timestamptz NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    wanted_by text,
    wanted_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE retally.lease IS
'Which dispatcher serves a scope, and counts its caps in memory. Written by take_lease(), '
'keep_leases(), end_leases() and flips.';
COMMENT ON COLUMN retally.lease.token IS
'Goes up with each taking; a booking under another one is refused.';
COMMENT ON COLUMN retally.lease.holder IS
'The dispatcher; null when nobody serves the scope and no booking needs a token.';
COMMENT ON COLUMN retally.lease.wanted_by IS
'Another dispatcher that was refused a moment ago; it gets the scope when its turn comes.';

ALTER TABLE retally.setting RENAME COLUMN notify_releases TO notify;
COMMENT ON COLUMN retally.setting.notify IS
'Releases of managed shows'' procs and changes of caps also send pg_notify(): acct_release, '
'acct_limit_change.';
