"""What the documents promise to the person who copies from them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_farm import Rows, corrupt, make_work
from test_routines import CALLS

from retally.procedures import TOTALS, Booking, booking, routines
from retally.procedures.rebuild import rebuild
from retally.sql.errors import BookingRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

DOCS = Path(__file__).parent.parent / "docs"
BY_HAND = (DOCS / "by-hand.md").read_text(encoding="utf-8")
DISPATCH = (DOCS / "dispatch.md").read_text(encoding="utf-8")


@pytest.fixture
def role(farm_db: psycopg.Connection) -> Iterator[Callable[[str], None]]:
    """Turns the session into the role of a page, with the rights that it grants and no others."""
    name = f"role_{farm_db.info.dbname}"
    farm_db.execute(f"CREATE ROLE {name}")

    def become(page: str) -> None:
        block = re.search(r"```sql\n(GRANT.*?)```", page, re.DOTALL)
        assert block is not None
        farm_db.execute(re.sub(r"retally_(worker|dispatcher)", name, block[1]))
        farm_db.execute(f"SET ROLE {name}")

    yield become
    farm_db.execute("RESET ROLE")
    farm_db.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_the_rights_in_by_hand_are_enough_to_work_with(
    farm_db: psycopg.Connection, role: Callable[[str], None]
) -> None:
    rows = Rows(farm_db)
    work = make_work(rows, "comet", burst=100)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    rows.proc(work.host, work.show, "gone", None, cores=300)
    corrupt(farm_db)
    role(BY_HAND)
    (show,) = routines.shows(farm_db)
    assert routines.claim_due(farm_db, "tick", 10, [show.show_id], "me") == [show.show_id]
    outcome = rebuild(farm_db, [show.show_id], TOTALS, wait=True)
    assert outcome.failures == ()
    assert [p.rows_changed for p in outcome.passes] == [1] * 5
    routines.set_managed(farm_db, "comet", managed=True)
    routines.set_managed(farm_db, "comet", managed=False)
    assert routines.set_override(farm_db, "none").shows_left == 0
    assert routines.drift(farm_db, [show.show_id], TOTALS) == []
    assert len(routines.orphans(farm_db)) == 1
    assert len(routines.last_passes(farm_db)) == 5


@pytest.mark.parametrize("managed", [False, True])
def test_the_rights_in_dispatch_are_enough_to_book_and_release(
    farm_db: psycopg.Connection, role: Callable[[str], None], managed: bool
) -> None:
    work = make_work(Rows(farm_db), "comet", burst=1000)
    routines.set_managed(farm_db, "comet", managed=managed)
    farm_db.execute("UPDATE retally.setting SET notify_releases = true")
    role(DISPATCH)
    asked = Booking(work.host, work.job, work.layer, None, 100, 10)
    too_big = Booking(work.host, work.job, work.layer, None, 10**8, 10)
    procs = [answer.proc for answer in booking.book_many(farm_db, [asked, too_big, asked])]
    assert booking.release(farm_db, booking.book(farm_db, asked))
    with pytest.raises(BookingRefusedError):
        booking.book(farm_db, too_big)
    assert booking.release_many(farm_db, [proc or "" for proc in procs]) == [True, False, True]


def test_the_pages_name_every_routine() -> None:
    # "_layer" stands for recompute_layer where the row begins with recompute_subscription
    missing = {
        name
        for name in CALLS
        if not re.search(rf"\b{name}\b", BY_HAND + DISPATCH)
        and not (name.startswith("recompute_") and f"`_{name.partition('_')[2]}`" in BY_HAND)
    }
    assert missing == set()


def test_the_pages_name_every_error() -> None:
    rooms = Path(__file__).parent.parent / "procedures"
    raised = {
        state
        for file in rooms.rglob("*.sql")
        for state in re.findall(r"'(RT\d+)'", file.read_text(encoding="utf-8"))
    }
    assert raised == set(re.findall(r"\| (RT\d+) \|", BY_HAND + DISPATCH))
