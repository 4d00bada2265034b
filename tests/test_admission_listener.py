"""What the store hears of releases and caps, and what it does when it hears nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest
from admitted import stats
from bouncer import bouncer, program
from small_farm import Rows, Work, booking, make_work, manage
from worker_process import await_true

from retally.dispatch import Admission, Dispatcher
from retally.sql.errors import OverCapError, RetallyError, typed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Connect
    from tcp_proxy import Proxy

    from retally.sql.embedded import EmbeddedServer

#: No recount within the test but for those that are asked for.
LISTENING = Admission(recount_seconds=3600)


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    """A managed show with a burst of ten cores, whose releases are told."""
    farm_db.execute("UPDATE retally.setting SET notify = true")
    made = make_work(Rows(farm_db), burst=1000)
    manage(farm_db, made, True)
    return made


@pytest.fixture
def dispatcher(farm_db: psycopg.Connection, work: Work) -> Iterator[Dispatcher]:
    """One that has booked a core of the show, listens, and has made the recount after that."""
    with Dispatcher(farm_db.info.dsn, admission=LISTENING) as running:
        running.book(booking(work))
        await_heard(running)
        yield running


def await_heard(dispatcher: Dispatcher, connects: int = 1) -> None:
    """Return once it listens, and has counted what it may have missed."""
    before = stats(dispatcher).recounts
    await_true(lambda: stats(dispatcher).connects >= connects)
    await_true(lambda: stats(dispatcher).recounts > min(before, connects - 1))


def in_use(dispatcher: Dispatcher, work: Work) -> int:
    """Core units, as the refusal of a booking that cannot fit says."""
    with pytest.raises(OverCapError) as caught:
        dispatcher.book(booking(work, core_units=10**6))
    return int(str(caught.value).rpartition(", ")[2].split()[0])


def limit(dispatcher: Dispatcher, work: Work, core_units: int = 10**6) -> str:
    """What refuses a booking that cannot fit."""
    try:
        dispatcher.release(dispatcher.book(booking(work, core_units=core_units)))
    except OverCapError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("batch", [False, True])
def test_a_release_makes_room_to_the_core_unit_whoever_releases(
    farm_db: psycopg.Connection, work: Work, dispatcher: Dispatcher, batch: bool
) -> None:
    procs = [dispatcher.book(booking(work, core_units=units)) for units in (50, 150, 250)]
    assert in_use(dispatcher, work) == 550
    with Dispatcher(farm_db.info.dsn, admission=None) as other:
        if batch:
            other.release_many(procs)
        else:
            for proc in procs:
                other.release(proc)
    await_true(lambda: in_use(dispatcher, work) == 100)
    # of a batch one for the job and allocation
    assert stats(dispatcher).releases == (1 if batch else 3)
    assert stats(dispatcher).recounts == 1


def test_what_was_released_before_the_show_was_counted_makes_no_room_twice(
    farm_db: psycopg.Connection, work: Work, proxy: Proxy
) -> None:
    settings = Admission(recount_seconds=3600, listen_dsn=proxy.dsn)
    with Dispatcher(farm_db.info.dsn, admission=settings) as dispatcher:
        procs = [dispatcher.book(booking(work)) for _ in range(5)]
        await_heard(dispatcher)
        with proxy.frozen():
            dispatcher.release_many(procs[:3])
            # a foreign message asks for a recount, which is heard only later; so count by a job
            # that moves
            farm_db.execute(
                "UPDATE job SET pk_folder = %s", (Rows(farm_db).folder(work.show, work.dept),)
            )
            dispatcher.book(booking(work))
            assert in_use(dispatcher, work) == 300
            last = dispatcher.release(procs[3])
            assert last
        await_true(lambda: stats(dispatcher).releases == 2)
        assert in_use(dispatcher, work) == 200


@pytest.mark.parametrize("vertex", ["subscription", "folder", "job"])
def test_a_cap_that_is_set_holds_at_once_down_and_up(
    farm_db: psycopg.Connection, work: Work, dispatcher: Dispatcher, vertex: str
) -> None:
    def set_cap(core_units: int) -> None:
        if vertex == "subscription":
            farm_db.execute(
                "CALL retally.set_burst(%s, %s, %s)", (work.show, work.alloc, core_units)
            )
        else:
            key = work.folder if vertex == "folder" else work.job
            farm_db.execute(f"CALL retally.set_{vertex}_max(%s, %s)".encode(), (key, core_units))

    for core_units in (150, 250, 199):
        set_cap(core_units)
        await_true(lambda units=core_units: f"of {units}," in limit(dispatcher, work, units))  # type: ignore[misc]
        room = core_units - 100
        with pytest.raises(OverCapError):
            dispatcher.book(booking(work, core_units=room + 1))
        await_true(lambda units=room: not limit(dispatcher, work, units))  # type: ignore[misc]
        await_true(lambda: in_use(dispatcher, work) == 100)
    assert stats(dispatcher).recounts == 1


def test_a_cap_of_gpus_is_heard_and_minus_one_lifts_it(
    farm_db: psycopg.Connection, work: Work, dispatcher: Dispatcher
) -> None:
    farm_db.execute("CALL retally.set_job_max(%s, NULL, 2)", (work.job,))
    await_true(lambda: stats(dispatcher).limit_changes == 1)
    with pytest.raises(OverCapError, match="3 GPUs more would pass its maximum of 2"):
        dispatcher.book(booking(work, gpus=3))
    farm_db.execute("CALL retally.set_job_max(%s, -1, -1)", (work.job,))
    await_true(lambda: stats(dispatcher).limit_changes == 2)
    dispatcher.book(booking(work, gpus=3))


def test_caps_that_cannot_be_are_refused_and_change_nothing(
    farm_db: psycopg.Connection, work: Work
) -> None:
    calls = [
        (f"set_burst('{work.show}', '{work.alloc}', -1)", "cannot be -1"),
        (f"set_burst('{work.show}', '{work.alloc}', NULL)", "cannot be null"),
        (f"set_burst('{work.show}', 'gone', 5)", 'no subscription to allocation "gone"'),
        ("set_burst('gone', 'gone', 5)", 'no show "gone"'),
        (f"set_job_max('{work.job}', -2)", "cannot be -2"),
        ("set_job_max('gone', 5)", 'no job "gone"'),
        (f"set_folder_max('{work.folder}', 5, -2)", "cannot be -2"),
        ("set_folder_max('gone', 5)", 'no folder "gone"'),
    ]
    for call, message in calls:
        with pytest.raises(psycopg.Error) as caught:
            farm_db.execute(f"CALL retally.{call}".encode())
        assert message in str(caught.value)
        assert isinstance(typed(caught.value), RetallyError)
    assert farm_db.execute("SELECT int_burst FROM subscription").fetchone() == (1000,)


def test_limits_are_told_in_the_wire_form_only_where_the_setting_is_on(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    ears = connect()
    ears.execute("LISTEN acct_limit_change")
    for notify in (False, True):
        farm_db.execute("UPDATE retally.setting SET notify = %s", (notify,))
        farm_db.execute("CALL retally.set_burst(%s, %s, 250)", (work.show, work.alloc))
        farm_db.execute("CALL retally.set_folder_max(%s, 50, 3)", (work.folder,))
        farm_db.execute("CALL retally.set_job_max(%s, -1)", (work.job,))
    told = [json.loads(each.payload) for each in ears.notifies(timeout=60, stop_after=3)]
    assert all(int(one.pop("xact")) > 0 for one in told)
    assert told == [
        {
            "vertex": "sub",
            "show": work.show,
            "alloc": work.alloc,
            "burst": 2,
            "core_units": 250,
        },
        # half a core is not none: that would be no limit
        {"vertex": "folder", "id": work.folder, "max_cores": 1, "max_gpus": 3, "core_units": 50},
        {"vertex": "job", "id": work.job, "max_cores": -1, "core_units": -1},
    ]


def test_a_payload_that_makes_no_sense_is_counted_and_skipped(
    farm_db: psycopg.Connection, work: Work, dispatcher: Dispatcher
) -> None:
    for payload in ("", "no json", "[]", '{"show": 5}', '{"vertex": "star", "id": "x"}'):
        farm_db.execute("SELECT pg_notify('acct_release', %s)", (payload,))
        farm_db.execute("SELECT pg_notify('acct_limit_change', %s || ' ')", (payload,))
    proc = dispatcher.book(booking(work))
    dispatcher.release(proc)
    await_true(lambda: stats(dispatcher).releases == 1)
    assert stats(dispatcher).malformed == 10
    assert in_use(dispatcher, work) == 100


def test_a_message_that_does_not_say_when_it_was_is_a_hint_and_makes_no_room_by_itself(
    farm_db: psycopg.Connection, work: Work, dispatcher: Dispatcher
) -> None:
    release = {
        "show": work.show,
        "alloc": work.alloc,
        "folder": work.folder,
        "job": work.job,
        "layer": work.layer,
        "dept": work.dept,
        "cores": -1,
        "gpus": 0,
    }
    # nothing was released
    farm_db.execute("SELECT pg_notify('acct_release', %s)", (json.dumps(release),))
    await_true(lambda: stats(dispatcher).recounts == 2)
    assert in_use(dispatcher, work) == 100
    # a burst that somebody has raised, says an old message
    raised = {"vertex": "sub", "show": work.show, "alloc": work.alloc, "burst": 9999}
    farm_db.execute("SELECT pg_notify('acct_limit_change', %s)", (json.dumps(raised),))
    await_true(lambda: stats(dispatcher).recounts == 3)
    assert "burst of 1000," in limit(dispatcher, work)
    # and what it says of an hour ago lasts until the recount that it asks for
    lowered = raised | {"burst": 5}
    farm_db.execute("SELECT pg_notify('acct_limit_change', %s)", (json.dumps(lowered),))
    await_true(lambda: stats(dispatcher).recounts == 4)
    assert "burst of 1000," in limit(dispatcher, work)


def test_what_changed_while_the_listener_was_cut_off_is_found_when_it_is_back(
    farm_db: psycopg.Connection, work: Work, proxy: Proxy
) -> None:
    settings = Admission(recount_seconds=3600, listen_dsn=proxy.dsn)
    with Dispatcher(farm_db.info.dsn, admission=settings) as dispatcher:
        procs = [dispatcher.book(booking(work)) for _ in range(5)]
        await_heard(dispatcher)
        with proxy.refusing():
            proxy.cut()
            await_true(lambda: stats(dispatcher).listener == "connecting")
            dispatcher.release_many(procs[:2])
            farm_db.execute("UPDATE subscription SET int_burst = 700")  # tells nobody
            assert in_use(dispatcher, work) == 500
        await_true(lambda: stats(dispatcher).listener == "listening")
        await_true(lambda: in_use(dispatcher, work) == 300)
        assert "burst of 700," in limit(dispatcher, work)


def test_with_the_kill_switch_nothing_is_heard_and_recounts_find_all_of_it(
    farm_db: psycopg.Connection, work: Work
) -> None:
    settings = Admission(recount_seconds=0.1, notify=False)
    with Dispatcher(farm_db.info.dsn, admission=settings) as dispatcher:
        procs = [dispatcher.book(booking(work)) for _ in range(5)]
        dispatcher.release_many(procs[:2])
        farm_db.execute("CALL retally.set_burst(%s, %s, 700)", (work.show, work.alloc))
        await_true(lambda: "burst of 700, 300 are" in limit(dispatcher, work))
        assert (stats(dispatcher).listener, stats(dispatcher).connects) == ("off", 0)


@pytest.mark.skipif(program() is None, reason="no pgbouncer here: try apt install pgbouncer")
def test_through_a_transaction_pooler_it_is_deaf_unless_it_knows_the_server(
    server: EmbeddedServer, farm_db: psycopg.Connection, work: Work
) -> None:
    with bouncer(server, pool_size=4) as pooler:
        dsn = pooler.dsn(farm_db.info.dbname)
        deaf = Admission(lease_seconds=1, recount_seconds=0.1)
        with Dispatcher(dsn, admission=deaf) as dispatcher:
            proc = dispatcher.book(booking(work))
            assert in_use(dispatcher, work) == 100
            dispatcher.release(proc)
            await_true(lambda: in_use(dispatcher, work) == 0)  # found by a recount
            assert (stats(dispatcher).listener, stats(dispatcher).connects) == ("connecting", 0)
        settings = Admission(lease_seconds=1, recount_seconds=0.1, listen_dsn=farm_db.info.dsn)
        with Dispatcher(dsn, admission=settings) as dispatcher:
            proc = dispatcher.book(booking(work))
            await_true(lambda: stats(dispatcher).listener == "listening")
            dispatcher.release(proc)
            await_true(lambda: stats(dispatcher).releases == 1)
            recounts = stats(dispatcher).recounts
            await_true(lambda: stats(dispatcher).recounts > recounts + 3)
            assert stats(dispatcher).failures == 0
            # the lease was renewed through the pooler
            await_true(lambda: not _expires_first(farm_db))
            dispatcher.book(booking(work))


def _expires_first(conn: psycopg.Connection) -> bool:
    """Whether the lease would have ended by now, had it not been renewed."""
    row = conn.execute(
        "SELECT clock_timestamp() < l.taken_at + interval '1 second' FROM retally.lease AS l"
    ).fetchone()
    return row == (True,)
