"""What each method sends. Every call is a transaction of its own where nothing else is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retally.bench.recompute.records import Method
from retally.bench.recompute.totals import TABLES
from retally.sql.text import sql_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import LiteralString

    import psycopg

    from retally.bench.recompute.farm import Farm

    #: Does all of it once, on a connection in autocommit.
    Call = Callable[[psycopg.Connection, Farm], None]


def script(name: str) -> LiteralString:
    """The text of a file of this benchmark."""
    return sql_text("bench", f"recompute/sql/{name}")


def _all_shows(conn: psycopg.Connection, _farm: Farm) -> None:
    conn.execute("CALL retally.recompute_all()")


def _show_by_show(conn: psycopg.Connection, farm: Farm) -> None:
    for show in farm.shows:
        conn.execute("CALL retally.recompute_show(%s)", (show,))


def _one_show(conn: psycopg.Connection, farm: Farm) -> None:
    conn.execute("CALL retally.recompute_show(%s)", (farm.one_show,))


def _fold_journal(conn: psycopg.Connection, farm: Farm) -> None:
    conn.execute("SELECT * FROM retally.fold(%s, false)", (farm.shows,)).fetchall()


def _journal_on(conn: psycopg.Connection, farm: Farm) -> None:
    """Switch it on while the totals are right, and let the changes happen again under it."""
    farm.undo_change(conn)
    farm.vacuum_procs(conn)
    for show in farm.shows:
        conn.execute("CALL retally.set_journal(%s, true)", (show,))
    farm.apply_change(conn)


def _journal_off(conn: psycopg.Connection, farm: Farm) -> None:
    for show in farm.shows:
        conn.execute("CALL retally.set_journal(%s, false)", (show,))


def _row_by_row(conn: psycopg.Connection, _farm: Farm) -> None:
    conn.execute("CALL bench.row_by_row()")


def _one_update_per_table(conn: psycopg.Connection, _farm: Farm) -> None:
    """As OpenCue's first scheduler outside of Cuebot did, for all managed shows at once.

    Each total in a transaction of its own, in which there are, in this order:

    - subscription: SELECT of the bursts; UPDATE of every row, which sets cores and GPUs and lifts
      the burst, else the farm's trigger refuses a sum above it; UPDATE that puts the bursts back.
      So every row is written twice, whether anything changed or not.
    - layer_resource: UPDATE of the rows that differ, rows without procs to 0.
    - job_resource: SELECT of the maxima; UPDATE of every row whose job is not FINISHED, changed or
      not, with a maximum lifted to the sum where that is above it; UPDATE that puts back the
      maxima that were lifted. Sets no local cores and GPUs.
    - folder_resource: UPDATE of every row, of whatever show.
    - point: UPDATE of every row of a managed show.

    Job, folder and point count local procs; nothing is locked before it is summed.
    """
    with conn.transaction():
        bursts = conn.execute(_BURSTS).fetchall()
        conn.execute(script("update_subscription"))
        conn.execute(_RESTORE_BURSTS, _columns(bursts, 2))
    conn.execute(script("update_layer_resource"))
    with conn.transaction():
        maxima = conn.execute(_MAXIMA).fetchall()
        conn.execute(script("update_job_resource"))
        conn.execute(_RESTORE_MAXIMA, _columns(maxima, 3))
    conn.execute(script("update_folder_resource"))
    conn.execute(script("update_point"))


_BURSTS = """
SELECT s.pk_subscription, s.int_burst
FROM public.subscription AS s INNER JOIN bench.managed AS m ON s.pk_show = m.pk_show
"""
_RESTORE_BURSTS = """
UPDATE public.subscription AS s SET int_burst = k.burst
FROM unnest(%s::text[], %s::bigint[]) AS k (pk_subscription, burst)
WHERE s.pk_subscription = k.pk_subscription
"""
_MAXIMA = """
SELECT r.pk_job, r.int_max_cores, r.int_max_gpus
FROM public.job_resource AS r
INNER JOIN public.job AS j ON r.pk_job = j.pk_job
INNER JOIN bench.managed AS m ON j.pk_show = m.pk_show
WHERE j.str_state <> 'FINISHED'
"""
_RESTORE_MAXIMA = """
UPDATE public.job_resource AS r SET int_max_cores = k.cores, int_max_gpus = k.gpus
FROM unnest(%s::text[], %s::int[], %s::int[]) AS k (pk_job, cores, gpus)
WHERE r.pk_job = k.pk_job AND (r.int_max_cores <> k.cores OR r.int_max_gpus <> k.gpus)
"""


def _columns(rows: list[tuple[object, ...]], count: int) -> list[list[object]]:
    return [[row[place] for row in rows] for place in range(count)]


def _views(conn: psycopg.Connection, _farm: Farm) -> None:
    for table in TABLES:
        conn.execute(table.refresh())


def _views_beside(conn: psycopg.Connection, _farm: Farm) -> None:
    for table in TABLES:
        conn.execute(table.refresh(concurrently=True))


def _limit(conn: psycopg.Connection, _farm: Farm) -> None:
    conn.execute(
        "SELECT sum(int_cores_reserved), sum(int_gpus_reserved) FROM public.proc"
    ).fetchall()


def _limit_by_layer(conn: psycopg.Connection, _farm: Farm) -> None:
    # both sums are looked at, else the server leaves them out; the rows do not travel
    conn.execute(
        "SELECT count(s.cores + s.gpus) FROM (SELECT sum(p.int_cores_reserved) AS cores,"
        " sum(p.int_gpus_reserved) AS gpus FROM public.proc AS p GROUP BY p.pk_layer) AS s"
    ).fetchall()


@dataclass(frozen=True)
class Way:
    """How a method is measured.

    ``needs``: the routines, by name, without which it is left out of a run. ``before``: makes the
    farm ready for it, after the totals were put back; ``after``: takes that back.
    """

    call: Call
    needs: tuple[str, ...] = ()
    before: Call | None = None
    after: Call | None = None


WAYS: dict[Method, Way] = {
    Method.ALL: Way(_all_shows),
    Method.BY_SHOW: Way(_show_by_show),
    Method.ONE: Way(_one_show),
    Method.JOURNAL: Way(
        _fold_journal, needs=("set_journal", "fold"), before=_journal_on, after=_journal_off
    ),
    Method.ROWS: Way(_row_by_row),
    Method.TABLES: Way(_one_update_per_table),
    Method.VIEWS: Way(_views),
    Method.VIEWS_BESIDE: Way(_views_beside),
    Method.LIMIT: Way(_limit),
    Method.LIMIT_BY_LAYER: Way(_limit_by_layer),
}
