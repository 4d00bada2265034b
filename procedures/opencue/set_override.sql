-- Sets the farm-wide override and flips every show that it concerns, one transaction per show.
-- p_override: all or none, every show is managed or is not; per-show, each as set_managed() asked.
-- A show that cannot be flipped now is in problems, a WARNING, and the next call's. Result: shows
-- flipped, shows_left. Locks and writes as flip(), change_override(). Commits: not inside a block.
-- Raises 22023 for another value, RT005 when the override itself is locked by another session.
CREATE OR REPLACE PROCEDURE retally.set_override(
    p_override text,
    INOUT shows bigint DEFAULT NULL,
    INOUT shows_left bigint DEFAULT NULL,
    INOUT problems text[] DEFAULT NULL
)
LANGUAGE plpgsql
AS $$
DECLARE
    v_show record;
    v_done record;
    v_failure text;
BEGIN
    -- inside a transaction block this fails, before any work is done
    COMMIT;
    -- the role or the database may have another default
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    IF p_override IS NULL OR p_override NOT IN ('per-show', 'all', 'none') THEN
        RAISE EXCEPTION 'there is no override "%"', p_override
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Say per-show, all or none.';
    END IF;
    PERFORM retally.change_override(
        p_override, ARRAY(SELECT s.pk_show::text FROM public.show AS s)
    );
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

    shows := 0;
    shows_left := 0;
    problems := '{}';
    FOR v_show IN
        SELECT
            s.pk_show::text AS show_id,
            s.str_name::text AS name
        FROM public.show AS s
        ORDER BY s.str_name, s.pk_show
    LOOP
        BEGIN
            SELECT f.*
            INTO v_done
            FROM retally.flip(v_show.show_id, NULL) AS f;
            IF v_done.problems IS NOT NULL THEN
                shows := shows + 1;
                problems := problems || ARRAY(
                    SELECT format('show %s: %s', v_show.name, p.problem)
                    FROM unnest(v_done.problems) AS p (problem)
                );
            END IF;
        EXCEPTION
            WHEN OTHERS THEN
                -- kept with its SQLSTATE; the next show must not suffer for this one
                v_failure := format('show %s: %s (SQLSTATE %s)', v_show.name, sqlerrm, sqlstate);
                RAISE WARNING '%', v_failure;
                shows_left := shows_left + 1;
                problems := problems || v_failure;
        END;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE retally.set_override (text, bigint, bigint, text []) IS
'Sets the farm-wide override and flips every show that it concerns.';
