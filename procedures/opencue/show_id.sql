-- The id (pk_show) of the show with this id, else of the show with this name.
-- Locks and writes nothing.
-- Raises RT001 when there is none, RT002 when several shows have the name.
CREATE OR REPLACE FUNCTION retally.show_id(p_show text)
RETURNS text
LANGUAGE plpgsql STABLE
-- nothing but the system's own operators, whoever may create in the schema public
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_ids text[];
    v_near text[];
BEGIN
    IF EXISTS (SELECT FROM public.show AS s WHERE s.pk_show::text = p_show) THEN
        RETURN p_show;
    END IF;
    SELECT coalesce(array_agg(s.pk_show::text ORDER BY s.pk_show), '{}')
    INTO v_ids
    FROM public.show AS s
    WHERE s.str_name::text = p_show;

    IF cardinality(v_ids) = 1 THEN
        RETURN v_ids[1];
    ELSIF cardinality(v_ids) > 1 THEN
        RAISE EXCEPTION 'show "%" is ambiguous: %', p_show, array_to_string(v_ids, ', ')
            USING ERRCODE = 'RT002', HINT = 'Name it by one of these ids.';
    END IF;

    SELECT retally.nearest_names(coalesce(p_show, ''), array_agg(s.str_name::text))
    INTO v_near
    FROM public.show AS s;
    RAISE EXCEPTION 'there is no show "%"', p_show
        USING ERRCODE = 'RT001',
            HINT = CASE
                WHEN cardinality(v_near) > 0
                    THEN 'Did you mean ' || array_to_string(v_near, ' or ') || '?'
                ELSE '`retally managed` lists them, or SELECT * FROM retally.shows().'
            END;
END
$$;
COMMENT ON FUNCTION retally.show_id(text) IS 'The id of the show with this id or name.';
