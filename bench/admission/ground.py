"""The farms: managed shows with room for every booking, and shows with tight caps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.bench.admission.caps import FRAMES_EACH
from retally.bench.dispatch.records import Action
from retally.bench.ground import BenchFarm
from retally.bench.place import await_alone
from retally.procedures import routines
from retally.sql.errors import translated
from retally.sql.farm_build import FarmSize

if TYPE_CHECKING:
    import psycopg

    from retally.bench.admission.records import Spec

_JOBS = 20  # of a show, on average
_LAYERS = 3

# Core units and GPUs; about 180 procs of the clients' sizes fit into a show, and each kind of cap
# is the first to refuse now and then.
_TIGHT = """
UPDATE public.host SET int_gpus = 1000000000, int_gpus_idle = 1000000000;
UPDATE public.subscription SET int_size = 20000, int_burst = 20000;
UPDATE public.folder_resource SET int_max_cores = 25000, int_max_gpus = 30;
UPDATE public.job_resource SET int_max_cores = 2500, int_max_gpus = 4
"""
_TIGHT_HOSTS = 200


class Ground(BenchFarm):
    """So many managed shows, with room for every booking."""

    def __init__(
        self, conn: psycopg.Connection, dsn: str, *, shows: int, hosts: int, frames: int, seed: int
    ) -> None:
        super().__init__(conn, dsn, _size(shows, hosts, 1, seed), frames=frames)
        self.shows = _managed(conn)

    def reset(self, spec: Spec) -> None:
        """Make the farm as this cell needs it, the same before each of its kind.

        Nobody else may be connected: waits for those who are just leaving.
        """
        await_alone(self.conn)
        self.clear(self.frames_for(spec) if spec.action is Action.RELEASE else 0)
        self.set_notify(spec.notify)
        self.vacuum()

    def frames_for(self, spec: Spec) -> int:
        """How many frames of each show its clients share."""
        # a single release does in no time what takes long to prepare
        few = spec.action is Action.RELEASE and spec.batch == 1
        return self.frames // 4 if few else self.frames


class TightGround(BenchFarm):
    """So many managed shows, whose bursts and maxima are met all the time by so many clients each.

    Releases are told.
    """

    def __init__(
        self, conn: psycopg.Connection, dsn: str, *, shows: int, clients: int, seed: int
    ) -> None:
        size = _size(shows, _TIGHT_HOSTS, 2, seed)
        super().__init__(conn, dsn, size, frames=FRAMES_EACH * clients)
        with translated():
            self.run(_TIGHT)
        self.set_notify(True)
        self.shows = _managed(conn)
        self.vacuum()


def _size(shows: int, hosts: int, each: int, seed: int) -> FarmSize:
    """``each``: allocations of the farm, and folders of each show."""
    return FarmSize(
        shows=shows, hosts=hosts, allocations=each, folders=each, departments=1,
        jobs=_JOBS * shows, finished_jobs=0, layers=_LAYERS, procs=0, seed=seed,
    )  # fmt: skip


def _managed(conn: psycopg.Connection) -> tuple[str, ...]:
    """The ids of the shows, all of which are managed from now on."""
    shows = [show.show_id for show in routines.shows(conn)]
    for show in shows:
        routines.set_managed(conn, show, managed=True)
    return tuple(sorted(shows))
