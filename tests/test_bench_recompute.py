"""``retally bench recompute``: what each method does to a farm; never how fast it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from retally.bench.place import own_database
from retally.bench.recompute.cell import measured
from retally.bench.recompute.counters import Counters
from retally.bench.recompute.farm import Farm, size_of
from retally.bench.recompute.methods import WAYS
from retally.bench.recompute.records import IN_VIEWS, LIMITS, RETALLY, Method, Plan, Scenario, Spec
from retally.bench.recompute.run import methods_for, specs
from retally.bench.recompute.totals import TABLES
from retally.sql.errors import DatabaseError, translated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import LiteralString

    from retally.bench.recompute.records import Cell
    from retally.sql.embedded import EmbeddedServer

PROCS = 2000
WRITING = [m for m in Method if m not in LIMITS | IN_VIEWS | {Method.ONE, Method.JOURNAL}]
_CAPS: LiteralString = """
    SELECT md5(string_agg(line, ' ' ORDER BY line)) FROM (
        SELECT concat_ws(' ', pk_subscription, int_burst) AS line FROM public.subscription
        UNION ALL
        SELECT concat_ws(' ', pk_job, int_max_cores, int_max_gpus) FROM public.job_resource
    ) AS lines
"""


@pytest.fixture(scope="module")
def farm(server: EmbeddedServer) -> Iterator[Farm]:
    with own_database(server.dsn()) as dsn:
        yield Farm(dsn, PROCS, seed=1)


@pytest.fixture(scope="module")
def counters(farm: Farm) -> Counters:
    return Counters(farm)


def spec(scenario: Scenario, method: Method) -> Spec:
    return Spec(procs=PROCS, scenario=scenario, method=method)


def value(farm: Farm, query: LiteralString | sql.Composed) -> str:
    with farm.session() as conn:
        row = conn.execute(query).fetchone()
    assert row
    return str(row[0])


def amounts(farm: Farm) -> list[str]:
    """A digest of each table of totals: its amounts, tiers and caps."""
    digest = "SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {} AS t"
    tables = [sql.Identifier("public", table.name) for table in TABLES]
    return [value(farm, sql.SQL(digest).format(table)) for table in tables]


def ran(farm: Farm, scenario: Scenario, method: Method) -> None:
    farm.prepare(spec(scenario, method))
    with farm.session() as conn:
        WAYS[method].call(conn, farm)


def test_a_farm_is_as_skewed_at_every_size() -> None:
    size = size_of(200_000, seed=1)
    assert (size.jobs, size.finished_jobs, size.hosts) == (2727, 27270, 3000)
    assert (size.jobs + size.finished_jobs) * size.layers == pytest.approx(180_000, rel=0.001)
    assert size_of(2_000_000, seed=1).jobs == 27270
    assert size_of(1000, seed=1).jobs == 20  # one for each show


def test_all_shows_are_managed_and_the_one_show_is_that_of_a_twentieth(farm: Farm) -> None:
    assert value(farm, "SELECT count(*) FROM retally.shows() AS s WHERE s.managed") == "20"
    nearest = "SELECT min(abs(n - 100)) FROM (SELECT count(*) AS n FROM proc GROUP BY pk_show) AS s"
    assert value(farm, nearest) == str(abs(farm.size.one_show - 100))


@pytest.mark.parametrize("scenario", [Scenario.BUSY_1, Scenario.BUSY_10, Scenario.CHANGED_1000])
def test_a_busy_farm_has_changed_exactly_as_much_as_asked(farm: Farm, scenario: Scenario) -> None:
    with farm.session() as conn:
        before = {row[0] for row in conn.execute("SELECT pk_proc FROM proc")}
        farm.enter(scenario)
        after = {row[0] for row in conn.execute("SELECT pk_proc FROM proc")}
        lost = conn.execute(
            "SELECT count(*) FROM bench.booked AS b LEFT JOIN job AS j USING (pk_job)"
            " LEFT JOIN layer AS l ON b.pk_layer = l.pk_layer AND b.pk_job = l.pk_job"
            " LEFT JOIN host AS h USING (pk_host)"
            " WHERE j.str_state IS DISTINCT FROM 'PENDING' OR j.pk_show <> b.pk_show"
            " OR l.pk_layer IS NULL OR h.pk_host IS NULL"
        ).fetchone()
    assert len(before - after) == len(after - before) == scenario.changed(PROCS) / 2
    assert lost == (0,)
    farm.prepare(spec(scenario, Method.ALL))
    assert farm.rows_wrong(Method.ALL) > 0


@pytest.mark.parametrize("scenario", list(Scenario))
def test_retally_and_row_by_row_leave_no_total_wrong(farm: Farm, scenario: Scenario) -> None:
    farm.enter(scenario)
    for method in (Method.ALL, Method.BY_SHOW, Method.ROWS):
        ran(farm, scenario, method)
        assert farm.rows_wrong(method) == 0, method
    assert farm.slots_adrift(Method.ALL) == 0
    assert farm.slots_adrift(Method.ROWS) is None


def journal(farm: Farm) -> tuple[str, str, str]:
    """Triggers of the journal on proc, its entries, and how many shows are journaled."""
    triggers = (
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'proc'::regclass AND NOT tgisinternal"
    )
    return (
        value(farm, triggers),
        value(farm, "SELECT count(*) FROM retally.journal"),
        value(farm, "SELECT count(*) FROM retally.shows() AS s WHERE s.journaled"),
    )


def contents(farm: Farm) -> str:
    return value(farm, "SELECT md5(string_agg(p::text, ' ' ORDER BY pk_proc)) FROM proc AS p")


@pytest.mark.parametrize("scenario", [s for s in Scenario if s is not Scenario.COLD])
def test_a_fold_of_the_journal_leaves_no_total_wrong_and_no_trigger(
    farm: Farm, counters: Counters, scenario: Scenario
) -> None:
    farm.enter(scenario)
    fold = spec(scenario, Method.JOURNAL)
    farm.prepare(spec(scenario, Method.ALL))
    others, procs, without = amounts(farm), contents(farm), journal(farm)
    assert without[1:] == ("0", "0")
    for _ in range(2):
        farm.prepare(fold)
        assert journal(farm) == (
            str(int(without[0]) + 3), str(scenario.changed(PROCS)), str(farm.size.shows)
        )  # fmt: skip
        assert (amounts(farm), contents(farm)) == (others, procs)
        farm.leave(fold)
    cell = measured(farm, counters, fold, 1)
    assert (cell.rows_wrong, cell.slots_adrift) == (0, 0)
    assert (cell.rows_written > 0) == (scenario is not Scenario.QUIET)
    # the methods after it find what those before it found
    farm.prepare(spec(scenario, Method.ALL))
    assert (amounts(farm), contents(farm), journal(farm)) == (others, procs, without)


def test_an_entry_that_is_lost_is_a_total_wrong(farm: Farm) -> None:
    farm.enter(Scenario.BUSY_10)
    fold = spec(Scenario.BUSY_10, Method.JOURNAL)
    farm.prepare(fold)
    with farm.session() as conn:
        conn.execute(
            "DELETE FROM retally.journal WHERE ctid = (SELECT min(ctid) FROM retally.journal)"
        )
        WAYS[Method.JOURNAL].call(conn, farm)
    assert farm.rows_wrong(Method.JOURNAL) > 0
    assert farm.slots_adrift(Method.JOURNAL)
    farm.leave(fold)


def test_every_session_has_as_many_parallel_workers_as_asked_for(farm: Farm) -> None:
    assert value(farm, "SELECT current_setting('max_parallel_workers_per_gather')") == "0"


def test_big_farms_are_spared_slow_methods_that_nobody_asks_for() -> None:
    assert methods_for(Plan(), 500_000) == tuple(Method)
    slow = {Method.BY_SHOW, Method.ROWS, *IN_VIEWS}
    assert set(methods_for(Plan(), 500_001)) == set(Method) - slow
    assert methods_for(Plan(methods=(Method.ROWS,)), 2_000_000) == (Method.ROWS,)


def test_in_a_cold_farm_every_row_is_wrong_in_every_amount(farm: Farm) -> None:
    farm.enter(Scenario.COLD)
    farm.prepare(spec(Scenario.COLD, Method.ALL))
    rows = {table.name: 20 * 3 for table in TABLES} | {
        "layer_resource": farm.size.layers,
        "job_resource": farm.size.jobs + farm.size.finished_jobs,
        "folder_resource": 20 * 4,
    }
    assert {table.name: int(value(farm, table.wrong())) for table in TABLES} == rows
    slots = sum(rows[table.name] * len(table.slots) for table in TABLES)
    assert farm.slots_adrift(Method.ALL) == slots


def test_one_update_per_table_has_the_faults_that_it_is_known_for(farm: Farm) -> None:
    farm.enter(Scenario.COLD)
    ran(farm, Scenario.COLD, Method.TABLES)
    wrong = {table.name: int(value(farm, table.wrong())) for table in TABLES}
    assert wrong["subscription"] == wrong["layer_resource"] == 0
    # it counts local procs in: wherever there are some
    local = (
        "SELECT count(DISTINCT {}) FROM proc AS p INNER JOIN job AS j USING (pk_job)"
        " WHERE p.b_local"
    )
    folders, points = (
        int(value(farm, sql.SQL(local).format(sql.SQL(key))))
        for key in ("j.pk_folder", "(j.pk_show, j.pk_dept)")
    )
    assert (wrong["folder_resource"], wrong["point"]) == (folders, points)
    # it leaves finished jobs as they are, and local amounts of all jobs
    assert wrong["job_resource"] == farm.size.jobs + farm.size.finished_jobs
    live = (
        "SELECT count(*) FROM job_resource AS r INNER JOIN bench.truth_job_resource AS t"
        " USING (pk_job) INNER JOIN job AS j USING (pk_job) WHERE j.str_state = {}"
        " AND r.int_cores = t.int_cores + t.int_local_cores"
    )
    right = [
        int(value(farm, sql.SQL(live).format(sql.Literal(state))))
        for state in ("PENDING", "FINISHED")
    ]
    assert right == [farm.size.jobs, 0]


@pytest.mark.parametrize("method", [Method.ROWS, Method.TABLES])
def test_caps_are_afterwards_what_they_were(farm: Farm, method: Method) -> None:
    farm.enter(Scenario.COLD)
    with farm.session() as conn:  # below what runs, so that both have to lift it
        conn.execute("UPDATE subscription SET int_burst = 1")
        conn.execute("UPDATE job_resource SET int_max_cores = 1, int_max_gpus = 0")
        before = conn.execute(_CAPS).fetchone()
        conn.execute("UPDATE subscription SET int_cores = -1")
        conn.execute("UPDATE job_resource SET int_cores = -1, int_gpus = -1")
        WAYS[method].call(conn, farm)
        assert conn.execute(_CAPS).fetchone() == before
        # room again for those who come after
        conn.execute("UPDATE subscription SET int_burst = 2000000000")
        conn.execute("UPDATE job_resource SET int_max_cores = 2000000000, int_max_gpus = 1000000")


def test_totals_are_put_back_above_their_caps_too_and_the_farm_guards_them_afterwards(
    farm: Farm,
) -> None:
    farm.enter(Scenario.QUIET)
    farm.prepare(spec(Scenario.QUIET, Method.ALL))
    highest = "SELECT max(int_cores) FROM job_resource"
    before, most = amounts(farm), value(farm, highest)
    with farm.session() as conn:
        caps = conn.execute("SELECT pk_job, int_max_cores FROM job_resource").fetchall()
        conn.execute("UPDATE job_resource SET int_cores = 0, int_max_cores = 1")
    farm.prepare(spec(Scenario.QUIET, Method.ALL))
    assert value(farm, highest) == most
    with farm.session() as conn:
        with pytest.raises(DatabaseError, match="above its maximum"), translated():
            conn.execute("UPDATE job_resource SET int_cores = int_cores + 1")
        for job, cap in caps:
            conn.execute("UPDATE job_resource SET int_max_cores = %s WHERE pk_job = %s", (cap, job))
    assert amounts(farm) == before


@pytest.mark.parametrize("scenario", [Scenario.BUSY_10, Scenario.COLD])
def test_every_method_finds_the_same_farm(farm: Farm, scenario: Scenario) -> None:
    farm.enter(scenario)
    found = {}
    for method in WRITING:
        farm.prepare(spec(scenario, method))
        found[method] = amounts(farm)
        with farm.session() as conn:
            WAYS[method].call(conn, farm)
        assert amounts(farm) != found[method]
    assert len({tuple(digests) for digests in found.values()}) == 1, found


@pytest.mark.parametrize("scenario", list(Scenario))
@pytest.mark.parametrize("method", sorted(IN_VIEWS))
def test_views_are_stale_before_a_pass_and_right_after_it(
    farm: Farm, scenario: Scenario, method: Method
) -> None:
    farm.enter(scenario)
    farm.prepare(spec(scenario, method))
    stale = [int(value(farm, table.wrong_in_view())) for table in TABLES]
    assert all(stale) if scenario is not Scenario.QUIET else not any(stale)
    ran(farm, scenario, method)
    assert farm.rows_wrong(method) == 0


def cells(farm: Farm, counters: Counters, scenario: Scenario) -> dict[Method, Cell]:
    farm.enter(scenario)
    methods = [method for method in Method if farm.has(method)]
    return {
        one.method: measured(farm, counters, one, 1) for one in specs(PROCS, scenario, 0, methods)
    }


def test_a_quiet_pass_of_retally_writes_no_row_and_next_to_no_wal(
    farm: Farm, counters: Counters
) -> None:
    found = cells(farm, counters, Scenario.QUIET)
    for method in RETALLY & set(found):
        cell = found[method]
        assert (cell.rows_written, cell.dead_rows, cell.rows_wrong, cell.slots_adrift) == (0,) * 4
        assert cell.wal_bytes < 10_000
    # what the alternatives write although nothing changed: jobs once, subscriptions twice …
    tables = found[Method.TABLES]
    assert tables.rows_written == farm.size.jobs + 2 * 60 + 80 + 60
    assert tables.wal_bytes > 10_000
    assert found[Method.VIEWS].rows_written > 0 == found[Method.VIEWS_BESIDE].rows_written
    assert found[Method.LIMIT].rows_wrong is None
    # each read all procs, and nothing of what the cell itself asks is counted
    pages = int(value(farm, "SELECT pg_relation_size('proc') / 8192"))
    for cell in found.values():
        if cell.spec.method is not Method.ONE:
            assert cell.buffers >= pages


def test_a_busy_pass_writes_what_has_changed_and_is_made_once(
    farm: Farm, counters: Counters
) -> None:
    found = cells(farm, counters, Scenario.BUSY_10)
    assert Method.ONE not in found
    farm.prepare(spec(Scenario.BUSY_10, Method.ALL))
    wrong = farm.rows_wrong(Method.ALL)
    assert found[Method.ALL].rows_written == found[Method.BY_SHOW].rows_written == wrong
    assert found[Method.ROWS].rows_written > wrong
    assert {cell.calls for cell in found.values() if cell.spec.method not in LIMITS} == {1}


def test_a_method_whose_routines_are_not_there_is_left_out(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert farm.has(Method.ALL)
    monkeypatch.setitem(WAYS, Method.JOURNAL, replace(WAYS[Method.ALL], needs=("no_such",)))
    assert not farm.has(Method.JOURNAL)
    assert Method.JOURNAL not in {s.method for s in specs(PROCS, Scenario.COLD, 0)}


def test_each_round_begins_with_another_method() -> None:
    first = [specs(PROCS, Scenario.COLD, number)[0].method for number in range(8)]
    assert sorted(first) == sorted({s.method for s in specs(PROCS, Scenario.COLD, 0)})
