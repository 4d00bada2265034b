-- Every subscription of a managed show, and out of the way with its burst, which would refuse.
WITH summed AS (
    SELECT
        p.pk_show,
        h.pk_alloc,
        sum(p.int_cores_reserved) AS cores,
        sum(p.int_gpus_reserved) AS gpus
    FROM public.proc AS p
    INNER JOIN public.host AS h ON p.pk_host = h.pk_host
    WHERE NOT p.b_local
    GROUP BY p.pk_show, h.pk_alloc
)

UPDATE public.subscription AS t
SET
    int_cores = b.cores,
    int_gpus = b.gpus,
    int_burst = 9223372036854775807
FROM (
    SELECT
        k.pk_subscription,
        coalesce(s.cores, 0) AS cores,
        coalesce(s.gpus, 0) AS gpus
    FROM public.subscription AS k
    INNER JOIN bench.managed AS m ON k.pk_show = m.pk_show
    LEFT JOIN summed AS s ON k.pk_show = s.pk_show AND k.pk_alloc = s.pk_alloc
) AS b
WHERE t.pk_subscription = b.pk_subscription;
