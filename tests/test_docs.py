"""What the documents promise to the person who copies from them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_farm import Rows, corrupt, make_work
from test_routines import CALLS

from retally.procedures import TOTALS, routines
from retally.procedures.rebuild import rebuild

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

BY_HAND = (Path(__file__).parent.parent / "docs" / "by-hand.md").read_text(encoding="utf-8")


@pytest.fixture
def worker_role(farm_db: psycopg.Connection) -> Iterator[str]:
    """The role that docs/by-hand.md describes, with the rights that it grants and no others."""
    name = f"worker_{farm_db.info.dbname}"
    block = re.search(r"```sql\n(GRANT.*?)```", BY_HAND, re.DOTALL)
    assert block is not None
    farm_db.execute(f"CREATE ROLE {name}")
    farm_db.execute(block[1].replace("retally_worker", name))
    yield name
    farm_db.execute("RESET ROLE")
    farm_db.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_the_rights_in_by_hand_are_enough_to_work_with(
    farm_db: psycopg.Connection, worker_role: str
) -> None:
    rows = Rows(farm_db)
    work = make_work(rows, "comet", burst=100)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    rows.proc(work.host, work.show, "gone", None, cores=300)
    corrupt(farm_db)
    farm_db.execute(f"SET ROLE {worker_role}")
    (show,) = routines.shows(farm_db)
    assert routines.claim_due(farm_db, "tick", 10, [show.show_id], "me") == [show.show_id]
    outcome = rebuild(farm_db, [show.show_id], TOTALS, wait=True)
    assert outcome.failures == ()
    assert [p.rows_changed for p in outcome.passes] == [1] * 5
    routines.set_managed(farm_db, "comet", managed=True)
    routines.set_managed(farm_db, "comet", managed=False)
    assert routines.drift(farm_db, [show.show_id], TOTALS) == []
    assert len(routines.orphans(farm_db)) == 1
    assert len(routines.last_passes(farm_db)) == 5


def test_by_hand_names_every_routine() -> None:
    # "_layer" stands for recompute_layer where the row begins with recompute_subscription
    missing = {
        name
        for name in CALLS
        if not re.search(rf"\b{name}\b", BY_HAND)
        and not (name.startswith("recompute_") and f"`_{name.partition('_')[2]}`" in BY_HAND)
    }
    assert missing == set()


def test_by_hand_names_every_error() -> None:
    rooms = Path(__file__).parent.parent / "procedures"
    raised = {
        state
        for file in rooms.rglob("*.sql")
        for state in re.findall(r"ERRCODE = '(RT\d+)'", file.read_text(encoding="utf-8"))
    }
    assert raised == set(re.findall(r"\| (RT\d+) \|", BY_HAND))
