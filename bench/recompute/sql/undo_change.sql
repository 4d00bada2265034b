-- The procs as they were before apply_change.sql.
DELETE FROM public.proc AS p
USING bench.booked AS b
WHERE p.pk_proc = b.pk_proc;

INSERT INTO public.proc
SELECT r.* FROM bench.released AS r; -- noqa: AM04
