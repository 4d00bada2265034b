"""Clocks that were wrong or are set: nothing stops, and totals are exact afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import apscheduler.schedulers.base
import pytest
from small_farm import corrupt
from worker_process import METRICS, await_exact, await_true, faults, managed_show
from worker_thread import events, in_process

import retally.worker.service

if TYPE_CHECKING:
    import psycopg
    from worker_process import Start


@pytest.mark.parametrize("away", ["-100 years", "100 years"])
def test_due_times_from_a_server_whose_clock_was_wrong_stop_nothing(
    farm_db: psycopg.Connection, start: Start, away: str
) -> None:
    work = managed_show(farm_db)
    worker = start(farm_db.info.dsn, **METRICS)
    await_exact(farm_db, work)

    farm_db.execute("UPDATE retally.due SET due_at = due_at + %s::interval", (away,))
    farm_db.execute("UPDATE retally.worker SET seen_at = seen_at + %s::interval", (away,))
    farm_db.execute("UPDATE retally.pass SET history_at = history_at + %s::interval", (away,))
    corrupt(farm_db)

    await_exact(farm_db, work)
    assert worker.end() == 0
    query = "SELECT count(*) FROM retally.due WHERE abs(extract(EPOCH FROM due_at - now())) > 60"
    assert farm_db.execute(query).fetchone() == (0,)


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_worker_whose_clock_is_set_goes_on(
    farm_db: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    step: timedelta,
) -> None:
    work = managed_show(farm_db)
    offset = [timedelta()]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = UTC) -> Any:
            return datetime.now(tz) + offset[0]

    monkeypatch.setattr(retally.worker.service, "datetime", Clock)
    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Clock)
    with in_process(farm_db.info.dsn) as (log, url):
        await_exact(farm_db, work)
        offset[0] = step
        corrupt(farm_db)

        await_exact(farm_db, work)
        if step < timedelta():
            await_true(lambda: bool(events(log, "the clock was set back")))
            assert faults(url(), "clock_stepped") >= 1
