-- The journal of booked and released procs; what a pass finds, and what it holds while it sums
-- again.

ALTER TABLE retally.scope_flag ADD COLUMN journaled boolean NOT NULL DEFAULT FALSE;
ALTER TABLE retally.scope_flag ADD CONSTRAINT scope_flag_journaled_is_managed
CHECK (managed OR NOT journaled);
COMMENT ON COLUMN retally.scope_flag.journaled IS
'What its procs book and release goes into retally.journal, by triggers on the farm''s proc, and '
'ticks fold that into the totals. Written by set_journal() and flip() only.';

-- No key and no index: it is only ever appended to, and read and deleted as a whole.
CREATE TABLE retally.journal (
    scope text NOT NULL,
    host_id text,
    layer_id text,
    job_id text,
    local boolean NOT NULL, -- noqa: RF04
    cores bigint NOT NULL,
    gpus bigint NOT NULL
) WITH (
    -- what a fold has deleted is read again until it is vacuumed
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000
);
COMMENT ON TABLE retally.journal IS
'What procs of journaled scopes have booked (above zero) and released (below) since the last fold.';
COMMENT ON COLUMN retally.journal.cores IS 'Core units.';

ALTER TABLE retally.pass DROP CONSTRAINT pass_action_is_known;
ALTER TABLE retally.pass ADD CONSTRAINT pass_action_is_known
CHECK (action IN ('rebuilt', 'folded', 'watched', 'repaired', 'refused', 'failed'));
COMMENT ON COLUMN retally.pass.action IS
'What became of what was found adrift: all but rebuilt, folded and repaired have left it as it is.';

CREATE TYPE retally.comparison AS (
    show_id text,
    total text,
    key text,
    kind text,
    was_cores numeric,
    was_gpus numeric,
    was_local_cores numeric,
    was_local_gpus numeric,
    cores numeric,
    gpus numeric,
    local_cores numeric,
    local_gpus numeric
);
COMMENT ON TYPE retally.comparison IS
'What a row of a total holds (was_…, null: whatever that is) and what its procs say.';

CREATE TYPE retally.seizure AS (
    scope text,
    total text,
    held text [],
    busy text []
);
COMMENT ON TYPE retally.seizure IS
'Rows of a total of a scope, by key: those that a pass has locked, and those that others hold.';

CREATE TYPE retally.delta AS (
    scope text,
    total text,
    key text,
    cores numeric,
    gpus numeric,
    local_cores numeric,
    local_gpus numeric
);
COMMENT ON TYPE retally.delta IS
'What is to be added to a row of a total; cores in core units, local slots null where none.';
