"""A little booking traffic for the demo: procs come and go, hosts give and take their share."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from retally.sql.connect import connect
from retally.sql.errors import translated

if TYPE_CHECKING:
    import threading

# What a booking of a managed show does: a proc and its host, and no total.
_BOOK = """
WITH work AS (
    SELECT l.pk_layer, l.pk_job, j.pk_show
    FROM public.layer AS l
    INNER JOIN public.job AS j ON l.pk_job = j.pk_job
    WHERE j.str_state = 'PENDING'
    ORDER BY random() LIMIT 1
),
spot AS (
    UPDATE public.host AS h
    SET int_cores_idle = h.int_cores_idle - %(cores)s, int_mem_idle = h.int_mem_idle - %(mem)s
    WHERE h.pk_host = (
        SELECT o.pk_host FROM public.host AS o
        WHERE o.int_cores_idle >= %(cores)s AND o.int_mem_idle >= %(mem)s
        ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING h.pk_host
)
INSERT INTO public.proc (
    pk_proc, pk_host, pk_show, pk_job, pk_layer, int_cores_reserved, int_mem_reserved
)
SELECT gen_random_uuid()::text, s.pk_host, w.pk_show, w.pk_job, w.pk_layer, %(cores)s, %(mem)s
FROM work AS w CROSS JOIN spot AS s
"""

_RELEASE = """
WITH gone AS (
    DELETE FROM public.proc AS p
    WHERE p.pk_proc = (
        SELECT o.pk_proc FROM public.proc AS o
        WHERE NOT o.b_local AND o.int_gpus_reserved = 0
        ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING p.pk_host, p.int_cores_reserved, p.int_mem_reserved
)
UPDATE public.host AS h
SET
    int_cores_idle = h.int_cores_idle + g.int_cores_reserved,
    int_mem_idle = h.int_mem_idle + g.int_mem_reserved
FROM gone AS g
WHERE h.pk_host = g.pk_host
"""


def book_and_release(dsn: str, stop: threading.Event, *, pause: float, seed: int) -> None:
    """Book or release a proc every ``pause`` seconds or so until ``stop`` is set."""
    draw = random.Random(seed)  # noqa: S311 - chooses work to show, guards nothing
    with connect(dsn) as conn, translated():
        while not stop.wait(draw.expovariate(1 / pause)):
            if draw.random() < 0.5:
                size = {"cores": 100 * draw.randint(1, 4), "mem": 1 << draw.randint(18, 21)}
                conn.execute(_BOOK, size)
            else:
                conn.execute(_RELEASE)
