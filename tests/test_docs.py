"""What the documents promise to the person who copies from them."""

from __future__ import annotations

import re
from pathlib import Path

from test_routines import CALLS

DOCS = Path(__file__).parent.parent / "docs"
BY_HAND = (DOCS / "by-hand.md").read_text(encoding="utf-8")
DISPATCH = (DOCS / "dispatch.md").read_text(encoding="utf-8")
ADMISSION = (DOCS / "admission.md").read_text(encoding="utf-8")


def test_the_pages_name_every_routine() -> None:
    # "_layer" stands for recompute_layer where the row begins with recompute_subscription
    missing = {
        name
        for name in CALLS
        if not re.search(rf"\b{name}\b", BY_HAND + DISPATCH + ADMISSION)
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
