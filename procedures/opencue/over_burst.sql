-- Why the subscription of a show to an allocation takes no p_cores (core units) more: RT012 with
-- the burst and what is in use, RT013 when there is no subscription, RT014 when it does by now.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.over_burst(
    p_show text, p_alloc text, p_cores bigint, OUT problem text, OUT message text, OUT hint text
)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_row record;
BEGIN
    SELECT
        h.str_name AS show_name,
        a.str_name AS alloc_name,
        s.int_cores,
        s.int_burst
    INTO v_row
    FROM public.show AS h
    CROSS JOIN public.alloc AS a
    LEFT JOIN public.subscription AS s
        ON h.pk_show::text = s.pk_show::text AND a.pk_alloc::text = s.pk_alloc::text
    WHERE h.pk_show::text = p_show AND a.pk_alloc::text = p_alloc;
    IF v_row.int_burst IS NULL THEN
        problem := 'RT013';
        message := format(
            'show "%s" has no subscription to allocation "%s"',
            coalesce(v_row.show_name, p_show), coalesce(v_row.alloc_name, p_alloc)
        );
        hint := 'Subscribe the show, or choose a host of another allocation.';
        RETURN;
    END IF;
    IF v_row.int_cores + p_cores <= v_row.int_burst THEN
        problem := 'RT014';
        message := format(
            'subscription of show "%s" to "%s" was full a moment ago',
            v_row.show_name, v_row.alloc_name
        );
        hint := 'That is over: try again.';
        RETURN;
    END IF;
    problem := 'RT012';
    message := format(
        'subscription of show "%s" to "%s": %s core units more would pass its burst of %s, %s are'
        ' in use', v_row.show_name, v_row.alloc_name, p_cores, v_row.int_burst, v_row.int_cores
    );
    hint := 'Wait for a release, or raise the burst.';
END
$$;
COMMENT ON FUNCTION retally.over_burst(text, text, bigint) IS
'Why a subscription takes no more.';
