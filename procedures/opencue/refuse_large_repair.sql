-- Refuses a repair of a show that would change more than setting.repair_share of its rows or core
-- units in the totals found adrift in, or set every amount in them to zero: rather than the totals
-- it may be the procs that are wrong. p_findings: of one show.
-- Locks and writes nothing. Raises RT015, which says what was seen.
CREATE OR REPLACE FUNCTION retally.refuse_large_repair(p_findings retally.finding[])
RETURNS void
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_show_id text;
    v_totals text[];
    v_adrift record;
    v_stored record;
    v_booked record;
    v_share numeric;
    v_seen text;
BEGIN
    SELECT
        sum(f.rows_adrift) AS rows,
        sum(f.core_units) AS core_units
    INTO v_adrift
    FROM unnest(p_findings) AS f;
    IF coalesce(v_adrift.rows, 0) = 0 THEN
        RETURN;
    END IF;

    SELECT min(f.show_id), array_agg(f.total)
    INTO v_show_id, v_totals
    FROM unnest(p_findings) AS f;
    SELECT
        count(*) AS rows,
        coalesce(sum(abs(s.cores) + abs(coalesce(s.local_cores, 0))), 0) AS core_units,
        coalesce(sum(abs(s.gpus) + abs(coalesce(s.local_gpus, 0))), 0) AS gpus
    INTO v_stored
    FROM retally.stored_in(ARRAY[v_show_id], v_totals) AS s;
    SELECT
        coalesce(sum(b.cores + coalesce(b.local_cores, 0)), 0) AS core_units,
        coalesce(sum(b.gpus + coalesce(b.local_gpus, 0)), 0) AS gpus
    INTO v_booked
    FROM retally.booked_in(ARRAY[v_show_id], v_totals, NULL) AS b;
    SELECT s.repair_share INTO v_share
    FROM retally.setting AS s;

    v_seen := concat_ws(
        ' and ',
        CASE
            WHEN v_booked.core_units + v_booked.gpus = 0 AND v_stored.core_units + v_stored.gpus > 0
                THEN format(
                    'set every total to zero (stored: %s core units, %s GPUs)',
                    v_stored.core_units, v_stored.gpus
                )
        END,
        CASE
            WHEN v_adrift.rows > v_share * v_stored.rows
                THEN format('change %s of %s rows', v_adrift.rows, v_stored.rows)
        END,
        CASE
            WHEN v_adrift.core_units > v_share * greatest(v_stored.core_units, v_booked.core_units)
                THEN format(
                    'change the totals by %s core units (stored: %s, booked: %s)',
                    v_adrift.core_units, v_stored.core_units, v_booked.core_units
                )
        END
    );
    IF v_seen <> '' THEN
        RAISE EXCEPTION 'the repair of show "%" is refused: it would %',
            coalesce((SELECT s.str_name FROM public.show AS s WHERE s.pk_show::text = v_show_id), v_show_id),
            v_seen
            USING ERRCODE = 'RT015',
                HINT = format(
                    'Look at retally.drift(%L); at most %s %% may change at once '
                    '(retally.setting.repair_share). If the procs are right, force it: '
                    '`retally recompute --force`, or CALL retally.repair_show(…, p_force => true).',
                    v_show_id, round(100 * v_share)
                );
    END IF;
END
$$;
COMMENT ON FUNCTION retally.refuse_large_repair(retally.finding[]) IS
'Refuses a repair that would change too much of a show at once.';
