-- Rebuilds the totals of every show that the ticks serve: managed shows in one transaction, since
-- no booking waits for their totals, each other show in one of its own, and so each show whose
-- rows were busy, or where the one transaction failed.
-- p_wait: wait for busy rows. p_unmanaged_too: every show of the farm instead.
-- A show that fails is reported as a WARNING and in problems, and holds up no other one.
-- Result: the sums of mend() over the shows, shows (rebuilt) and shows_failed.
-- Locks and writes as mend(). Commits: not inside a transaction block.
CREATE OR REPLACE PROCEDURE retally.recompute_all(
    p_wait boolean DEFAULT TRUE,
    p_unmanaged_too boolean DEFAULT FALSE,
    INOUT shows bigint DEFAULT NULL,
    INOUT shows_failed bigint DEFAULT NULL,
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
DECLARE
    v_ids text[];
    v_names text[];
    v_managed text[];
    v_own retally.finding[];
    v_passes retally.pass[];
    v_begun text[] := '{}';
    v_done text[] := '{}';
    v_findings retally.finding[];
    v_one record;
    v_folded boolean;
    v_failure text;
BEGIN
    -- inside a transaction block this fails, before any work is done
    COMMIT;
    -- the role or the database may have another default
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SELECT 0, 0, 0, 0, 0, 0, 0, 0, '{}'
    INTO
        shows, shows_failed, rows_adrift, rows_changed, rows_deferred, rows_failed, core_units,
        gpus, problems;
    SELECT
        coalesce(array_agg(s.show_id ORDER BY s.name, s.show_id), '{}'),
        coalesce(array_agg(s.name ORDER BY s.name, s.show_id), '{}'),
        coalesce(array_agg(s.show_id) FILTER (WHERE s.managed), '{}')
    INTO v_ids, v_names, v_managed
    FROM retally.shows() AS s
    WHERE s.rebuilt OR p_unmanaged_too;
    BEGIN
        PERFORM retally.fold(v_ids, p_wait);
        v_folded := TRUE;
    EXCEPTION
        WHEN OTHERS THEN
            v_folded := FALSE;
    END;
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    FOR v_turn IN 1 .. cardinality(v_ids) LOOP
        EXIT WHEN v_folded;
        BEGIN
            PERFORM retally.fold(v_ids[v_turn:v_turn], p_wait);
        EXCEPTION
            -- what is not folded is no drift, and stays for the next fold
            WHEN OTHERS THEN
                v_failure := format(
                    'show %s: its journal is not folded: %s (SQLSTATE %s)',
                    v_names[v_turn], sqlerrm, sqlstate
                );
                RAISE WARNING '%', v_failure;
                problems := problems || v_failure;
        END;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    END LOOP;
    BEGIN
        v_findings := ARRAY(
            SELECT f
            FROM retally.findings(
                ARRAY(SELECT i.id FROM unnest(v_ids) AS i (id) WHERE i.id <> ALL (v_managed)),
                retally.totals()
            ) AS f
        );
    EXCEPTION
        WHEN OTHERS THEN
            -- the data of one show can break the statement for all: each is looked at by itself
            v_findings := NULL;
    END;

    -- turn 0 is that of all managed shows
    FOR v_turn IN 0 .. cardinality(v_ids) LOOP
        CONTINUE WHEN v_turn > 0 AND v_ids[v_turn] = ANY (v_done);
        BEGIN
            IF v_turn = 0 THEN
                v_passes := ARRAY(
                    SELECT r FROM retally.rebuild(v_managed, retally.totals(), FALSE) AS r
                );
            ELSE
                v_own := ARRAY(SELECT f FROM unnest(v_findings) AS f WHERE f.show_id = v_ids[v_turn]);
                IF cardinality(v_own) = 0 THEN
                    v_own := ARRAY(
                        SELECT f FROM retally.findings(v_ids[v_turn:v_turn], retally.totals()) AS f
                    );
                END IF;
                v_passes := ARRAY(
                    SELECT m
                    FROM retally.mend_by_hand(v_own, p_wait, v_ids[v_turn] = ANY (v_begun)) AS m
                );
            END IF;
            FOR v_one IN
                SELECT a.* FROM retally.added_up(v_passes) AS a
            LOOP
                rows_changed := rows_changed + v_one.rows_changed;
                IF v_one.show_id <> ALL (v_begun) THEN
                    rows_adrift := rows_adrift + v_one.rows_adrift;
                    core_units := core_units + v_one.core_units;
                    gpus := gpus + v_one.gpus;
                    v_begun := v_begun || v_one.show_id;
                END IF;
                -- where rows were busy, the show's own turn comes
                CONTINUE WHEN v_turn = 0 AND v_one.rows_deferred > 0;
                v_done := v_done || v_one.show_id;
                shows := shows + 1;
                rows_deferred := rows_deferred + v_one.rows_deferred;
                rows_failed := rows_failed + v_one.rows_failed;
                problems := problems || ARRAY(
                    SELECT
                        format(
                            'show %s: %s',
                            v_names[array_position(v_ids, v_one.show_id)], p.problem
                        )
                    FROM unnest(v_one.problems) AS p (problem)
                );
            END LOOP;
        EXCEPTION
            WHEN OTHERS THEN
                -- of several shows each gets its own turn: one must not suffer for another
                IF v_turn > 0 THEN
                    -- kept with its SQLSTATE
                    v_failure := format(
                        'show %s: %s (SQLSTATE %s)', v_names[v_turn], sqlerrm, sqlstate
                    );
                    RAISE WARNING '%', v_failure;
                    shows_failed := shows_failed + 1;
                    problems := problems || v_failure;
                END IF;
        END;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE retally.recompute_all (
    boolean, boolean, bigint, bigint, bigint, bigint, bigint, bigint, numeric, numeric, text []
) IS 'Rebuilds the totals of every show that the ticks serve.';
