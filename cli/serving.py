"""What `retally doctor` makes of how the shows are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.cli.output import counted
from retally.cli.symptoms import Question, Symptom, listed, problem, warning
from retally.procedures import routines, served
from retally.procedures.journal import TRIGGERS, journal_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from retally.procedures.served import UnservedShow

_LATE_SECONDS = 180.0  # a pg_cron job once a minute, and one that is missed, are in time
_MANY_ENTRIES = 100_000  # folded in a second or two, so somebody should have
_START = (
    "start `retally worker`, or let pg_cron call retally.recompute_all(); or take the flag away:"
    " retally managed"
)


def look_at_shows(conn: psycopg.Connection, _: Question) -> list[Symptom]:
    """The shows whose passes fail, are refused or do not come, and those that stay adrift."""
    unserved = served.unserved_shows(conn, _LATE_SECONDS)
    found = [_failing(show) for show in unserved if show.fault != "late"]
    if late := [show for show in unserved if show.fault == "late"]:
        found.append(_late(late, served.live_workers(conn)))
    elif unseen := served.unseen_shows(conn, _LATE_SECONDS):
        found.append(warning(f"no worker is seen that would look at {listed(unseen)}", _START))
    return found + _adrift(conn)


def _failing(show: UnservedShow) -> Symptom:
    if show.fault == "refused":
        return problem(
            f"{show.name}: the passes of tick {show.tick} are refused: {show.error}",
            f"retally drift --show '{show.name}'; then correct the procs where they are wrong, or"
            f" retally recompute --show '{show.name}' --force where they are right",
        )
    return Symptom(
        "problem" if show.rebuilt else "warning",
        f"{show.name}: the passes of tick {show.tick} fail: {show.error}",
        f"retally recompute --show '{show.name}' tells more",
    )


def _late(late: Sequence[UnservedShow], workers: Sequence[str]) -> Symptom:
    totals = sorted({total for show in late for total in show.totals or ()})
    return problem(
        f"{listed([show.name for show in late])}: no pass over {', '.join(totals)} {_since(late)}",
        f"look into the log of {listed(workers)}; its setting totals may leave some out"
        if workers
        else f"no worker runs: {_START}",
    )


def _since(late: Sequence[UnservedShow]) -> str:
    known = [show.last_pass for show in late if show.last_pass is not None]
    if len(known) < len(late):
        return "is known"
    return f"since {min(known):%Y-%m-%d %H:%M:%S%z}"


def _adrift(conn: psycopg.Connection) -> list[Symptom]:
    shows = served.adrift_shows(conn, _LATE_SECONDS)
    if not shows:
        return []
    name = shows[0].name
    return [
        warning(
            "unmanaged shows are adrift, and only watched: "
            + listed([f"{show.name} ({counted(show.rows, 'row')})" for show in shows]),
            f"retally drift --show '{name}'; then retally recompute --show '{name}', or"
            f" retally unmanaged --show '{name}' repair",
        )
    ]


def look_at_journal(conn: psycopg.Connection, _: Question) -> list[Symptom]:
    """Whether what journaled shows book is journaled and folded, and nothing of it is left over."""
    state = journal_state(conn)
    journaled = [show.name for show in routines.shows(conn) if show.journaled]
    if journaled and state.triggers < TRIGGERS:
        return [
            problem(
                f"{state.triggers} of the journal's {TRIGGERS} triggers work on proc: what"
                f" {listed(journaled)} book is not counted before the next full pass",
                "as proc's owner: `retally journal --all off`, then on again for these shows",
            )
        ]
    if state.triggers + state.idle and not journaled:
        return [
            warning(
                "the journal's triggers are on proc, and no show is journaled",
                "as proc's owner: `retally journal --all off`",
            )
        ]
    if state.entries > _MANY_ENTRIES:
        return [
            warning(
                f"{state.entries:,} entries of the journal wait to be folded",
                "let a worker run, and look in its log for why it does not fold them",
            )
        ]
    return []
