"""A farm of its own in an empty database: OpenCue's tables (V47), with as much work as asked for.

Nothing of OpenCue needs to be installed. Keys, indexes and triggers come after the rows: 200,000
procs with 180,000 layers are loaded in 21 s instead of 87 s (2 cores, PostgreSQL 15).
"""

from __future__ import annotations

import itertools
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.rows import class_row

from retally.sql.errors import FarmExistsError, FarmSchemaError, FarmSizeError, translated
from retally.sql.text import sql_text, sql_texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import LiteralString

    import psycopg

# A point, a folder and a subscription hold their cores in an integer, 2,147,483,647 core units, and
# the biggest proc takes 800 of them: 2,684,354 procs fit wherever the draws put them, less the 200
# core units that a host_local has to spare. Caps end at what the integer holds.
_MAX_PROCS = 2_600_000

_IN_SHOWS = ("shows", "folders", "departments")
_NEEDS = {
    "procs": ("jobs", "layers", "hosts"),
    "jobs": _IN_SHOWS,
    "finished_jobs": _IN_SHOWS,
    "folders": ("departments",),
    "hosts": ("allocations",),
}


@dataclass(frozen=True, kw_only=True)
class FarmSize:
    """How much of everything a farm holds; the same size gives the same rows and keys.

    ``folders`` and ``departments`` are per show and ``layers`` per job, all other counts are the
    farm's. ``finished_jobs`` come on top of ``jobs`` and run nothing. ``local_share`` and
    ``gpu_share`` are the parts (0 to 1) of the procs that are local and that have GPUs, reached
    within one run of eight procs and within one layer. Raises FarmSizeError.
    """

    shows: int = 3
    hosts: int = 50
    allocations: int = 3
    folders: int = 4
    departments: int = 3
    jobs: int = 40
    finished_jobs: int = 20
    layers: int = 3
    procs: int = 500
    local_share: float = 0.05
    gpu_share: float = 0.1
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be: see FarmSizeError."""
        counts = {name: count for name, count in asdict(self).items() if name != "seed"}
        for name, count in counts.items():
            if name.endswith("_share") and not 0 <= count <= 1:
                raise FarmSizeError(f"{name} is {count}", "a share goes from 0 to 1")
            if count < 0:
                raise FarmSizeError(f"{name} is {count}", "counts start at 0")
            lacking = [other for other in _NEEDS.get(name, ()) if not counts[other]]
            if count and lacking:
                raise FarmSizeError(
                    f"{count} {name} cannot be without {' and '.join(lacking)}",
                    f"ask for some {lacking[0]}, or for no {name}",
                )
        if self.procs > _MAX_PROCS:
            raise FarmSizeError(f"procs is {self.procs}", f"{_MAX_PROCS} is the most")
        if not -(2**63) <= self.seed < 2**63:
            raise FarmSizeError(f"seed is {self.seed}", "a seed has 64 bits")


@dataclass(frozen=True)
class FarmSummary:
    """What was loaded: rows of each kind, and in ``cores`` (core units) and ``gpus`` what runs.

    ``jobs`` are the live ones; ``layers`` and ``folders`` are those of the whole farm. Each proc
    has a running frame besides the ``waiting_frames``.
    """

    shows: int
    allocations: int
    subscriptions: int
    departments: int
    points: int
    folders: int
    hosts: int
    jobs: int
    finished_jobs: int
    layers: int
    waiting_frames: int
    procs: int
    local_procs: int
    gpu_procs: int
    cores: int
    gpus: int


@dataclass(frozen=True)
class Step:
    """A step that begins: ``index`` of ``total``, counted from 1, and what it does."""

    index: int
    total: int
    name: str


def create_farm(
    conn: psycopg.Connection, size: FarmSize, on_step: Callable[[Step], None] | None = None
) -> FarmSummary:
    """Make a farm in an empty database, in one transaction: all of it or nothing.

    Raises FarmExistsError where a table of that name is there already, so that a farm in use is
    never touched.
    """
    schema, load, rules = (_scripts(folder) for folder in ("schema", "load", "rules"))
    begin = _announcer(on_step, len(schema) + len(load) + len(rules))
    with translated(), conn.transaction():
        _refuse_other_tables(conn)
        _run(conn, schema, begin)
        summary = _load(conn, size, load, begin)
        _run(conn, rules, begin)
    return summary


def create_schema(conn: psycopg.Connection) -> None:
    """Make the farm's tables, keys, indexes and triggers, and no rows. Raises FarmExistsError."""
    with translated(), conn.transaction():
        _refuse_other_tables(conn)
        _run(conn, _scripts("schema") | _scripts("rules"), _announcer(None, 0))


