-- The names that look most like the wanted one, best first, at most three, for a HINT.
-- Likeness: shared letter pairs over all letter pairs (Dice), upper and lower case alike.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.nearest_names(p_wanted text, p_names text[])
RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    WITH pairs AS (
        SELECT DISTINCT
            n.name,
            substr(' ' || lower(n.name) || ' ', g.i, 2) AS pair
        FROM unnest(p_names || p_wanted) AS n (name)
        CROSS JOIN LATERAL generate_series(1, length(n.name) + 1) AS g (i)
    ),

    sizes AS (
        SELECT
            p.name,
            count(*) AS pairs
        FROM pairs AS p
        GROUP BY p.name
    ),

    likeness AS (
        SELECT
            s.name,
            2.0 * (
                SELECT count(*)
                FROM pairs AS a
                INNER JOIN pairs AS b ON a.pair = b.pair AND b.name = p_wanted
                WHERE a.name = s.name
            ) / (s.pairs + w.pairs) AS score
        FROM sizes AS s
        INNER JOIN sizes AS w ON w.name = p_wanted
        WHERE s.name <> p_wanted
    ),

    best AS (
        SELECT
            l.name,
            l.score
        FROM likeness AS l
        WHERE l.score >= 0.3
        ORDER BY l.score DESC, l.name COLLATE "C" ASC
        LIMIT 3
    )

    SELECT coalesce(array_agg(b.name ORDER BY b.score DESC, b.name COLLATE "C" ASC), '{}')
    FROM best AS b
$$;
COMMENT ON FUNCTION retally.nearest_names(text, text[]) IS
'The up to three names that look most like the wanted one.';
