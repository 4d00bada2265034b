"""``retally recompute``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from rich.progress import TextColumn

from retally.cli.errors import Exit
from retally.cli.numbers import Number
from retally.cli.options import (
    chosen_shows,
    chosen_totals,
    format_option,
    installed,
    need,
    show_option,
    total_option,
)
from retally.cli.output import Row, cores, counted, note, print_rows, progress
from retally.procedures import Finding, Pass, Show, repairs, routines
from retally.procedures.rebuild import Failure, Outcome, Repairs, rebuild
from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

_COLUMNS = (
    "show",
    "total",
    "rows_adrift",
    "rows_changed",
    "rows_deferred",
    "rows_failed",
    "cores_adrift",
    "gpus_adrift",
    "seconds",
)
_DRY_COLUMNS = ("show", "total", "rows_adrift", "rows_failed", "cores_adrift", "gpus_adrift")


@click.command()
@show_option("This show, by name or id; may be given several times.")
@click.option("--all", "everything", is_flag=True, help="Every managed show.")
@click.option("--unmanaged-too", is_flag=True, help="With --all: every show of the farm.")
@total_option
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Wait for rows that bookings hold, or leave them for next time.",
)
@click.option(
    "--patience",
    type=Number(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="With --wait: how long to come back to a show whose rows stay busy.",
)
@click.option(
    "--force", is_flag=True, help="Repair an unmanaged show even when most of it would change."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only tell what is adrift; write nothing. Exit code 1 where the real one would be refused,"
    " or could not rebuild a total.",
)
@format_option
@installed
def recompute(
    conn: psycopg.Connection,
    names: Sequence[str],
    everything: bool,
    unmanaged_too: bool,
    totals: Sequence[str],
    wait: bool,
    patience: float,
    force: bool,
    dry_run: bool,
    style: str,
) -> None:
    """Rebuild the totals of shows from their procs.

    Safe beside live bookings: only rows that are adrift are locked, summed again under the lock,
    and written. Exit code 0 when done, 5 when rows were left because they were busy, 1 when a
    total cannot be rebuilt (its row is missing, or its sum does not fit the column).

    An unmanaged show is repaired: before and after are kept (`retally ledger`), `retally undo` puts
    them back, and a repair that would change more than half of the show is refused (exit code 1)
    without --force; see retally.setting.repair_share.

    \b
    Example:
      retally recompute --show show1 --total subscription
      retally recompute --all --unmanaged-too --dry-run
    """
    need(bool(names) != everything, "give --show NAME, or --all")
    need(everything or not unmanaged_too, "--unmanaged-too goes with --all")
    shows = [s for s in chosen_shows(conn, names) if names or unmanaged_too or s.rebuilt]
    if not shows:
        note("no show is managed: nothing to do (--all --unmanaged-too takes every show)")
        if style != "table":
            print_rows([], style, _columns(_DRY_COLUMNS if dry_run else _COLUMNS, style))
        return
    wanted = chosen_totals(totals)
    if dry_run:
        found = routines.findings(conn, [s.show_id for s in shows], wanted)
        _tell(found, shows, style)
        refused = not force and _tell_refusals(conn, found, shows, wanted)
        sys.exit(Exit.ERROR if refused or any(f.rows_failed for f in found) else Exit.FINE)
    repaired = Repairs({s.show_id for s in shows if not s.rebuilt}, force, "retally recompute")
    outcome = _run(conn, shows, wanted, wait, patience, repaired)
    sys.exit(_report(outcome, shows, style))


def _run(
    conn: psycopg.Connection,
    shows: Sequence[Show],
    totals: Sequence[str],
    wait: bool,
    patience: float,
    repaired: Repairs,
) -> Outcome:
    with progress(TextColumn("shows")) as bar:
        task = bar.add_task("looking", total=len(shows))
        names = {show.show_id: show.name for show in shows}

        def tell(show_id: str) -> None:
            bar.update(task, description=names[show_id], advance=1)

        return rebuild(
            conn,
            [s.show_id for s in shows],
            totals,
            wait=wait,
            patience=patience,
            repaired=repaired,
            on_show=tell,
        )


def _tell(found: Sequence[Finding], shows: Sequence[Show], style: str) -> None:
    names = {show.show_id: show.name for show in shows}
    listed = [f for f in found if style != "table" or f.rows_adrift or f.rows_failed]
    rows = [
        {
            "show": names[f.show_id],
            "total": f.total,
            "rows_adrift": f.rows_adrift,
            "rows_failed": f.rows_failed,
            **_amounts(f, style),
        }
        for f in listed
    ]
    if rows or style != "table":
        print_rows(rows, style, _columns(_DRY_COLUMNS, style))
    for problem in [text for f in found for text in f.problems]:
        note(f"note: {problem}")
    note(f"{counted(sum(f.rows_adrift for f in found), 'row')} adrift; nothing written (--dry-run)")


def _tell_refusals(
    conn: psycopg.Connection,
    found: Sequence[Finding],
    shows: Sequence[Show],
    totals: Sequence[str],
) -> bool:
    """Whether a show would be refused; each is told."""
    refused = False
    adrift = {f.show_id for f in found if f.rows_adrift}
    for show in shows:
        if show.show_id in adrift and not show.rebuilt:
            refusal = repairs.refusal(conn, show.show_id, totals)
            if refusal is not None:
                note(f"note: {refusal} ({refusal.hint})")
                refused = True
    return refused


def _report(outcome: Outcome, shows: Sequence[Show], style: str) -> Exit:
    names = {show.show_id: show.name for show in shows}
    listed = [p for p in outcome.passes if style != "table" or p.rows_adrift or p.rows_failed]
    rows = [
        {
            "show": names[p.show_id],
            "total": p.total,
            "rows_adrift": p.rows_adrift,
            "rows_changed": p.rows_changed,
            "rows_deferred": p.rows_deferred,
            "rows_failed": p.rows_failed,
            **_amounts(p, style),
            "seconds": round(p.seconds, 6),
        }
        for p in listed
    ]
    if rows or style != "table":
        print_rows(rows, style, _columns(_COLUMNS, style))
    for problem in [text for p in outcome.passes for text in p.problems]:
        note(f"note: {problem}")
    for failure in outcome.failures:
        note(f"failed: show {names[failure.show_id]}: {_line(failure)}")
    changed = sum(p.rows_changed for p in outcome.passes)
    changed_shows = len({p.show_id for p in outcome.passes if p.rows_changed})
    deferred = sum(p.rows_deferred for p in outcome.passes)
    note(
        f"{counted(changed, 'row')} changed in {counted(changed_shows, 'show')},"
        f" {deferred:,} left because busy"
    )
    if outcome.run is not None:
        note(f"run {outcome.run}: `retally undo {outcome.run}` puts it back")
    return _exit(outcome, deferred)


def _exit(outcome: Outcome, deferred: int) -> Exit:
    failed = sum(p.rows_failed for p in outcome.passes)
    if any(not failure.busy for failure in outcome.failures):
        raise RetallyError("some shows could not be rebuilt", "see the lines above")
    if failed:
        raise RetallyError(
            f"{counted(failed, 'row')} cannot be rebuilt, all others are", "see the notes above"
        )
    return Exit.BUSY if deferred or outcome.failures else Exit.FINE


def _line(failure: Failure) -> str:
    return f"{failure.error} ({failure.error.hint})" if failure.error.hint else str(failure.error)


def _columns(names: Sequence[str], style: str) -> tuple[str, ...]:
    """Programs get core units, and the name says so."""
    unit = "cores_adrift" if style == "table" else "core_units_adrift"
    return tuple(unit if name == "cores_adrift" else name for name in names)


def _amounts(item: Finding | Pass, style: str) -> Row:
    if style == "table":
        return {"cores_adrift": cores(item.core_units), "gpus_adrift": item.gpus}
    return {"core_units_adrift": item.core_units, "gpus_adrift": item.gpus}