def load_farm(
    conn: psycopg.Connection, size: FarmSize, on_step: Callable[[Step], None] | None = None
) -> FarmSummary:
    """Add the rows of a farm to tables that are there, in one transaction.

    The tables may be OpenCue's own and hold other shows; its row triggers make that several times
    slower. Raises FarmSchemaError where tables are missing, FarmExistsError where a show of that
    name is there.
    """
    load = _scripts("load")
    with translated(), conn.transaction():
        there = _tables_there(conn)
        if missing := [name for name in farm_tables() if name not in there]:
            raise FarmSchemaError(
                f"this database lacks the tables {', '.join(missing)}",
                "create_farm makes them, in an empty database",
            )
        _refuse_same_shows(conn, size)
        return _load(conn, size, load, _announcer(on_step, len(load)))


def farm_tables() -> list[str]:
    """The names of the farm's tables; all are in the schema public."""
    texts = _scripts("schema").values()
    return [name for text in texts for name in re.findall(r"(?m)^CREATE TABLE public\.(\w+)", text)]


def _load(
    conn: psycopg.Connection,
    size: FarmSize,
    load: dict[str, LiteralString],
    begin: Callable[[str], None],
) -> FarmSummary:
    conn.execute(sql_text("sql", "farm/prepare"))
    row = asdict(size)
    insert = sql.SQL("INSERT INTO pg_temp.farm_size ({}) VALUES ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(map(sql.Placeholder, row)),
    )
    conn.execute(insert, row)
    _run(conn, load, begin)
    with conn.cursor(row_factory=class_row(FarmSummary)) as cursor:
        summary = cursor.execute(sql_text("sql", "farm/summary")).fetchone()
    conn.execute(sql_text("sql", "farm/tidy"))
    assert summary  # noqa: S101 - an aggregate has always one row
    return summary


def _run(
    conn: psycopg.Connection, scripts: dict[str, LiteralString], begin: Callable[[str], None]
) -> None:
    for name, text in scripts.items():
        begin(name)
        conn.execute(text)


def _scripts(folder: str) -> dict[str, LiteralString]:
    return sql_texts("sql", f"farm/{folder}")


def _announcer(on_step: Callable[[Step], None] | None, total: int) -> Callable[[str], None]:
    """What to call with a file's name, ``08_layers``, before it is run."""
    indexes = itertools.count(1)

    def begin(file: str) -> None:
        if on_step:
            on_step(Step(next(indexes), total, file.partition("_")[2].replace("_", " ")))

    return begin


def _tables_there(conn: psycopg.Connection) -> list[str]:
    there = conn.execute(
        "SELECT name FROM unnest(%s::text[]) WITH ORDINALITY AS wanted (name, nr)"
        " WHERE to_regclass(format('public.%%I', name)) IS NOT NULL ORDER BY nr",
        [farm_tables()],
    )
    return [str(row[0]) for row in there]


def _refuse_other_tables(conn: psycopg.Connection) -> None:
    if found := _tables_there(conn):
        raise FarmExistsError(
            f"this database already holds the tables {', '.join(found)}",
            "create the farm in a new, empty database",
        )


def _refuse_same_shows(conn: psycopg.Connection, size: FarmSize) -> None:
    names = [f"show{number}" for number in range(1, size.shows + 1)]
    there = conn.execute(
        "SELECT str_name FROM public.show WHERE str_name = ANY(%s) ORDER BY str_name", [names]
    )
    if found := [str(row[0]) for row in there]:
        raise FarmExistsError(
            f"this farm already holds the shows {', '.join(found)}",
            "load into a farm without shows of these names",
        )
