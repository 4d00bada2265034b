-- Sets the burst of a show's subscription to an allocation and, with setting.notify, tells the
-- dispatchers when this commits. p_show, p_alloc: name or id. p_burst: core units; 0 books nothing.
-- Locks and writes: a row of subscription.
-- Raises RT001, RT002, RT013; 22004 for null, 22003 below 0.
CREATE OR REPLACE PROCEDURE retally.set_burst(p_show text, p_alloc text, p_burst bigint)
LANGUAGE plpgsql
-- the farm's triggers call their helpers unqualified
SET search_path = public, pg_temp
AS $$
DECLARE
    v_show_id text := retally.show_id(p_show);
    v_alloc_id text;
BEGIN
    PERFORM retally.require_cap(p_burst, 0);
    UPDATE public.subscription AS s
    SET int_burst = p_burst
    FROM public.alloc AS a
    WHERE
        s.pk_show::text = v_show_id
        AND s.pk_alloc::text = a.pk_alloc::text
        AND p_alloc IN (a.pk_alloc::text, a.str_name::text)
    RETURNING s.pk_alloc::text
    INTO v_alloc_id;
    IF v_alloc_id IS NULL THEN
        RAISE EXCEPTION 'show "%" has no subscription to allocation "%"', p_show, p_alloc
            USING ERRCODE = 'RT013', HINT = 'Name the allocation by its name or id (pk_alloc).';
    END IF;
    PERFORM retally.notify_limit(
        jsonb_build_object('vertex', 'sub', 'show', v_show_id, 'alloc', v_alloc_id),
        'burst', p_burst, NULL
    );
END
$$;
COMMENT ON PROCEDURE retally.set_burst (text, text, bigint) IS
'Sets the burst of a subscription and tells the dispatchers.';
