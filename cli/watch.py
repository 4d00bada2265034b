"""``retally watch``."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import psycopg
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from retally.cli.numbers import Number
from retally.cli.options import chosen_shows, dsn_option, show_option
from retally.cli.output import console, cores, counted
from retally.cli.overview import (
    ShowNow,
    age,
    overview,
    ticks_of,
    without_passes,
    workers_of,
)
from retally.procedures.kept import kept
from retally.sql.connect import connect
from retally.sql.errors import DatabaseUnreachableError, RetallyError, typed
from retally.sql.migrate import require_current

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

_WIDE = 100  # columns from which on each show's worker fits, too
_NARROW = 100  # the width of a plain table, where the output is no terminal
_FRAME = 3  # lines that are neither shows nor notes: two of the head, and the titles
_INDENT = 2  # of the second line of a note, and of all after it
_PAPER = Console(width=_NARROW)  # measures text, prints nothing


@dataclass(frozen=True)
class Look:
    """What is shown at one time; ``lost`` says why it is an old one."""

    database: str
    at: datetime
    workers: int
    workers_gone: int
    ticks: Sequence[str]
    shows: Sequence[ShowNow]
    without: str
    lost: str = ""


@click.command()
@click.option(
    "--interval",
    type=Number(min=0.1),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look once and end.")
@show_option("Only this show, by name or id; may be given several times.")
@dsn_option
def watch(dsn: str | None, interval: float, once: bool, names: Sequence[str]) -> None:
    """Show what the passes find, live, the shows in trouble first, until Ctrl-C.

    Reads what the ticks have kept, never a proc: watching costs the farm nothing. A lost database
    is waited for. Where the output is no terminal, a plain table is printed at each look.

    \b
    Ticks        rebuild, watch, repair, off; default: what the workers' setting --unmanaged says
    Adrift       rows that the latest passes have left adrift, and how far, in cores; "-" where
                 nobody looks: mode off, or none for a while, see `retally status --help`
    Last pass    how long ago, tick by tick

    \b
    Example:
      retally watch
      retally watch --show show1 --interval 1
      retally watch --once
    """
    screen = console()
    with _ended_by_signals(), contextlib.closing(_Eye(dsn, names)) as eye:
        look = eye.first()
        if once or not screen.is_terminal:
            while True:
                screen.print(_drawn(look, _plain_width(screen), None))
                if once:
                    return
                time.sleep(interval)
                screen.print()
                look = eye.look()
        with Live(console=screen, auto_refresh=False) as live:
            while True:
                live.update(_drawn(look, screen.width, screen.height - 1), refresh=True)
                time.sleep(interval)
                look = eye.look()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block, with the terminal as it was."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Eye:
    """Looks at the database again and again, with one connection as long as that holds."""

    def __init__(self, dsn: str | None, names: Sequence[str]) -> None:
        self._dsn = dsn
        self._names = names
        self._conn: psycopg.Connection | None = None
        self._last: Look | None = None

    def first(self) -> Look:
        """As ``look``, but what is wrong at the start is raised."""
        if self._conn is None:
            self._conn = connect(self._dsn)
            require_current(self._conn)
        self._last = _look(self._conn, self._names)
        return self._last

    def look(self) -> Look:
        """What is there now; the former look, with the reason, while the database is lost."""
        try:
            return self.first()
        except (RetallyError, psycopg.Error) as error:
            known = typed(error) if isinstance(error, psycopg.Error) else error
            what = "error, trying again"
            if isinstance(known, DatabaseUnreachableError):
                what = "database lost, waiting for it"
                self.close()
            assert self._last is not None  # noqa: S101 - the first look was had
            reason = " ".join(str(known).split())
            return replace(self._last, lost=f"{what}: {reason}")

    def close(self) -> None:
        """Let go of the connection, if there is one."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


def _look(conn: psycopg.Connection, names: Sequence[str]) -> Look:
    state = kept(conn)
    shows = overview(chosen_shows(conn, names), state)
    workers = list(workers_of(state).values()) if state else []
    alive = sum(any(beat.alive for beat in beats) for beats in workers)
    return Look(
        conn.info.dbname,
        state.now if state else datetime.now(UTC),
        alive,
        len(workers) - alive,
        ticks_of(state),
        sorted(shows, key=_trouble),
        without_passes(state),
    )


