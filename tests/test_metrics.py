"""What a scrape says: read over HTTP, as Prometheus does."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from metrics_scene import INTERVALS, Scene, exercised, found, gauges
from psycopg_pool import PoolTimeout
from worker_process import PATIENCE

from retally.sql.connect import pool
from retally.worker.metrics import FAULTS, PASS_OUTCOMES, Metrics

if TYPE_CHECKING:
    import psycopg


def test_a_pass_is_told_by_show_and_total(scene: Scene) -> None:
    before = time.time()
    layer = found(
        "layer",
        rows_adrift=9,
        rows_changed=5,
        rows_deferred=3,
        rows_failed=1,
        core_units=450,
        gpus=2,
    )
    scene.metrics.served("resource", "comet", "rebuilt", [layer, found("job")], 0.02)
    scene.metrics.served("resource", "comet", "rebuilt", [layer, found("job")], 0.02)
    told = scene.scrape()
    at = (("show", "comet"), ("total", "layer"))
    assert told["retally_rows_changed_total", at] == 10
    assert told["retally_rows_deferred_total", at] == 6
    assert told["retally_drift_rows", at] == 9
    assert told["retally_drift_core_units", at] == 450
    assert told["retally_drift_gpus", at] == 2
    assert told["retally_rows_left", at] == 4
    assert told["retally_rows_failed", at] == 1
    assert told["retally_drift_rows", (("show", "comet"), ("total", "job"))] == 0
    success = told[
        "retally_last_success_timestamp_seconds", (("show", "comet"), ("tick", "resource"))
    ]
    assert before <= success <= time.time()
    assert (
        scene.value("retally_show_passes_total", tick="resource", show="comet", outcome="rebuilt")
        == 2
    )
    assert scene.value("retally_show_pass_duration_seconds_sum", tick="resource") == 0.04


def test_all_that_a_watched_show_has_adrift_is_left(scene: Scene) -> None:
    scene.metrics.served("resource", "comet", "watched", [found("job", rows_adrift=7)], 0.1)
    assert scene.value("retally_rows_left", show="comet", total="job") == 7
    scene.metrics.served("resource", "comet", "repaired", [found("job", rows_adrift=7)], 0.1)
    assert scene.value("retally_rows_left", show="comet", total="job") == 0


def test_the_gauges_of_a_show_that_is_served_elsewhere_vanish_after_three_intervals(
    scene: Scene,
) -> None:
    scene.metrics.served("subscription", "comet", "rebuilt", [found("subscription")], 0.1)
    scene.metrics.served("resource", "comet", "rebuilt", [found("job", rows_changed=2)], 0.1)
    scene.metrics.served("resource", "stays", "rebuilt", [found("job")], 0.1)
    scene.clock.now += 8.9
    assert scene.value("retally_drift_rows", show="comet", total="subscription") == 0
    scene.clock.now += 0.2
    assert scene.value("retally_drift_rows", show="comet", total="subscription") is None
    assert scene.value("retally_drift_rows", show="comet", total="job") == 0
    scene.metrics.served("resource", "stays", "rebuilt", [found("job")], 0.1)
    scene.clock.now += 21
    told = scene.scrape()
    assert not gauges(told, "show", "comet")
    assert gauges(told, "show", "stays")
    assert told["retally_rows_changed_total", (("show", "comet"), ("total", "job"))] == 2


def test_a_show_that_was_left_alone_comes_back_with_what_is_found_then(scene: Scene) -> None:
    scene.metrics.served("resource", "comet", "rebuilt", [found("job", rows_adrift=5)], 0.1)
    scene.clock.now += 100
    assert scene.value("retally_drift_rows", show="comet", total="job") is None
    scene.metrics.served("resource", "comet", "rebuilt", [found("job", rows_adrift=1)], 0.1)
    assert scene.value("retally_drift_rows", show="comet", total="job") == 1


def test_a_failing_show_is_told_for_as_long_as_its_pause_may_be_and_its_drift_is_not(
    scene: Scene,
) -> None:
    at = {"tick": "resource", "show": "comet"}
    scene.metrics.served("resource", "comet", "rebuilt", [found("job")], 0.1)
    succeeded = scene.value("retally_last_success_timestamp_seconds", **at)
    scene.metrics.show_failed("resource", "comet", "disk_full")
    scene.clock.now += 599
    assert scene.value("retally_last_success_timestamp_seconds", **at) == succeeded
    attempted = scene.value("retally_last_attempt_timestamp_seconds", **at)
    assert attempted is not None
    assert succeeded is not None
    assert attempted >= succeeded
    assert scene.value("retally_drift_rows", show="comet", total="job") is None
    assert scene.value("retally_show_failures_total", kind="disk_full", **at) == 1
    scene.clock.now += 2
    assert scene.value("retally_last_attempt_timestamp_seconds", **at) is None


def test_a_show_that_never_succeeded_has_an_attempt_and_no_success(scene: Scene) -> None:
    scene.metrics.deferred("resource", "comet")
    scene.metrics.repair_refused("resource", "luna", [])
    for show in ("comet", "luna"):
        at = {"tick": "resource", "show": show}
        assert scene.value("retally_last_attempt_timestamp_seconds", **at) is not None
        assert scene.value("retally_last_success_timestamp_seconds", **at) is None
    scene.clock.now += 31
    assert scene.value("retally_last_attempt_timestamp_seconds", **at) is not None
    at["show"] = "comet"
    assert scene.value("retally_last_attempt_timestamp_seconds", **at) is None


def test_what_a_refused_repair_found_is_told_until_its_pause_is_over_and_all_of_it_is_left(
    scene: Scene,
) -> None:
    at = {"show": "comet", "total": "job"}
    scene.metrics.repair_refused("resource", "comet", [found("job", rows_adrift=7)])
    scene.clock.now += 599
    assert scene.value("retally_drift_rows", **at) == 7
    assert scene.value("retally_rows_left", **at) == 7
    scene.clock.now += 2
    assert scene.value("retally_drift_rows", **at) is None


def test_a_reload_changes_how_long_gauges_last_and_ends_those_of_a_tick_that_is_gone(
    scene: Scene,
) -> None:
    scene.metrics.claimed("subscription", 4, 4)
    scene.metrics.served("subscription", "comet", "rebuilt", [found("subscription")], 0.1)
    scene.metrics.set_intervals({"resource": 60.0})
    told = scene.scrape()
    assert not gauges(told, "tick", "subscription")
    assert not gauges(told, "total", "subscription")
    assert told["retally_tick_interval_seconds", (("tick", "resource"),)] == 60
    scene.metrics.served("resource", "comet", "rebuilt", [found("job")], 0.1)
    scene.clock.now += 179
    assert scene.value("retally_drift_rows", show="comet", total="job") == 0
    # the last pass of a tick that is gone may come in late
    scene.metrics.served("subscription", "comet", "rebuilt", [found("subscription")], 0.1)
    scene.metrics.claimed("subscription", 1, 1)
    assert scene.value("retally_drift_rows", show="comet", total="subscription") is None
    assert scene.value("retally_shows_due", tick="subscription") is None


def test_the_claims_of_one_pass_add_up_and_the_next_pass_begins_anew(scene: Scene) -> None:
    def due_and_claimed() -> tuple[float | None, float | None]:
        return (
            scene.value("retally_shows_due", tick="resource"),
            scene.value("retally_shows_claimed", tick="resource"),
        )

    assert due_and_claimed() == (0, 0)
    for due, claimed in ((9, 5), (4, 0), (4, 3), (0, 0)):
        scene.metrics.claimed("resource", due, claimed)
    assert due_and_claimed() == (9, 8)
    scene.metrics.pass_over("resource", 8, 0.1, late=False)
    assert due_and_claimed() == (9, 8)
    scene.metrics.claimed("resource", 2, 1)
    assert due_and_claimed() == (2, 1)
    scene.metrics.pass_failed("resource", "disk_full")
    scene.metrics.claimed("resource", 1, 0)
    assert due_and_claimed() == (1, 0)
    scene.metrics.claimed("resource", 6, 4)
    scene.metrics.database_up(False)
    scene.metrics.claimed("resource", 5, 2)
    assert due_and_claimed() == (5, 2)


def test_every_pass_has_one_outcome(scene: Scene) -> None:
    scene.metrics.pass_over("resource", 3, 0.004, late=False)
    scene.metrics.pass_over("resource", 2, 12.0, late=True)
    scene.metrics.pass_failed("resource", "statement_timeout")
    scene.metrics.deferred("resource", None)
    told = scene.scrape()
    for outcome in PASS_OUTCOMES:
        assert told["retally_passes_total", (("outcome", outcome), ("tick", "resource"))] == 1
        assert told["retally_passes_total", (("outcome", outcome), ("tick", "subscription"))] == 0
    assert told["retally_pass_shows_total", (("tick", "resource"),)] == 5
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in told.items()
        if name == "retally_pass_duration_seconds_bucket"
    }
    assert (buckets["0.005"], buckets["10.0"], buckets["30.0"]) == (1, 1, 2)
    assert (
        scene.value("retally_pass_failures_total", tick="resource", kind="statement_timeout") == 1
    )


def test_faults_begin_with_zero_so_that_the_first_one_is_an_increase(scene: Scene) -> None:
    assert {
        kind: scene.value("retally_faults_total", kind=kind) for kind in FAULTS
    } == dict.fromkeys(FAULTS, 0)
    scene.metrics.fault("disk_full")
    scene.metrics.fault("deadlock")
    assert scene.value("retally_faults_total", kind="disk_full") == 1
    assert scene.value("retally_faults_total", kind="deadlock") == 1


def test_the_repairs_of_a_show_begin_with_no_refusal(scene: Scene) -> None:
    at = {"tick": "resource", "show": "comet", "outcome": "refused"}
    scene.metrics.served("resource", "comet", "rebuilt", [], 0.1)
    assert scene.value("retally_show_passes_total", **at) is None
    scene.metrics.served("resource", "comet", "repaired", [], 0.1)
    scene.metrics.repaired("comet", "job", 4)
    assert scene.value("retally_show_passes_total", **at) == 0
    scene.metrics.repair_refused("resource", "comet", [])
    assert scene.value("retally_show_passes_total", **at) == 1
    assert scene.value("retally_rows_repaired_total", show="comet", total="job") == 4


def test_the_database_and_the_settings_are_told(scene: Scene) -> None:
    assert scene.value("retally_database_up") == 0
    assert scene.value("retally_last_reload_successful") == 1
    scene.metrics.database_up(True)
    scene.metrics.reloaded(False)
    assert scene.value("retally_database_up") == 1
    assert scene.value("retally_last_reload_successful") == 0
    assert scene.value("retally_reloads_total", outcome="failed") == 1


def test_the_use_of_the_pool_is_that_of_the_moment(
    scene: Scene, farm_db: psycopg.Connection
) -> None:
    assert scene.value("retally_pool_connections_max") is None
    with pool(farm_db.info.dsn, max_size=2, timeout=0.1) as connections:
        scene.metrics.watch_pool(connections.get_stats)
        with connections.connection(), connections.connection():
            with pytest.raises(PoolTimeout):
                connections.getconn()
            told = scene.scrape()
        assert told["retally_pool_connections_max", ()] == 2
        assert told["retally_pool_connections", ()] == 2
        assert told["retally_pool_connections_idle", ()] == 0
        assert told["retally_pool_requests_total", ()] == 3
        assert told["retally_pool_request_errors_total", ()] == 1
        assert 0.1 <= told["retally_pool_wait_seconds_total", ()] < PATIENCE


def test_names_and_labels_keep_to_the_rules() -> None:
    families = list(exercised().registry.collect())
    assert len({family.name for family in families}) == len(families)
    allowed = {"tick", "show", "total", "outcome", "kind", "le", "version"}
    for family in families:
        assert family.name.startswith(("retally_", "process_")), family.name
        assert family.documentation.endswith("."), family.name
        assert family.samples, family.name
        for sample in family.samples:
            assert set(sample.labels) <= allowed, sample
            assert not sample.name.endswith("_created")
            assert family.type != "counter" or sample.name.endswith("_total")


def test_two_workers_in_one_process_count_for_themselves() -> None:
    first, second = Metrics(INTERVALS), Metrics(INTERVALS)
    first.fault("disk_full")
    assert second.registry.get_sample_value("retally_faults_total", {"kind": "disk_full"}) == 0


def test_scrapes_beside_passes_lose_nothing_and_see_whole_shows(scene: Scene) -> None:
    """Each pass says the same of two totals, so a scrape that sees them differ saw half a pass."""
    rounds = 300
    begun = threading.Barrier(4)

    def work(show: str) -> None:
        begun.wait(PATIENCE)
        for number in range(rounds):
            passes = [
                found(total, rows_adrift=number, rows_changed=1) for total in ("job", "layer")
            ]
            scene.metrics.served("resource", show, "rebuilt", passes, 0.01)
            scene.metrics.show_failed("resource", f"{show}{number}", "refused")
            scene.clock.now += 1  # so that shows go stale meanwhile
            scene.metrics.claimed("resource", 2, 1)

    def watch() -> int:
        begun.wait(PATIENCE)
        torn = 0
        while any(not each.done() for each in working):
            told = scene.scrape()
            for show in ("a", "b"):
                pair = {
                    told.get(("retally_drift_rows", (("show", show), ("total", total))))
                    for total in ("job", "layer")
                }
                torn += len(pair) > 1
        return torn

    with ThreadPoolExecutor(4) as threads:
        working = [threads.submit(work, show) for show in ("a", "b")]
        watching = [threads.submit(watch) for _ in range(2)]
        assert [each.result(PATIENCE) for each in working] == [None, None]
        assert [each.result(PATIENCE) for each in watching] == [0, 0]
    for show in ("a", "b"):
        assert scene.value("retally_rows_changed_total", show=show, total="job") == rounds
