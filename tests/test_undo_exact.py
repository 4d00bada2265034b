"""Random traffic before and after a repair: undo restores what nobody changed, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from repair_farm import make_works, repair, spoil, state, written
from small_farm import Rows, Work, booking

from retally.procedures import TOTALS, repairs
from retally.procedures.booking import book, release

if TYPE_CHECKING:
    import psycopg

Steps = list[tuple[str, int, Any]]

_work = st.integers(0, 2)
_traffic = st.one_of(
    st.tuples(st.just("book"), _work, st.integers(1, 300)),
    st.tuples(st.just("release"), _work, st.none()),
    st.tuples(st.just("drift"), _work, st.tuples(st.sampled_from(TOTALS), st.integers(-200, 200))),
    st.tuples(st.just("gpus"), _work, st.tuples(st.sampled_from(TOTALS), st.integers(-2, 2))),
    st.tuples(st.just("move host"), _work, _work),
    st.tuples(st.just("move job"), _work, _work),
    st.tuples(st.just("there and back"), _work, st.integers(1, 300)),
)


def take(conn: psycopg.Connection, works: list[Work], steps: Steps) -> None:
    """Inline bookings, releases and moves, and what nobody accounts for."""
    for step, place, detail in steps:
        work = works[place]
        if step in {"book", "there and back"}:
            proc = book(conn, booking(work, core_units=detail))
            if step == "there and back":
                release(conn, proc)
        elif step == "release":
            row = conn.execute("SELECT min(pk_proc) FROM proc WHERE pk_job = %s", (work.job,))
            found = row.fetchone()
            if found is not None and found[0] is not None:
                release(conn, found[0])
        elif step == "move host":
            conn.execute(
                "UPDATE host SET pk_alloc = %s WHERE pk_host = %s", (works[detail].alloc, work.host)
            )
        elif step == "move job":
            conn.execute(
                "UPDATE job SET pk_folder = %s WHERE pk_job = %s", (works[detail].folder, work.job)
            )
        else:
            total, amount = detail
            spoil(conn, work, total, amount, "int_gpus" if step == "gpus" else "int_cores")


SLOTS = ("cores", "gpus", "local_cores", "local_gpus")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(before=st.lists(_traffic, max_size=8), after=st.lists(_traffic, max_size=5))
def test_a_repair_is_exact_and_its_undo_restores_just_the_rows_that_nobody_changed(
    farm_db: psycopg.Connection, before: Steps, after: Steps
) -> None:
    works = make_works(Rows(farm_db), number=3)
    show = works[0].show
    take(farm_db, works, before)
    wrong = state(farm_db, works)
    run = repair(farm_db, show, force=True).run
    exact = state(farm_db, works)
    assert farm_db.execute("SELECT * FROM retally.drift(%s)", (show,)).fetchall() == []
    changes = {
        (*row, slot): (was, now)
        for row in wrong
        for slot, was, now in zip(SLOTS, wrong[row], exact[row], strict=True)
        if was != now
    }
    assert written(farm_db, run) == changes
    if run is None:
        return

    take(farm_db, works, after)
    now = state(farm_db, works)
    kept = {
        (total, key)
        for total, key, slot in changes
        if now[total, key][SLOTS.index(slot)] != exact[total, key][SLOTS.index(slot)]
    }
    restored = {(total, key) for total, key, _ in changes} - kept
    expected = {
        row: tuple(
            changes[*row, slot][0] if row in restored and (*row, slot) in changes else amount
            for slot, amount in zip(SLOTS, amounts, strict=True)
        )
        for row, amounts in now.items()
    }
    listed = repairs.restorable(farm_db, run)
    assert {(entry.total, entry.key) for entry in listed if entry.restorable} == restored
    done = repairs.undo(farm_db, run)
    assert state(farm_db, works) == expected
    assert (done.rows_restored, done.rows_kept) == (len(restored), len(kept))
    if not after:
        assert state(farm_db, works) == wrong
