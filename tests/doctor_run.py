"""`retally doctor` as a test runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from small_farm import Rows, Work, make_work

from retally.cli import diagnosis, main
from retally.procedures import routines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    Line = tuple[str, str, str]
    Doctor = Callable[..., list[Line]]

INSTALLED = [check.name for check in diagnosis.INSTALLED]


ALL = ["connection", *(check.name for check in diagnosis.BARE), "schema", *INSTALLED]


def run(dsn: str, *args: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *args], env={"RETALLY_DSN": dsn})


def lines(result: Result) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(result.stdout)
    return found


def see_worker(conn: psycopg.Connection, every: str = "10 min") -> None:
    """A worker named me has said that it is there."""
    conn.execute(
        "INSERT INTO retally.worker VALUES ('me', 'resource', %s, clock_timestamp())", (every,)
    )


@pytest.fixture
def comet(farm_db: psycopg.Connection) -> Work:
    """A managed show with one proc, and a worker that was here just now."""
    rows = Rows(farm_db)
    work = make_work(rows, "comet")
    routines.set_managed(farm_db, "comet", managed=True)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    see_worker(farm_db)
    return work


@pytest.fixture
def doctor(farm_db: psycopg.Connection) -> Doctor:
    """Runs the command; answers with state, what was seen and the advice of each line that is
    not ok, and asserts that these all come from the one check, and the exit code that goes with it.
    """

    def ask(check: str, *args: str, dsn: str = farm_db.info.dsn) -> list[Line]:
        result = run(dsn, "--format", "json", *args)
        bad = [line for line in lines(result) if line["state"] not in {"ok", "skipped"}]
        assert {line["check"] for line in bad} <= {check}
        assert result.exit_code == any(line["state"] == "problem" for line in bad)
        assert all(line["advice"] for line in bad)
        return [(line["state"], line["seen"], line["advice"]) for line in bad]

    return ask


@pytest.fixture
def role(farm_db: psycopg.Connection) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"role_{farm_db.info.dbname}"
    farm_db.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    farm_db.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
