-- Says why the subscription of a show to an allocation takes no p_cores (core units) more.
-- Locks and writes nothing.
-- Raises RT012 with what is used and the burst, RT013 when there is no subscription.
CREATE OR REPLACE FUNCTION retally.refuse_over_burst(p_show text, p_alloc text, p_cores bigint)
RETURNS void
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
        RAISE EXCEPTION 'show "%" has no subscription to allocation "%"',
            coalesce(v_row.show_name, p_show), coalesce(v_row.alloc_name, p_alloc)
            USING ERRCODE = 'RT013',
                HINT = 'Subscribe the show, or choose a host of another allocation.';
    END IF;
    RAISE EXCEPTION 'subscription of show "%" to "%": % core units more would pass its burst of %,'
        ' % are in use', v_row.show_name, v_row.alloc_name, p_cores, v_row.int_burst,
        v_row.int_cores
        USING ERRCODE = 'RT012', HINT = 'Wait for a release, or raise the burst.';
END
$$;
COMMENT ON FUNCTION retally.refuse_over_burst(text, text, bigint) IS
'Says why a subscription takes no more.';
