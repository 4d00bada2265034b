-- Refuses a repair of a show that would change more than setting.repair_share of its rows that hold
-- anything, or of the core units in one total, or set all of p_totals to zero: then it may be the
-- procs that are wrong. p_changes: what was written in p_totals; null: what would be written now.
-- Locks and writes nothing. Raises RT015, which says what was seen.
CREATE OR REPLACE FUNCTION retally.refuse_large_repair(
    p_show_id text, p_totals text[], p_changes retally.change[]
)
RETURNS void
LANGUAGE plpgsql STABLE
-- nothing but the system's own operators, whoever may create in the schema public
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '64MB'
-- what every pass reads is in memory
SET random_page_cost = 1.1
-- hashing the keys is several times faster than sorting them
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_changes retally.change[] := coalesce(
        p_changes,
        ARRAY(
            SELECT ROW(d.total, d.key, d.slot, d.stored, d.booked)::retally.change
            FROM retally.drift_in(ARRAY[p_show_id], p_totals) AS d
            WHERE d.stored IS NOT NULL
        )
    );
    v_seen record;
    v_share numeric;
    v_limits text;
BEGIN
    IF cardinality(v_changes) = 0 THEN
        RETURN;
    END IF;
    SELECT s.repair_share INTO v_share
    FROM retally.setting AS s;

    WITH slots AS (
        SELECT
            s.total,
            s.key,
            a.slot LIKE '%cores' AS in_cores,
            coalesce(c.before, a.amount) AS before,
            coalesce(c.after, a.amount) AS after
        -- all rows of the show, so that a tick with a handful of subscriptions may mend one
        FROM retally.stored_in(ARRAY[p_show_id], retally.totals(), TRUE) AS s
        CROSS JOIN LATERAL (
            VALUES
            ('cores', s.cores),
            ('gpus', s.gpus),
            ('local_cores', s.local_cores),
            ('local_gpus', s.local_gpus)
        ) AS a (slot, amount)
        LEFT JOIN unnest(v_changes) AS c
            ON s.total = c.total AND s.key = c.key AND a.slot = c.slot
    ),

    sums AS (
        SELECT
            s.total,
            -- thousands of finished jobs and layers hold nothing: they would hide any change
            count(DISTINCT s.key) FILTER (WHERE s.before <> 0 OR s.after <> 0) AS rows,
            count(DISTINCT s.key) FILTER (WHERE s.before <> s.after) AS changed,
            sum(abs(s.after)) AS remaining,
            sum(s.before) FILTER (WHERE s.in_cores) AS before,
            sum(s.after) FILTER (WHERE s.in_cores) AS after,
            coalesce(sum(abs(s.after - s.before)) FILTER (WHERE s.in_cores), 0) AS core_units,
            greatest(
                sum(abs(s.before)) FILTER (WHERE s.in_cores),
                sum(abs(s.after)) FILTER (WHERE s.in_cores)
            ) AS core_units_there
        FROM slots AS s
        GROUP BY s.total
    )

    SELECT
        t.total,
        t.before,
        t.after,
        t.core_units,
        -- each total by itself, as the same core units are in all five
        t.core_units > v_share * t.core_units_there AS too_many_core_units,
        sum(t.rows) OVER () AS rows,
        sum(t.changed) OVER () AS changed,
        sum(t.remaining) FILTER (WHERE t.total = ANY (p_totals)) OVER () = 0 AS all_to_zero
    INTO v_seen
    FROM sums AS t
    ORDER BY
        t.core_units / nullif(t.core_units_there, 0) DESC NULLS LAST,
        array_position(retally.totals(), t.total)
    LIMIT 1;

    v_limits := concat_ws(
        ', ',
        CASE WHEN v_seen.all_to_zero THEN 'all to zero' END,
        CASE WHEN v_seen.changed > v_share * v_seen.rows THEN 'too many rows' END,
        CASE WHEN v_seen.too_many_core_units THEN 'too many core units' END
    );
    IF v_limits <> '' THEN
        RAISE EXCEPTION 'the repair of show "%" is refused (%): it would change % of % rows%',
            coalesce(
                (
                    SELECT s.str_name::text FROM public.show AS s
                    WHERE s.pk_show::text = p_show_id
                ), p_show_id
            ),
            v_limits, v_seen.changed, v_seen.rows,
            CASE
                WHEN v_seen.core_units > 0
                    THEN format(
                        ', and the core units in %s by %s, from %s to %s',
                        v_seen.total, v_seen.core_units, v_seen.before, v_seen.after
                    )
                ELSE ''
            END
            USING ERRCODE = 'RT015',
                HINT = format(
                    'See `retally drift`. At most %s %% may change at once '
                    '(retally.setting.repair_share). If the procs are right: '
                    '`retally recompute --force`, or CALL retally.repair_show(%L, true).',
                    trim_scale(round(100 * v_share, 2)), p_show_id
                );
    END IF;
END
$$;
COMMENT ON FUNCTION retally.refuse_large_repair(text, text[], retally.change[]) IS
'Refuses a repair that would change too much of a show at once.';
