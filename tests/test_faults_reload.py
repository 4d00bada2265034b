"""Settings that are read again while a worker runs, and cannot be."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from small_farm import Work, corrupt
from worker_process import (
    METRICS,
    await_exact,
    await_true,
    await_waiter,
    cores,
    managed_show,
    value,
    waits,
)

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg
    from worker_process import Start


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "retally.toml"


def test_a_hang_up_takes_new_settings_over_and_the_pass_in_hand_ends(
    farm_db: psycopg.Connection,
    start: Start,
    in_hand: tuple[Work, psycopg.Connection],
    config: Path,
) -> None:
    work, holder = in_hand
    config.write_text('totals = ["subscription"]\n')
    worker = start(farm_db.info.dsn, RETALLY_CONFIG=str(config), **METRICS)
    url = worker.metrics_url()
    await_waiter(farm_db)

    config.write_text("pool_size = 3\n")
    worker.send(signal.SIGHUP)
    read = worker.await_event("settings read again")
    assert waits(farm_db)
    holder.execute("ROLLBACK")

    await_exact(farm_db, work)
    assert set(read["changed"]) == {"totals", "pool_size"}
    assert value(url, "reloads_total", outcome="ok") == 1
    assert value(url, "tick_interval_seconds", tick="resource") == 0.3
    assert worker.end() == 0
    assert not worker.events("failed")


def test_settings_that_cannot_be_read_leave_the_former_ones_in_force(
    farm_db: psycopg.Connection, start: Start, config: Path
) -> None:
    work = managed_show(farm_db)
    config.write_text('totals = ["subscription"]\n')
    worker = start(farm_db.info.dsn, RETALLY_CONFIG=str(config), **METRICS)
    url = worker.metrics_url()

    config.write_text("pool_size = 'many'\n")
    worker.send(signal.SIGHUP)
    failure = worker.await_event("settings not read again")
    corrupt(farm_db)

    await_true(lambda: cores(farm_db, work)[0] == 300)
    assert cores(farm_db, work)[1:] == [-7] * 4
    assert "pool_size" in failure["error"]
    assert value(url, "last_reload_successful") == 0
    assert worker.end() == 0
