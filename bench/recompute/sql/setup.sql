-- What the benchmark keeps beside the farm: which shows are measured, what is drawn, and a table
-- whose counter tells that all statistics sent before have arrived.
CREATE SCHEMA bench;
CREATE TABLE bench.managed AS
SELECT s.pk_show
FROM public.show AS s;
CREATE TABLE bench.draw (
    seed text NOT NULL,
    procs integer NOT NULL
);
CREATE TABLE bench.marker (nr integer NOT NULL);
ALTER TABLE public.proc SET (autovacuum_enabled = FALSE);
ALTER TABLE public.subscription SET (autovacuum_enabled = FALSE);
ALTER TABLE public.layer_resource SET (autovacuum_enabled = FALSE);
ALTER TABLE public.job_resource SET (autovacuum_enabled = FALSE);
ALTER TABLE public.folder_resource SET (autovacuum_enabled = FALSE);
ALTER TABLE public.point SET (autovacuum_enabled = FALSE);
