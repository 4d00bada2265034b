"""The farm that is measured, and how it is made alike before every cell."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from psycopg import sql

from retally.bench.recompute.methods import WAYS, script
from retally.bench.recompute.records import IN_VIEWS, LIMITS, RETALLY, Method, Scenario, Size
from retally.bench.recompute.totals import TABLES
from retally.procedures import TOTALS, install, routines
from retally.sql.connect import connect
from retally.sql.errors import translated
from retally.sql.farm_build import FarmSize, create_farm

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from retally.bench.recompute.records import Spec

# What every session of the benchmark sets, whatever the method: compiling costs more than these
# statements take, and a hash of all layers has to fit.
_SETTINGS = {"jit": "off", "work_mem": "64MB"}
_PARALLEL = "max_parallel_workers_per_gather"
#: The names of what every session sets.
SET = (*_SETTINGS, _PARALLEL)
#: A table that has grown by more than this is packed again before a cell.
_GROWTH = 1.2


def size_of(procs: int, seed: int) -> FarmSize:
    """The farm with so many procs: 200,000 of them have 30,000 jobs and 180,000 layers."""
    jobs = max(20, procs * 2727 // 200_000)
    return FarmSize(
        shows=20, hosts=max(50, procs * 3000 // 200_000), allocations=3, folders=4, departments=3,
        jobs=jobs, finished_jobs=10 * jobs, layers=6, procs=procs, seed=seed,
    )  # fmt: skip


class Farm:
    """A farm with retally, all shows managed, in an empty database.

    All work is done on connections that are closed at once, so that the server's counters hold it
    before the next cell begins.
    """

    def __init__(self, dsn: str, procs: int, seed: int, parallel: int = 0) -> None:
        self.dsn = dsn
        # a pass that comes every few seconds should leave the farm its CPUs: none by default
        self._settings = _SETTINGS | {_PARALLEL: str(parallel)}
        self._seed = seed
        self._scenario = Scenario.QUIET
        self._draws = 0
        asked = size_of(procs, seed)
        with self.session() as conn:
            made = create_farm(conn, asked)
            install(conn)
            with translated():
                conn.execute(script("setup"))
                conn.execute(script("row_by_row"))
                conn.execute(script("source_now"))
                conn.execute(script("views"))
        with self.session() as conn:
            self.shows = [show.show_id for show in routines.shows(conn)]
            for show in self.shows:
                routines.set_managed(conn, show, managed=True)
            self.one_show, one_procs = _one_show(conn, procs)
            self._note_truth(conn)
            self._pack(conn, [table.name for table in TABLES])
            self._packed = self._pages(conn)
        self.size = Size(
            procs=made.procs, hosts=made.hosts, shows=made.shows, jobs=made.jobs,
            finished_jobs=made.finished_jobs, layers=made.layers, one_show=one_procs,
        )  # fmt: skip

    @contextlib.contextmanager
    def session(self) -> Iterator[psycopg.Connection]:
        """A connection with the settings that every method gets. Raises the typed errors."""
        with connect(self.dsn) as conn, translated():
            for name, value in self._settings.items():
                conn.execute("SELECT set_config(%s, %s, false)", (name, value))
            yield conn

    def has(self, method: Method) -> bool:
        """Whether the routines that the method needs are installed."""
        needed = list(WAYS[method].needs)
        with self.session() as conn:
            row = conn.execute(
                "SELECT %s::text[] <@ array_agg(p.proname::text) FROM pg_proc AS p"
                " WHERE p.pronamespace = to_regnamespace('retally')",
                (needed,),
            ).fetchone()
        return bool(row and row[0])

    def enter(self, scenario: Scenario) -> None:
        """Let happen, for good, what the scenario says, and keep the totals of before and after.

        Where procs have changed, half of them are released and as many booked elsewhere.
        """
        with self.session() as conn:
            conn.execute("DROP TABLE IF EXISTS bench.released, bench.booked")
            changed = scenario.changed(self.size.procs)
            if changed:
                _each(conn, [table.stale_as_truth() for table in TABLES])
                conn.execute("TRUNCATE bench.draw")
                self._draws += 1
                draw = (f"{self._seed} {self._draws}", changed // 2)
                conn.execute("INSERT INTO bench.draw (seed, procs) VALUES (%s, %s)", draw)
                conn.execute(script("change"))
                self.apply_change(conn)
                self.vacuum_procs(conn)
                self._note_truth(conn)
            else:
                _each(conn, [table.stale_as_truth() for table in TABLES])
            if scenario is Scenario.COLD:
                _each(conn, [table.every_row_off() for table in TABLES])
        self._scenario = scenario

    def apply_change(self, conn: psycopg.Connection) -> None:
        """Release and book what was drawn; nothing where the scenario has no change."""
        if self._changed(conn):
            conn.execute(script("apply_change"))

    def undo_change(self, conn: psycopg.Connection) -> None:
        """The opposite of ``apply_change``."""
        if self._changed(conn):
            conn.execute(script("undo_change"))

    def prepare(self, spec: Spec) -> None:
        """Put all that the method reads and writes into the state that each of its kind finds."""
        method, way = spec.method, WAYS[spec.method]
        with self.session() as conn:
            if method in IN_VIEWS:
                self._stale_views(conn)
            elif method not in LIMITS:
                self._put_back(conn)
            if way.before:
                way.before(conn, self)
            if method is Method.TABLES and spec.scenario is Scenario.QUIET:
                # it counts local procs, so that only its second pass finds nothing changed
                way.call(conn, self)
            self._vacuum(conn, method)

    def leave(self, spec: Spec) -> None:
        """Take back what ``prepare`` did for this method alone."""
        if after := WAYS[spec.method].after:
            with self.session() as conn:
                after(conn, self)

    def rows_wrong(self, method: Method) -> int:
        """How many rows of totals are not what the procs say, or of the views instead of them."""
        with self.session() as conn:
            queries = [
                table.wrong_in_view() if method in IN_VIEWS else table.wrong() for table in TABLES
            ]
            return sum(_value(conn, query) for query in queries)

    def slots_adrift(self, method: Method) -> int | None:
        """What retally itself finds adrift; None for methods that are not retally's."""
        if method not in RETALLY:
            return None
        with self.session() as conn:
            return len(routines.drift(conn, self.shows, TOTALS))

    def vacuum_procs(self, conn: psycopg.Connection) -> None:
        """Make room for new procs where others were, so that the table does not grow."""
        conn.execute("VACUUM (ANALYZE) public.proc")

    def _put_back(self, conn: psycopg.Connection) -> None:
        _each(conn, [table.put_back() for table in TABLES])
        before = self._packed
        self._pack(
            conn, [name for name, n in self._pages(conn).items() if n > _GROWTH * before[name]]
        )

    def _note_truth(self, conn: psycopg.Connection) -> None:
        names = sql.SQL(", ").join(sql.Identifier("bench", f"truth_{t.name}") for t in TABLES)
        conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(names))
        conn.execute(script("truth"))

    def _stale_views(self, conn: psycopg.Connection) -> None:
        """Let the views hold what they would have held before the change."""
        kind = {Scenario.QUIET: "now", Scenario.COLD: "cold"}.get(self._scenario, "busy")
        conn.execute(script(f"source_{kind}"))
        _each(conn, [table.refresh() for table in TABLES])
        conn.execute(script("source_now"))

    def _changed(self, conn: psycopg.Connection) -> bool:
        return bool(_value(conn, sql.SQL("SELECT count(to_regclass('bench.released'))")))

    def _pages(self, conn: psycopg.Connection) -> dict[str, int]:
        rows = conn.execute(
            "SELECT t.name, pg_relation_size(format('public.%%I', t.name)::regclass)"
            " FROM unnest(%s::text[]) AS t (name)",
            ([table.name for table in TABLES],),
        )
        return {str(name): int(size) for name, size in rows}

    def _vacuum(self, conn: psycopg.Connection, method: Method) -> None:
        """All that a cell reads and writes, retally's own tables too: autovacuum is off."""
        names = [("public", "proc")]
        if method in IN_VIEWS:
            names += [("bench", f"view_{table.name}") for table in TABLES]
        elif method not in LIMITS:
            own = conn.execute(
                "SELECT c.relname FROM pg_class AS c"
                " WHERE c.relnamespace = to_regnamespace('retally') AND c.relkind = 'r'"
            )
            names += [("public", table.name) for table in TABLES]
            names += [("retally", str(name)) for (name,) in own]
        tables = sql.SQL(", ").join(sql.Identifier(*name) for name in names)
        conn.execute(sql.SQL("VACUUM (ANALYZE) {}").format(tables))

    def _pack(self, conn: psycopg.Connection, names: list[str]) -> None:
        for name in names:
            conn.execute(sql.SQL("VACUUM (FULL) {}").format(sql.Identifier("public", name)))


def _one_show(conn: psycopg.Connection, procs: int) -> tuple[str, int]:
    """The show whose number of procs is nearest to 10,000, or to a twentieth of a small farm."""
    row = conn.execute(
        "SELECT p.pk_show, count(*) FROM public.proc AS p GROUP BY p.pk_show"
        " ORDER BY abs(count(*) - %s), p.pk_show LIMIT 1",
        (min(10_000, procs // 20),),
    ).fetchone()
    assert row is not None  # noqa: S101 - the farm has procs
    return str(row[0]), int(row[1])


def _each(conn: psycopg.Connection, statements: list[sql.Composed]) -> None:
    for statement in statements:
        conn.execute(statement)


def _value(conn: psycopg.Connection, query: sql.SQL | sql.Composed) -> int:
    row = conn.execute(query).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has always one row
    return int(row[0])
