-- Why a booking of a managed show is not let in under this token: RT019, with who serves the show.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.unleased(
    p_show_id text, p_token bigint, OUT problem text, OUT message text, OUT hint text
)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_name text := coalesce(
        (SELECT s.str_name::text FROM public.show AS s WHERE s.pk_show::text = p_show_id), p_show_id
    );
    v_lease record;
BEGIN
    SELECT
        l.holder,
        l.expires_at > clock_timestamp() AS live
    INTO v_lease
    FROM retally.lease AS l
    WHERE l.scope = p_show_id;
    problem := 'RT019';
    IF v_lease.holder IS NULL THEN
        message := format('show "%s" is managed, and nobody serves it', v_name);
        hint := 'Take its lease first, as a Dispatcher with admission does.';
    ELSIF p_token IS NULL THEN
        message := format('show "%s" is served by dispatcher %s', v_name, v_lease.holder);
        hint := 'Book through that one; or end its lease: `retally leases --end SHOW`.';
    ELSIF v_lease.live THEN
        message := format(
            'show "%s" is served by dispatcher %s, under another lease', v_name, v_lease.holder
        );
        hint := 'Take the lease again once it is free.';
    ELSE
        message := format('the lease of dispatcher %s on show "%s" has ended', v_lease.holder, v_name);
        hint := 'Take it again: what is booked has to be counted anew.';
    END IF;
END
$$;
COMMENT ON FUNCTION retally.unleased(text, bigint) IS
'Why a booking of a managed show is not let in under this token.';
