-- What many workers share, what their passes found, and what a repair did.

ALTER TABLE retally.setting ADD COLUMN repair_share numeric NOT NULL DEFAULT 0.5;
ALTER TABLE retally.setting ADD CONSTRAINT setting_repair_share_is_a_share
CHECK (repair_share BETWEEN 0 AND 1);
ALTER TABLE retally.setting ADD COLUMN history_every interval NOT NULL DEFAULT '1 minute';
ALTER TABLE retally.setting ADD CONSTRAINT setting_history_every_is_not_negative
CHECK (history_every >= interval '0');
ALTER TABLE retally.setting ADD COLUMN history_age interval NOT NULL DEFAULT '7 days';
ALTER TABLE retally.setting ADD CONSTRAINT setting_history_age_is_not_negative
CHECK (history_age >= interval '0');
ALTER TABLE retally.setting ADD COLUMN ledger_age interval NOT NULL DEFAULT '90 days';
ALTER TABLE retally.setting ADD CONSTRAINT setting_ledger_age_is_not_negative
CHECK (ledger_age >= interval '0');
-- Without its row nothing would be served, and nothing found adrift.
CREATE RULE setting_keeps_its_row AS ON DELETE TO retally.setting DO INSTEAD NOTHING; -- noqa: PRS
COMMENT ON COLUMN retally.setting.repair_share IS
'A repair that would change more than this share of a show''s rows or core units is refused.';
COMMENT ON COLUMN retally.setting.history_every IS
'How often a quiet pass leaves a row in retally.history.';
COMMENT ON COLUMN retally.setting.history_age IS 'Older rows of retally.history are deleted.';
COMMENT ON COLUMN retally.setting.ledger_age IS
'Older repairs are deleted from retally.run and retally.ledger.';

CREATE TABLE retally.scope_mode (
    scope text CONSTRAINT scope_mode_pk PRIMARY KEY,
    mode text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    set_by text NOT NULL DEFAULT current_user,
    CONSTRAINT scope_mode_is_known CHECK (mode IN ('off', 'watch', 'repair'))
);
COMMENT ON TABLE retally.scope_mode IS
'What the ticks do to a scope while it is unmanaged; one without a row follows the worker''s '
'setting unmanaged.';

-- Both are made anew by the next pass; nothing is lost with them.
DROP TABLE retally.pass;
CREATE UNLOGGED TABLE retally.pass (
    scope text NOT NULL,
    tick text NOT NULL,
    total text NOT NULL,
    action text NOT NULL,
    worker text NOT NULL,
    finished_at timestamptz NOT NULL,
    seconds double precision NOT NULL,
    rows_adrift bigint NOT NULL,
    rows_changed bigint NOT NULL,
    rows_deferred bigint NOT NULL,
    rows_failed bigint NOT NULL,
    core_units_adrift numeric NOT NULL,
    gpus_adrift numeric NOT NULL,
    problems text[] NOT NULL,
    passes bigint NOT NULL,
    history_at timestamptz NOT NULL,
    succeeded_at timestamptz,
    CONSTRAINT pass_pk PRIMARY KEY (scope, tick, total),
    CONSTRAINT pass_action_is_known
    CHECK (action IN ('rebuilt', 'watched', 'repaired', 'refused', 'failed'))
) WITH (fillfactor = 50);
COMMENT ON TABLE retally.pass IS
'The latest pass over each total of each scope. Unlogged: a tick should cost no WAL.';
COMMENT ON COLUMN retally.pass.tick IS 'The tick, or by hand.';
COMMENT ON COLUMN retally.pass.action IS
'What became of what was found adrift: all but rebuilt and repaired have left it as it is.';
COMMENT ON COLUMN retally.pass.succeeded_at IS
'When a pass last did what it was to do; null: none has.';
COMMENT ON COLUMN retally.pass.passes IS 'How many passes there were.';
COMMENT ON COLUMN retally.pass.history_at IS 'When one of them last left a row in history.';

