-- Rebuilds the point totals of a show from its procs and reports it as one result row.
-- p_show: name or id. p_wait: wait for busy rows (rows_deferred: those that stayed busy).
-- Result, locks, writes and errors as of mend(); not committed here.
CREATE OR REPLACE PROCEDURE retally.recompute_point(
    p_show text,
    p_wait boolean DEFAULT TRUE,
    INOUT rows_adrift bigint DEFAULT NULL,
    INOUT rows_changed bigint DEFAULT NULL,
    INOUT rows_deferred bigint DEFAULT NULL,
    INOUT rows_failed bigint DEFAULT NULL,
    INOUT core_units numeric DEFAULT NULL,
    INOUT gpus numeric DEFAULT NULL,
    INOUT problems text[] DEFAULT NULL
)
LANGUAGE plpgsql
AS $$
BEGIN
    SELECT s.*
    INTO rows_adrift, rows_changed, rows_deferred, rows_failed, core_units, gpus, problems
    FROM retally.recompute_in_one(p_show, ARRAY['point'], p_wait) AS s;
END
$$;
COMMENT ON PROCEDURE retally.recompute_point (
    text, boolean, bigint, bigint, bigint, bigint, numeric, numeric, text []
) IS 'Rebuilds the point totals of a show from its procs.';
