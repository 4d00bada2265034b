"""The rights of `retally grants`: enough for everything that a role is for, and none too many."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from psycopg.conninfo import make_conninfo
from small_farm import Rows, Work, booking, corrupt, make_work, stored

from retally.cli import main
from retally.procedures import TOTALS, admission, journal, repairs, rights, routines
from retally.procedures import booking as bookings
from retally.procedures.ledger import Filters, ledger
from retally.procedures.rights import PURPOSES, Right
from retally.sql.errors import BookingRefusedError, PermissionDeniedError
from retally.sql.migrate import require_current
from retally.worker import Requests, Worker, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Step = Callable[[psycopg.Connection, "Farm"], object]


@dataclass(frozen=True)
class Farm:
    """Shows in each state that a worker meets, with totals that are wrong, and one to book for."""

    managed: Work
    watched: Work
    repaired: Work
    journaled: Work
    booked: Work


@pytest.fixture
def farm(farm_db: psycopg.Connection) -> Farm:
    """A farm on a hardened server: nothing is granted to PUBLIC."""
    farm_db.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    farm_db.execute("REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA retally FROM PUBLIC")
    farm_db.execute("UPDATE retally.setting SET notify = true, repair_share = 1")
    rows = Rows(farm_db)
    # the bursts are passed, so that a pass goes through the caps
    names = ("managed", "watched", "repaired", "journaled")
    works = [make_work(rows, name, burst=100) for name in names]
    for work in works:
        rows.proc(work.host, work.show, work.job, work.layer, cores=300, gpus=1)
        rows.proc(work.host, work.show, work.job, work.layer, cores=100, local=True)
        rows.local_share(work.host, work.job)
    managed, watched, repaired, journaled = works
    farm = Farm(managed, watched, repaired, journaled, make_work(rows, "booked"))
    rows.local_share(farm.booked.host, farm.booked.job)
    for name in ("managed", "journaled"):
        routines.set_managed(farm_db, name, managed=True)
    journal.set_journal(farm_db, "journaled", on=True)
    routines.set_mode(farm_db, "watched", "watch")
    routines.set_mode(farm_db, "repaired", "repair")
    for work in works:
        farm_db.execute("CALL retally.recompute_show(%s)", (work.show,))
    work = farm.journaled
    rows.proc(work.host, work.show, work.job, work.layer, cores=100)
    rows.proc(farm.watched.host, farm.watched.show, "gone", None, cores=100)
    # by little: a repair that changes much is refused
    corrupt(farm_db)
    farm_db.execute("CALL retally.recompute_show('booked')")
    return farm


@pytest.fixture
def role(farm_db: psycopg.Connection) -> Iterator[str]:
    """A role that may log in and nothing else, with a name that has to be quoted."""
    name = f"Role of {farm_db.info.dbname}"
    quoted = sql.Identifier(name)
    farm_db.execute(sql.SQL("CREATE ROLE {} LOGIN").format(quoted))
    yield name
    farm_db.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(quoted))


@pytest.fixture
def dsn(farm_db: psycopg.Connection, role: str) -> str:
    """Connects as that role."""
    return make_conninfo(farm_db.info.dsn, user=role)


def run(dsn: str, *args: str) -> Result:
    return CliRunner().invoke(main, args, env={"RETALLY_DSN": dsn})


# What each purpose does, in steps that end by themselves; a new one is a line here. Each is a
# transaction of its own, or part of one: nothing here commits.
def _show_passes(conn: psycopg.Connection, farm: Farm) -> None:
    for work, action in ((farm.managed, "rebuilt"), (farm.watched, "watched")):
        claim = routines.claim_due(conn, "tick", 10, [work.show], "me")
        assert list(claim.failures) == [work.show]
        found = routines.findings(conn, [work.show], TOTALS)
        assert sum(each.rows_adrift for each in found) == len(TOTALS)
        if action == "rebuilt":
            done = routines.mend(conn, found, wait=True, tick="tick", worker="me")
            assert [each.rows_changed for each in done] == [1] * len(TOTALS)
        routines.note_findings(conn, found, action=action, tick="t", worker="me", seconds=0)


def _fold(conn: psycopg.Connection, farm: Farm) -> None:
    done = journal.fold(conn, [farm.journaled.show], wait=True, tick="tick", worker="me")
    assert [each.rows_changed for each in done] == [1] * len(TOTALS)
    assert journal.journal_state(conn).entries == 0


def _repair(conn: psycopg.Connection, farm: Farm) -> None:
    found = routines.findings(conn, [farm.repaired.show], TOTALS)
    done = repairs.repair(
        conn, found, wait=True, tick="tick", worker="me", asked_by="tick", force=False
    )
    assert done.run is not None
    assert len(ledger(conn, Filters(run=done.run))) > len(TOTALS)
    # rows above their burst are put back to less
    assert repairs.undo(conn, done.run).rows_restored == len(TOTALS)


def _fail_and_recover(conn: psycopg.Connection, farm: Farm) -> None:
    routines.note_failure(conn, "tick", farm.watched.show, 1, "the disk is on fire")
    routines.note_recovery(conn, "tick", [farm.watched.show])
    conn.execute("SELECT retally.note_deferred(%s, 'job', '{a}')", (farm.watched.show,))
    routines.forget_worker(conn, "me")
    routines.prune(conn, 10)


def _flip(conn: psycopg.Connection, farm: Farm) -> None:
    conn.execute("SELECT retally.change_override('none', %s)", ([farm.watched.show],))
    routines.set_managed(conn, farm.managed.show, managed=False)
    routines.set_managed(conn, farm.managed.show, managed=True)
    routines.set_mode(conn, farm.watched.show, "off")
    routines.set_mode(conn, farm.watched.show, None)


def _look(conn: psycopg.Connection, farm: Farm) -> None:
    require_current(conn)
    ids = [show.show_id for show in routines.shows(conn)]
    assert routines.drift(conn, ids, TOTALS)
    assert len(routines.orphans(conn)) == 1
    assert routines.host_drift(conn)
    routines.override(conn)
    admission.leases(conn)
    assert journal.journal_state(conn).triggers == journal.TRIGGERS
    routines.last_passes(conn)
    ledger(conn, Filters(shows=[farm.repaired.show]))
    conn.execute("SELECT * FROM retally.unserved_shows('1 min')")
    conn.execute("SELECT * FROM retally.missing_rows()")
    conn.execute("SELECT * FROM retally.worker, retally.history, retally.deferred")


def _book_and_release(conn: psycopg.Connection, farm: Farm) -> None:
    require_current(conn)
    for work in (farm.managed, farm.booked, farm.journaled):
        asked = booking(work, core_units=10)
        share = booking(work, core_units=10, local=True)
        too_much = booking(work, core_units=10**6)
        answers = bookings.book_many(conn, [asked, too_much, asked, share])
        procs = [answer.proc for answer in answers]
        assert [bool(proc) for proc in procs] == [True, False, True, True]
        assert bookings.release(conn, bookings.book(conn, asked))
        assert bookings.release(conn, bookings.book(conn, share))
        with pytest.raises(BookingRefusedError), conn.transaction():
            bookings.book(conn, too_much)
        assert sum(bookings.release_many(conn, [proc or "" for proc in procs])) == 3


def _admit(conn: psycopg.Connection, farm: Farm) -> None:
    work = farm.managed
    taking = admission.take_lease(conn, work.show, "managed", "me", 10)
    assert taking.token
    assert admission.take_lease(conn, work.show, "managed", "you", 10).served_by == "me"
    found = admission.counts(conn, work.show)
    assert {row.vertex for row in found.rows} == {"subscription", "folder", "job"}
    assert admission.job_counts(conn, work.job)
    assert admission.allocations(conn)[work.host] == work.alloc
    counted = bookings.Counted(taking.token, work.alloc, work.folder)
    assert bookings.release(conn, bookings.book(conn, booking(work, core_units=10), counted))
    held = {work.show: taking.token}
    assert admission.keep_leases(conn, "me", held, 10) == {work.show: False}
    admission.end_leases(conn, "me", held)


def _change_caps(conn: psycopg.Connection, farm: Farm) -> None:
    work = farm.managed
    conn.execute("CALL retally.set_burst(%s, %s, 200)", (work.show, work.alloc))
    conn.execute("CALL retally.set_folder_max(%s, 300, 3)", (work.folder,))
    conn.execute("CALL retally.set_job_max(%s, 400, 4)", (work.job,))
    admission.end_lease(conn, work.show)


def _be_refused(conn: psycopg.Connection, farm: Farm) -> None:
    for gone in ("host", "job", "layer", "frame"):
        with pytest.raises(BookingRefusedError), conn.transaction():
            bookings.book(conn, booking(farm.booked, **{gone: "gone"}))
    with pytest.raises(BookingRefusedError, match="burst"), conn.transaction():
        bookings.book(conn, booking(farm.watched, core_units=1000))


STEPS: dict[str, list[Step]] = {
    "worker": [_look, _show_passes, _fold, _repair, _fail_and_recover, _flip, _change_caps],
    "dispatcher": [_book_and_release, _be_refused, _admit],
    "reader": [_look],
}


def test_a_worker_and_every_command_run_with_the_rights_of_a_worker(
    farm_db: psycopg.Connection, farm: Farm, role: str, dsn: str
) -> None:
    assert run(farm_db.info.dsn, "grants", "--to", role, "--apply").exit_code == 0
    requests = Requests()
    worker = Worker(dsn, WorkerSettings(subscription_interval=0.1, resource_interval=0.1))
    working = threading.Thread(target=worker.run, args=(requests,))
    working.start()
    seen = "SELECT count(*) FROM retally.pass WHERE tick <> 'by hand'"
    # a fold is over all totals, in either tick
    while farm_db.execute(seen).fetchone() != (6 * len(TOTALS),):
        assert working.is_alive()
    requests.stop.set()
    working.join()

    assert stored(farm_db, farm.managed, "job")[:3] == (300, 1, 100)
    assert stored(farm_db, farm.watched, "job")[0] == 293
    assert stored(farm_db, farm.repaired, "job")[:3] == (300, 1, 100)
    assert stored(farm_db, farm.journaled, "job")[:3] == (400, 1, 100)
    (repaired,) = {entry.run for entry in ledger(farm_db, Filters(totals=["job"]))}
    for args, code in (
        (("status",), 0),
        (("watch", "--once"), 0),
        (("drift",), 3),
        (("ledger",), 0),
        (("unmanaged", "--show", "repaired", "off"), 0),
        (("undo", str(repaired)), 0),
        (("unmanaged", "--show", "repaired", "default"), 0),
        (("managed", "--override", "all"), 0),
        (("managed", "--override", "per-show"), 0),
        (("managed", "--show", "watched", "on"), 0),
        (("managed", "--show", "watched", "off"), 0),
        (("recompute", "--all", "--unmanaged-too"), 0),
        (("drift",), 0),
    ):
        result = run(dsn, *args)
        assert result.exit_code == code, (args, result.output)
    result = run(dsn, "doctor", "--format", "json")
    states = {line["check"]: line["state"] for line in json.loads(result.stdout)}
    assert states["privileges"] == "ok"


@pytest.mark.parametrize("purpose", PURPOSES)
def test_what_is_granted_for_a_purpose_is_enough_for_it(
    farm_db: psycopg.Connection, farm: Farm, role: str, dsn: str, purpose: str
) -> None:
    # psql takes what is printed
    printed = run(farm_db.info.dsn, "grants", "--to", role, "--for", purpose)
    assert printed.stderr == ""
    farm_db.execute(printed.stdout.encode())
    with psycopg.connect(dsn, autocommit=True) as conn:
        for step in STEPS[purpose]:
            step(conn, farm)
    assert rights.missing_rights(farm_db, role, purpose) == []


@pytest.mark.parametrize("purpose", PURPOSES)
def test_without_any_single_one_of_the_rights_something_is_refused_and_it_is_named(
    farm_db: psycopg.Connection, farm: Farm, role: str, purpose: str
) -> None:
    rights.grant(farm_db, role, purpose)
    assert not refused(farm_db, farm, role, purpose)
    needless = []
    for right in atoms(rights.rights(farm_db, purpose)):
        with farm_db.transaction(force_rollback=True):
            farm_db.execute(revocation(right, role))
            assert rights.missing_rights(farm_db, role, purpose) == [right]
            if not refused(farm_db, farm, role, purpose):
                needless.append(right.text)
    assert needless == []


def atoms(wanted: list[Right]) -> Iterator[Right]:
    """Each of them for each column by itself."""
    for right in wanted:
        if not right.columns:
            yield right
        for column in right.columns:
            yield Right(right.kind, right.object, right.privilege, (column,))


def revocation(right: Right, role: str) -> bytes:
    (granted,) = rights.grants([right], role)
    text = granted.as_string().replace("GRANT", "REVOKE", 1)
    return text.replace(" TO ", " FROM ", 1).encode()


def refused(conn: psycopg.Connection, farm: Farm, role: str, purpose: str) -> bool:
    """Whether any step is refused to the role; nothing of them stays."""
    with conn.transaction(force_rollback=True):
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        for step in STEPS[purpose]:
            try:
                with conn.transaction():
                    step(conn, farm)
            except (PermissionDeniedError, psycopg.errors.InsufficientPrivilege):
                return True
    return False


def test_a_role_without_rights_lacks_all_of_them(farm_db: psycopg.Connection, role: str) -> None:
    farm_db.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    farm_db.execute("REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA retally FROM PUBLIC")
    for purpose in PURPOSES:
        wanted = rights.rights(farm_db, purpose)
        assert rights.missing_rights(farm_db, role, purpose) == wanted


def test_who_may_not_grant_is_told_so_and_nothing_is_granted(
    farm_db: psycopg.Connection, role: str, dsn: str
) -> None:
    rights.grant(farm_db, role, "reader")
    result = run(dsn, "grants", "--to", role, "--for", "worker", "--apply")
    assert result.exit_code == 1
    assert "owner" in result.stderr or "permission denied" in result.stderr
    missing = [right.text for right in rights.missing_rights(farm_db, role, "worker")]
    assert "INSERT on retally.pass" in missing


@pytest.mark.usefixtures("farm")
@pytest.mark.parametrize("purpose", PURPOSES)
def test_what_was_granted_is_taken_back_and_the_role_can_go(
    farm_db: psycopg.Connection, role: str, purpose: str
) -> None:
    revoke = ("grants", "--to", role, "--for", purpose, "--revoke")
    rights.grant(farm_db, role, purpose)
    printed = run(farm_db.info.dsn, *revoke)
    with farm_db.transaction(force_rollback=True):
        farm_db.execute(printed.stdout.encode())
        assert rights.held(farm_db, role=role) == {}
    assert run(farm_db.info.dsn, *revoke, "--apply").exit_code == 0
    assert rights.missing_rights(farm_db, role, purpose) == rights.rights(farm_db, purpose)
    with farm_db.transaction(force_rollback=True):
        farm_db.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    again = run(farm_db.info.dsn, *revoke, "--apply")
    assert (again.exit_code, "nothing to do" in again.stderr) == (0, True)


def test_who_may_not_revoke_is_told_so(farm_db: psycopg.Connection, role: str, dsn: str) -> None:
    rights.grant(farm_db, role, "reader")
    result = run(dsn, "grants", "--to", role, "--for", "reader", "--revoke", "--apply")
    assert result.exit_code == 1
    assert "owner" in result.stderr
    assert rights.missing_rights(farm_db, role, "reader") == []


def test_uninstall_tells_what_roles_keep_on_the_farms_tables(
    farm_db: psycopg.Connection, role: str
) -> None:
    rights.grant(farm_db, role, "worker")
    result = run(farm_db.info.dsn, "uninstall", "--yes")
    assert result.exit_code == 0
    assert f"role {role} keeps rights" in result.stderr
    statements = [line for line in result.stderr.splitlines() if line.startswith("REVOKE")]
    farm_db.execute("".join(statements).encode())
    with farm_db.transaction(force_rollback=True):
        farm_db.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_rights_can_be_printed_before_the_role_is_made(farm_db: psycopg.Connection) -> None:
    result = run(farm_db.info.dsn, "grants", "--to", 'a "role"')
    assert result.exit_code == 0
    assert all(line.endswith(' TO "a ""role""";') for line in result.stdout.splitlines())
    assert "no role" in result.stderr
    assert run(farm_db.info.dsn, "grants", "--to", "nobody's", "--apply").exit_code == 1


def test_an_unknown_purpose_is_refused(farm_db: psycopg.Connection) -> None:
    for purpose in ("king", None):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="no rights"):
            farm_db.execute("SELECT * FROM retally.rights(%s)", (purpose,))
