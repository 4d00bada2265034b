-- Keys and draws come from a hash of (seed, kind, number): the same seed gives the same farm, on
-- every server version, and the order in which rows are made does not matter.
-- farm_size gets one row, the size that was asked for; every later step reads it.
-- JIT would add 0.8 s to most of the big statements.
SET LOCAL jit = off;
SET LOCAL work_mem = '64MB';

CREATE OR REPLACE FUNCTION pg_temp.farm_key(p_seed bigint, p_kind text, p_number bigint)
RETURNS text
LANGUAGE sql IMMUTABLE
AS $$
    SELECT md5(p_seed::text || ':' || p_kind || ':' || p_number::text)::uuid::text
$$;
COMMENT ON FUNCTION pg_temp.farm_key(bigint, text, bigint)
IS 'The key of the row with this number, UUID text as the farm has it.';

CREATE OR REPLACE FUNCTION pg_temp.farm_draw(p_seed bigint, p_kind text, p_number bigint)
RETURNS double precision
LANGUAGE sql IMMUTABLE
AS $$
    SELECT
        ('x' || left(md5(p_seed::text || '/' || p_kind || '/' || p_number::text), 8))::bit(32)::bigint
        / 4294967296::double precision
$$;
COMMENT ON FUNCTION pg_temp.farm_draw(bigint, text, bigint)
IS 'A number from 0 up to, not including, 1.';

CREATE TEMPORARY TABLE farm_size (
    shows integer NOT NULL,
    hosts integer NOT NULL, -- noqa: RF04
    allocations integer NOT NULL,
    folders integer NOT NULL,
    departments integer NOT NULL,
    jobs integer NOT NULL,
    finished_jobs integer NOT NULL,
    layers integer NOT NULL,
    procs integer NOT NULL,
    local_share numeric NOT NULL,
    gpu_share numeric NOT NULL,
    seed bigint NOT NULL
);
COMMENT ON TABLE farm_size
IS 'The size asked for: folders and departments per show, layers per job, the rest the farm''s.';
