"""The database that is measured: a farm of the benchmark's own, alike before every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.bench.dispatch.modes import Target
from retally.bench.dispatch.records import Action, Mode
from retally.bench.ground import BenchFarm
from retally.bench.place import await_alone
from retally.procedures import TOTALS, routines
from retally.procedures.journal import fold, set_journal
from retally.sql.errors import translated
from retally.sql.farm_build import FarmSize

if TYPE_CHECKING:
    import psycopg

    from retally.bench.dispatch.records import Spec

_JOBS = 20
_LAYERS = 3

_TARGET = """
SELECT s.pk_show, a.pk_alloc, f.pk_folder, p.pk_dept
FROM public.show AS s
INNER JOIN public.subscription AS a ON s.pk_show = a.pk_show
INNER JOIN public.folder AS f ON s.pk_show = f.pk_show
INNER JOIN public.point AS p ON s.pk_show = p.pk_show
WHERE EXISTS (SELECT FROM public.job AS j WHERE j.pk_folder = f.pk_folder AND j.pk_dept = p.pk_dept)
"""


class Ground(BenchFarm):
    """The farm of the benchmark: one show, one subscription, ``frames`` frames that wait."""

    def __init__(
        self, conn: psycopg.Connection, dsn: str, *, hosts: int, frames: int, seed: int
    ) -> None:
        size = FarmSize(
            shows=1, hosts=hosts, allocations=1, folders=1, departments=1, jobs=_JOBS,
            finished_jobs=0, layers=_LAYERS, procs=0, seed=seed,
        )  # fmt: skip
        super().__init__(conn, dsn, size, frames=frames)
        with translated():
            (row,) = conn.execute(_TARGET).fetchall()
        self.target = Target(*map(str, row))

    def reset(self, spec: Spec) -> None:
        """Make the farm as this cell needs it, the same before each of its kind.

        Nobody else may be connected: waits for those who are just leaving.
        """
        await_alone(self.conn)
        # a flip would leave its triggers on proc
        set_journal(self.conn, self.target.show, on=False)
        self.clear(self.frames_for(spec) if spec.action is Action.RELEASE else 0)
        self.set_notify(spec.notify)
        routines.set_managed(self.conn, self.target.show, managed=_managed(spec))
        if spec.journaled:
            set_journal(self.conn, self.target.show, on=True)
        self.vacuum()

    def frames_for(self, spec: Spec) -> int:
        """How many frames the clients of this cell share."""
        # a single release does in no time what takes long to prepare
        few = spec.action is Action.RELEASE and spec.batch == 1
        return self.frames // 4 if few else self.frames

    def rows_adrift(self, spec: Spec) -> int | None:
        """Rows of the show's totals that are wrong; None while bookings leave them alone.

        Of a journaled show: once its journal is folded.
        """
        if spec.journaled:
            fold(self.conn, [self.target.show], wait=True)
        elif spec.mode in {Mode.FLAG_ON, Mode.BARE}:
            return None
        found = routines.drift(self.conn, [self.target.show], TOTALS)
        return len({(slot.total, slot.key) for slot in found})


def _managed(spec: Spec) -> bool:
    return spec.mode is Mode.FLAG_ON
