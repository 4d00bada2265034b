-- What keeps a total from being exact, in a sentence that names the thing.
-- p_kind: missing, orphan (see compared()), misfit, or unfolded (the journal could not be added).
-- Cores in core units.
-- p_refusal: for a misfit, what a trigger or constraint of the farm said; null: the column's width.
-- Locks and writes nothing.
CREATE OR REPLACE FUNCTION retally.problem(
    p_kind text, p_total text, p_key text, p_cores numeric, p_gpus numeric,
    p_refusal text DEFAULT NULL
)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT
        p_total || ' ' || retally.row_name(p_total, p_key)
        || CASE WHEN p_key <> retally.row_name(p_total, p_key) THEN ' (' || p_key || ')' ELSE '' END
        || CASE p_kind
            WHEN 'misfit'
                THEN
                    coalesce(
                        ': the farm refuses it: ' || p_refusal,
                        ': the sum of its procs does not fit the column'
                    )
            WHEN 'unfolded'
                THEN
                    ': its row is missing, or cannot take what the journal adds'
            WHEN 'missing'
                THEN
                    ': its row is missing, while procs hold ' || p_cores
                    || ' core units and ' || p_gpus || ' GPUs'
            ELSE
                ': the farm knows no such ' || p_total || ', while procs hold ' || p_cores
                || ' core units and ' || p_gpus || ' GPUs for it'
        END
$$;
COMMENT ON FUNCTION retally.problem(text, text, text, numeric, numeric, text) IS
'What keeps a total from being exact, in a sentence that names the thing.';