def _trouble(row: ShowNow) -> int:
    """The place among the shows: the worse, the smaller."""
    signs = (row.failing, row.rows_left, row.summed("rows_failed"), row.overdue() >= 1)
    return next((place for place, sign in enumerate(signs) if sign), len(signs))


def _plain_width(screen: Console) -> int:
    return screen.width if screen.is_terminal else max(screen.width, _NARROW)


def _drawn(look: Look, width: int, height: int | None) -> Group:
    """The whole picture, cut to ``height`` lines; None: everything."""
    notes = _notes(look.shows, width)
    shows, told = len(look.shows), len(notes)
    if height is not None:
        body = max(height - _FRAME, 3)
        # quiet shows are at the end of the table: they make room for the reasons of the others
        told = min(told, max(body - shows - 1, body // 2))
        room = body - told - 1 if told else body
        shows = shows if shows <= room else max(room - 1, 1)  # a line says that some are cut
    lines: list[RenderableType] = [*_head(look), _table(look, shows, width)]
    if cut := look.shows[shows:]:
        trouble = sum(map(_in_trouble, cut))
        lines.append(
            Text(f"… and {counted(len(cut), 'more show')}, {trouble or 'none'} of them in trouble")
        )
    if told:
        rest = len(notes) - told
        lines += [Text(""), *(notes if not rest else notes[: told - 1])]
        if rest:
            more = counted(rest + 1, "more line")
            lines.append(Text(f"… and {more}: `retally status --format json` has all"))
    return Group(*lines)


def _table(look: Look, shows: int, width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("show", no_wrap=True, overflow="ellipsis", min_width=8, max_width=24)
    table.add_column("ticks", no_wrap=True)
    wide = width >= _WIDE
    for name in ("adrift", "cores", "changed", "deferred", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last pass", no_wrap=True)
    if wide:
        table.add_column("worker", no_wrap=True, overflow="ellipsis", max_width=24)
    for row in look.shows[:shows]:
        table.add_row(*_cells(row, look.ticks, wide), style="red" if _in_trouble(row) else "")
    return table


def _notes(shows: Sequence[ShowNow], width: int) -> list[Text]:
    """What there is to say of each show, in full, on as many lines as that takes."""
    lines = []
    for row in shows:
        if said := _note(row):
            text = Text(f"{row.show.name}: {said}", style="red" if _in_trouble(row) else "")
            first, *rest = text.wrap(_PAPER, max(width - _INDENT, 20))
            lines += [first, *(Text(" " * _INDENT).append_text(line) for line in rest)]
    return lines


def _head(look: Look) -> list[Text]:
    """Two lines, neither longer than the screen is wide."""
    trouble = sum(map(_in_trouble, look.shows))
    gone = f" ({look.workers_gone} gone)" if look.workers_gone else ""
    first = (
        f"{look.database}  {look.at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        f"  {counted(look.workers, 'worker')}{gone}"
        f"  {counted(len(look.shows), 'show')}, {trouble or 'none'} in trouble"
    )
    second = f"passes: {look.without}" if look.without else f"ticks: {', '.join(look.ticks) or '-'}"
    if look.lost:
        second = look.lost
    return [
        Text(first, style="bold", no_wrap=True, overflow="ellipsis"),
        Text(second, style="red" if look.lost else "", no_wrap=True, overflow="ellipsis"),
    ]


def _in_trouble(row: ShowNow) -> bool:
    return bool(row.failing or row.rows_left or row.summed("rows_failed") or row.overdue() >= 1)


def _cells(row: ShowNow, ticks: Sequence[str], wide: bool) -> list[str]:
    amounts = [row.summed(name) for name in ("rows_changed", "rows_deferred", "rows_failed")]
    return [
        row.show.name,
        row.mode,
        f"{row.rows_left:,}" if row.latest else "-",
        cores(row.core_units_left) if row.latest else "-",
        *("-" if amount is None else f"{amount:,}" for amount in amounts),
        row.ages(ticks),
        *((row.last.worker if row.last else "-",) if wide else ()),
    ]


def _note(row: ShowNow) -> str:
    """What there is to say of it, the worst first."""
    late = row.overdue()
    busy, failed = row.summed("rows_deferred"), row.summed("rows_failed")
    said = (
        row.failure(),
        f"{counted(busy, 'row')} busy" if busy else "",
        f"{counted(failed, 'row')} cannot be made exact" if failed else "",
        f"due since {age(late)}" if late >= 1 else "",
    )
    return "; ".join(filter(None, said))
