"""An unmanaged show of several works: one of them can be wrong without being most of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from small_farm import TOTAL_TABLES, Rows, Work, stored

from retally.procedures import TOTALS, repairs, routines

if TYPE_CHECKING:
    import psycopg

    from retally.procedures.repairs import Repair

    State = dict[tuple[str, str], tuple[int, ...]]

#: The column that holds each total's key.
KEYS = dict(zip(TOTALS, ("pk_alloc", "pk_layer", "pk_job", "pk_folder", "pk_dept"), strict=True))
TABLES = dict(zip(TOTALS, TOTAL_TABLES, strict=True))


def make_works(rows: Rows, name: str | None = None, number: int = 4) -> list[Work]:
    """A show with so many works, each with a row of its own in each total, and exact.

    Each has one proc of 300 core units and 2 GPUs.
    """
    show = rows.show(name)
    works = []
    for _ in range(number):
        alloc, dept = rows.alloc(), rows.dept()
        rows.subscription(show, alloc)
        rows.point(show, dept)
        folder = rows.folder(show, dept)
        job = rows.job(show, folder, dept)
        work = Work(show, alloc, dept, folder, job, rows.layer(job), rows.host(alloc))
        rows.proc(work.host, show, job, work.layer, cores=300, gpus=2)
        works.append(work)
    rows.conn.execute("CALL retally.recompute_show(%s)", (show,))
    return works


def spoil(
    conn: psycopg.Connection, work: Work, total: str, amount: int = -7, slot: str = "int_cores"
) -> None:
    """Add an amount to one slot of one row that no proc accounts for."""
    conn.execute(
        f"UPDATE {TABLES[total]} SET {slot} = {slot} + %s WHERE {KEYS[total]} = %s",
        (amount, work.key(total)),
    )


def state(conn: psycopg.Connection, works: list[Work]) -> State:
    """What every total's row of these works holds."""
    return {
        (total, work.key(total)): stored(conn, work, total) for total in TOTALS for work in works
    }


def refuse_row(conn: psycopg.Connection, work: Work, error: str = "raise_exception") -> None:
    """From now on a trigger of the farm raises over this work's layer row, over no other."""
    conn.execute(
        "CREATE FUNCTION refuse_row() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE 'not this row' USING ERRCODE = '{error}'; END $$;"
        "CREATE TRIGGER refuse_row BEFORE UPDATE ON layer_resource FOR EACH ROW"
        f" WHEN (NEW.pk_layer = '{work.layer}') EXECUTE FUNCTION refuse_row()"
    )


def repair(
    conn: psycopg.Connection, show: str, *, force: bool = False, run: int | None = None
) -> Repair:
    """Repair the show as a worker does."""
    found = routines.findings(conn, [show], TOTALS)
    with conn.transaction():
        return repairs.repair(
            conn,
            found,
            wait=False,
            tick="resource",
            worker="me",
            asked_by="tick resource",
            force=force,
            run=run,
        )


def written(
    conn: psycopg.Connection, run: int | None
) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Before and after in the ledger, by total, key and slot."""
    rows = conn.execute(
        "SELECT total, key, slot, before, after FROM retally.ledger WHERE run = %s", (run,)
    )
    return {(total, key, slot): (int(was), int(now)) for total, key, slot, was, now in rows}


def ledger_size(conn: psycopg.Connection) -> tuple[Any, ...] | None:
    """How many runs, and how many slots that they wrote."""
    return conn.execute(
        "SELECT (SELECT count(*) FROM retally.run), (SELECT count(*) FROM retally.ledger)"
    ).fetchone()
