-- The shows that the ticks should serve and do not. fault: failing or refused (the latest passes of
-- a tick have failed, or what they would repair is refused: tick, error), or late (rebuilt shows
-- only: no success over totals for p_after and three of its intervals; last_pass is the oldest
-- success, null when none is known). A show whose flag was set within p_after is given that long.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.unserved_shows(p_after interval)
RETURNS TABLE (
    show_id text, name text, rebuilt boolean, fault text, tick text, totals text[],
    last_pass timestamptz, error text
)
LANGUAGE sql VOLATILE
AS $$
    WITH latest AS (
        SELECT
            s.show_id,
            s.name,
            t.total,
            t.place,
            (
                SELECT max(p.succeeded_at)
                FROM retally.pass AS p
                WHERE p.scope = s.show_id AND p.total = t.total
            ) AS succeeded_at
        FROM retally.shows() AS s
        CROSS JOIN unnest(retally.totals()) WITH ORDINALITY AS t (total, place)
        WHERE s.rebuilt
    )

    SELECT
        s.show_id,
        s.name,
        s.rebuilt,
        CASE
            WHEN EXISTS (
                SELECT FROM retally.pass AS p
                WHERE p.scope = d.scope AND p.tick = d.tick AND p.action = 'refused'
            ) THEN 'refused'
            ELSE 'failing'
        END AS fault,
        d.tick,
        NULL::text[] AS totals,
        NULL::timestamptz AS last_pass,
        d.error
    FROM retally.due AS d
    INNER JOIN retally.shows() AS s ON d.scope = s.show_id
    WHERE d.failures > 0 AND (s.rebuilt OR s.mode IS DISTINCT FROM 'off')
    UNION ALL
    SELECT
        l.show_id,
        l.name,
        TRUE,
        'late',
        NULL,
        array_agg(l.total ORDER BY l.place),
        CASE WHEN bool_and(l.succeeded_at IS NOT NULL) THEN min(l.succeeded_at) END,
        NULL
    FROM latest AS l
    CROSS JOIN
        LATERAL (
            SELECT clock_timestamp() - greatest(p_after, 3 * max(d.every)) AS bound
            FROM retally.due AS d
            WHERE d.scope = l.show_id
        ) AS b
    WHERE
        coalesce(l.succeeded_at < b.bound, TRUE)
        AND NOT EXISTS (
            SELECT FROM retally.scope_flag AS f
            WHERE f.scope = l.show_id AND f.set_at > clock_timestamp() - p_after
        )
    GROUP BY l.show_id, l.name
    ORDER BY name ASC, show_id ASC, fault ASC
$$;
COMMENT ON FUNCTION retally.unserved_shows(interval) IS
'The shows that the ticks should serve and do not.';
