-- Ends the lease of a show whoever holds it, by hand: its bookings are refused from now on, and
-- those without a token are let in, uncapped, until a dispatcher takes the show again.
-- p_show: name or id; the id of a show that is gone, too.
-- Locks: the show's flag, alone. Writes: a row of retally.lease. Raises RT001, RT002, RT005.
CREATE OR REPLACE PROCEDURE retally.end_lease(p_show text)
LANGUAGE plpgsql
AS $$
DECLARE
    v_scope text := p_show;
BEGIN
    IF NOT EXISTS (SELECT FROM retally.lease AS l WHERE l.scope = p_show) THEN
        v_scope := retally.show_id(p_show);
    END IF;
    PERFORM retally.hold_flag(v_scope, p_show);
    PERFORM retally.drop_lease(v_scope);
END
$$;
COMMENT ON PROCEDURE retally.end_lease (text) IS 'Ends the lease of a show whoever holds it.';
