-- How well served a row is: schedulers take the lowest tier first. The same values as OpenCue's
-- functions of these names give; the load needs them, so they come before the triggers.
CREATE FUNCTION public.tier(p_cores numeric, p_min numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE
        WHEN p_min = 0 THEN p_cores / 100 + 1
        WHEN p_cores = 0 THEN -p_min
        ELSE p_cores / p_min
    END
$$;
COMMENT ON FUNCTION public.tier(numeric, numeric)
IS 'Share of its minimum that a row has (core units both): low means underserved.';

CREATE FUNCTION public.soft_tier(p_cores numeric, p_min numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE
        WHEN p_min = 0 OR p_cores >= p_min THEN 1
        WHEN p_cores = 0 THEN -p_min
        ELSE p_cores / p_min
    END
$$;
COMMENT ON FUNCTION public.soft_tier(numeric, numeric)
IS 'As tier, but never above 1: whoever has the minimum is served.';
