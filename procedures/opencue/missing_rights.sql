-- Those of rights(p_for) that the role p_role does not have; columns: only those that it lacks.
-- Locks and writes nothing. Raises 22023 for another p_for, 42704 for an unknown role.
CREATE OR REPLACE FUNCTION retally.missing_rights(p_role text, p_for text)
RETURNS TABLE (kind text, object text, privilege text, columns text[])
LANGUAGE sql STABLE
AS $$
    -- by the catalog: a name would have to be looked up with rights that may be missing
    WITH wanted AS (
        SELECT
            r.*,
            n.oid AS schema_id,
            c.oid AS table_id
        FROM retally.rights(p_for) AS r
        LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = split_part(r.object, '.', 1)
        LEFT JOIN pg_catalog.pg_class AS c
            ON
                n.oid = c.relnamespace
                AND c.relname = split_part(r.object, '.', 2)
    )

    SELECT
        w.kind,
        w.object,
        w.privilege,
        l.lacking
    FROM wanted AS w
    CROSS JOIN
        LATERAL (
            SELECT array_agg(k.column_name ORDER BY k.place) AS lacking
            FROM unnest(w.columns) WITH ORDINALITY AS k (column_name, place)
            LEFT JOIN pg_catalog.pg_attribute AS a
                ON w.table_id = a.attrelid AND k.column_name = a.attname
            WHERE
                has_column_privilege(p_role::name, w.table_id, a.attnum, w.privilege) IS NOT TRUE
        ) AS l
    WHERE
        CASE
            WHEN w.kind = 'schema'
                THEN has_schema_privilege(p_role::name, w.schema_id, w.privilege) IS NOT TRUE
            WHEN w.kind = 'routines'
                THEN EXISTS (
                    SELECT FROM pg_catalog.pg_proc AS p
                    WHERE
                        p.pronamespace = w.schema_id
                        AND NOT has_function_privilege(p_role::name, p.oid, w.privilege)
                )
            WHEN w.columns IS NULL
                THEN has_table_privilege(p_role::name, w.table_id, w.privilege) IS NOT TRUE
            ELSE l.lacking IS NOT NULL
        END
$$;
COMMENT ON FUNCTION retally.missing_rights(text, text) IS
'The rights that a role lacks for the work of a worker, a dispatcher or a reader.';
