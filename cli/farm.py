"""``retally farm create``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from retally.cli.options import database
from retally.cli.output import progress
from retally.procedures import install, routines
from retally.sql.farm_build import FarmSize, Step, create_farm

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

_DEFAULT = FarmSize()


@click.group()
def farm() -> None:
    """Make farms to try things on."""


def _count(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        f"--{name}",
        type=click.IntRange(min=0),
        default=getattr(_DEFAULT, name.replace("-", "_")),
        show_default=True,
        metavar="N",
        help=text,
    )


def _share(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        f"--{name}",
        type=click.FloatRange(0, 1),
        default=getattr(_DEFAULT, name.replace("-", "_")),
        show_default=True,
        metavar="SHARE",
        help=text,
    )


@farm.command()
@_count("shows", "Shows: show1, show2 …; the first ones hold most of the work.")
@_count("hosts", "Hosts of the farm.")
@_count("allocations", "Allocations of the farm.")
@_count("folders", "Folders per show.")
@_count("departments", "Departments per show.")
@_count("jobs", "Live jobs of the farm.")
@_count("finished-jobs", "Finished jobs of the farm, beside the live ones.")
@_count("layers", "Layers per job.")
@_count("procs", "Running procs of the farm.")
@_share("local-share", "Share of procs that are local.")
@_share("gpu-share", "Share of procs that use GPUs.")
@click.option(
    "--seed", type=int, default=_DEFAULT.seed, show_default=True, help="Same seed, same farm."
)
@click.option("--managed", is_flag=True, help="Install retally too, and manage every show.")
@database
def create(conn: psycopg.Connection, managed: bool, **size: Any) -> None:
    """Make a stand-alone farm in an empty database.

    Its tables, columns, keys, indexes and triggers are compatible with OpenCue's, its totals are
    exact. Refuses a database that holds a farm already.

    \b
    Example:
      createdb farm && retally farm create --dsn dbname=farm --shows 20 --procs 200000 \\
        --jobs 3000 --finished-jobs 27000 --layers 6 --hosts 3000
    """
    with progress() as bar:
        task = bar.add_task("starting", total=None)

        def tell(step: Step) -> None:
            bar.update(task, description=step.name, completed=step.index - 1, total=step.total)

        summary = create_farm(conn, FarmSize(**size), tell)
    parts = [
        f"{count:,} {name.replace('_', ' ')}"
        for name, count in asdict(summary).items()
        if name not in {"cores", "gpus"}
    ]
    click.echo(f"the farm in database {conn.info.dbname} holds {', '.join(parts)}")
    if managed:
        install(conn)
        for show in routines.shows(conn):
            routines.set_managed(conn, show.show_id, managed=True)
        click.echo("retally is installed, and every show is managed")