CREATE UNLOGGED TABLE retally.history (
    finished_at timestamptz NOT NULL,
    scope text NOT NULL,
    tick text NOT NULL,
    total text NOT NULL,
    action text NOT NULL,
    worker text NOT NULL,
    seconds double precision NOT NULL,
    rows_adrift bigint NOT NULL,
    rows_changed bigint NOT NULL,
    rows_deferred bigint NOT NULL,
    rows_failed bigint NOT NULL,
    core_units_adrift numeric NOT NULL,
    gpus_adrift numeric NOT NULL
);
CREATE INDEX history_scope_total ON retally.history (scope, total, finished_at);
CREATE INDEX history_finished_at ON retally.history (finished_at);
COMMENT ON TABLE retally.history IS
'Passes: one for each total of each scope in setting.history_every, and all that found something. '
'Unlogged: a tick should cost no WAL; so it is empty after a crash.';

DROP TABLE retally.due;
CREATE UNLOGGED TABLE retally.due (
    tick text NOT NULL,
    scope text NOT NULL,
    due_at timestamptz NOT NULL,
    every interval NOT NULL,
    claimed_by text NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    error text,
    CONSTRAINT due_pk PRIMARY KEY (tick, scope)
) WITH (fillfactor = 50);
COMMENT ON TABLE retally.due IS
'When each scope is due again in each tick. Claiming a scope moves its due time on.';
COMMENT ON COLUMN retally.due.every IS
'How far ahead the due time was set: the interval of the tick, or the pause after a failure.';
COMMENT ON COLUMN retally.due.failures IS 'How many passes running have failed.';

CREATE UNLOGGED TABLE retally.worker (
    worker text NOT NULL,
    tick text NOT NULL,
    every interval NOT NULL,
    seen_at timestamptz NOT NULL,
    CONSTRAINT worker_pk PRIMARY KEY (worker, tick)
) WITH (fillfactor = 50);
COMMENT ON TABLE retally.worker IS
'The workers, and when each was last seen in each tick: due scopes are shared out among them.';

CREATE TABLE retally.run (
    run bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT run_pk PRIMARY KEY,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    worker text NOT NULL,
    cause text NOT NULL,
    forced boolean NOT NULL,
    undoes bigint
);
CREATE INDEX run_begun_at ON retally.run (begun_at);
COMMENT ON TABLE retally.run IS 'The repairs of unmanaged scopes, and what undid them.';
COMMENT ON COLUMN retally.run.cause IS 'What asked for it: a tick, or a call by hand.';
COMMENT ON COLUMN retally.run.forced IS 'Its limits were lifted by whoever asked.';
COMMENT ON COLUMN retally.run.undoes IS 'The run that this one has put back.';

CREATE TABLE retally.ledger (
    run bigint NOT NULL CONSTRAINT ledger_run_fk REFERENCES retally.run ON DELETE CASCADE,
    scope text NOT NULL,
    total text NOT NULL,
    key text NOT NULL,
    slot text NOT NULL,
    before numeric NOT NULL,
    after numeric NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    cause text,
    CONSTRAINT ledger_pk PRIMARY KEY (run, scope, total, key, slot)
);
COMMENT ON TABLE retally.ledger IS
'What the repairs changed, slot by slot, in the unit in which the farm stores it.';
COMMENT ON COLUMN retally.ledger.cause IS 'What had made the value wrong, where that is known.';

CREATE TABLE retally.installed (
    only_row boolean CONSTRAINT installed_pk PRIMARY KEY DEFAULT TRUE,
    program text NOT NULL,
    digest text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    installed_by text NOT NULL DEFAULT current_user,
    CONSTRAINT installed_has_one_row CHECK (only_row)
);
COMMENT ON TABLE retally.installed IS
'Which routines are installed: the version of retally that brought them, and their digest.';

CREATE TYPE retally.amount AS (
    key text,
    cores numeric,
    gpus numeric,
    local_cores numeric,
    local_gpus numeric
);
COMMENT ON TYPE retally.amount IS
'What a row of a total holds, or is to hold; cores in core units, local slots null where none.';

CREATE TYPE retally.change AS (
    total text,
    key text,
    slot text,
    before numeric,
    after numeric
);
COMMENT ON TYPE retally.change IS 'A slot of a total that was written, before and after.';
