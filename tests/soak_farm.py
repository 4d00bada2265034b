"""What a soak is told to do, and the farm that it does it to."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from bouncer import program

from retally.procedures import install, routines
from retally.sql.farm_build import FarmSize, create_farm

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Makes one row wrong, as a lost update would.
SPOIL = (
    "UPDATE subscription SET int_cores = int_cores - 7 WHERE pk_subscription ="
    " (SELECT pk_subscription FROM subscription ORDER BY random() LIMIT 1)",
    "UPDATE layer_resource SET int_cores = int_cores - 7 WHERE pk_layer ="
    " (SELECT pk_layer FROM layer ORDER BY random() LIMIT 1)",
    "UPDATE job_resource SET int_gpus = int_gpus - 1 WHERE pk_job ="
    " (SELECT pk_job FROM job ORDER BY random() LIMIT 1)",
    "UPDATE folder_resource SET int_cores = int_cores - 7 WHERE pk_folder ="
    " (SELECT pk_folder FROM folder ORDER BY random() LIMIT 1)",
    "UPDATE point SET int_cores = int_cores - 7 WHERE pk_point ="
    " (SELECT pk_point FROM point ORDER BY random() LIMIT 1)",
)


@dataclass(frozen=True)
class Options:
    """What to do; times are in seconds."""

    seconds: float = 60.0
    workers: int = 3
    kill_every: float = 20.0
    restart_server: int = 0
    pgbouncer: bool = False
    rest: bool = False
    seed: int = 1
    shows: int = 20
    procs: int = 5000
    arrivals: float = 40.0
    dispatchers: int = 2
    subscription_interval: float = 3.0
    resource_interval: float = 10.0
    grace: float = 2.0
    on_disk: bool = False

    @property
    def intervals(self) -> dict[str, float]:
        return {"subscription": self.subscription_interval, "resource": self.resource_interval}


def parse(arguments: Sequence[str], about: str | None = None) -> Options:
    """The command line; ``--rest`` has another farm by default; ``about``: for the help."""
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
    resting = "--rest" in arguments
    for name, default in vars(Options()).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(flag, action="store_true")
        else:
            other = {"shows": 200, "procs": 20_000}.get(name, default) if resting else default
            parser.add_argument(flag, type=type(default), default=other, help=f"[{other}]")
    options = Options(**vars(parser.parse_args(arguments)))
    if options.pgbouncer and program() is None:
        parser.error("there is no pgbouncer on the PATH")
    return options


def build_farm(options: Options, dsn: str) -> None:
    """Every show managed, every total exact."""
    size = FarmSize(
        shows=options.shows,
        procs=options.procs,
        hosts=max(10, options.procs // 40),
        jobs=max(options.shows, options.procs // 50),
        seed=options.seed,
    )
    with psycopg.connect(dsn, autocommit=True) as conn:
        create_farm(conn, size)
        install(conn)
        for show in routines.shows(conn):
            routines.set_managed(conn, show.show_id, managed=True)
        conn.execute("ANALYZE")
