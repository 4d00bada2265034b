-- drift_in() with the names that people know the shows and rows by.
-- Joined rather than asked row by row: half a million names take seconds so, not minutes.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.named_drift(p_show_ids text[], p_totals text[])
RETURNS TABLE (
    show_name text, total text, name text, key text, slot text, stored numeric, booked numeric
)
LANGUAGE plpgsql STABLE
-- nothing but the system's own operators, whoever may create in the schema public
SET search_path = pg_catalog, pg_temp
-- compiling the plan costs more than running it
SET jit = off
SET work_mem = '64MB'
-- what every pass reads is in memory
SET random_page_cost = 1.1
-- hashing the keys is several times faster than sorting them
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_read text[] := retally.read_for(p_show_ids);
BEGIN
    RETURN QUERY
    WITH drift AS MATERIALIZED (
        SELECT d.*
        FROM retally.drift_in(v_read, p_totals) AS d
        WHERE d.show_id = ANY (p_show_ids)
    )

    SELECT
        s.str_name::text,
        d.total,
        coalesce(n.name, d.key),
        d.key,
        d.slot,
        d.stored,
        d.booked
    FROM drift AS d
    INNER JOIN public.show AS s ON d.show_id = s.pk_show::text
    LEFT JOIN retally.names() AS n ON d.total = n.total AND d.key = n.key
    ORDER BY
        s.str_name, d.show_id, array_position(retally.totals(), d.total), d.key, d.slot;
END
$$;
COMMENT ON FUNCTION retally.named_drift(text[], text[]) IS
'drift_in() with the names that people know the shows and rows by.';
