"""``retally prune``: what is old goes at once, however much it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kept_passes import count, note
from test_cli import runner_for
from test_kept_pruned import add_runs, age_everything

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from test_cli import Retally

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def retally(farm_db: psycopg.Connection) -> Retally:
    """Runs the command on the database of ``farm_db``."""
    return runner_for(farm_db)


def test_all_that_is_old_is_deleted_in_as_many_rounds_as_it_takes(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    for second in range(0, 700, 100):
        note(farm_db, second)
    add_runs(farm_db, 5, 6)
    age_everything(farm_db, 100)
    add_runs(farm_db, 1, 6)

    result = retally("prune", "--rows", "3")

    assert (result.exit_code, result.stderr) == (0, "7 rows of the history and 5 runs deleted\n")
    assert (count(farm_db, "history"), count(farm_db, "run"), count(farm_db, "ledger")) == (0, 1, 6)
    again = retally("prune")
    assert (again.exit_code, again.stderr) == (0, "0 rows of the history and 0 runs deleted\n")


def test_what_another_one_prunes_meanwhile_is_told_and_is_exit_code_5(
    farm_db: psycopg.Connection, connect: Connect, retally: Retally
) -> None:
    note(farm_db, 0)
    age_everything(farm_db, 100)
    other = connect()
    other.autocommit = False
    other.execute("CALL retally.prune()")
    result = retally("prune", "--patience", "0")
    assert result.exit_code == 5
    assert result.stderr.startswith("0 rows of the history and 0 runs deleted\nsomething old is")
    other.rollback()
    assert retally("prune").stderr == "1 row of the history and 0 runs deleted\n"
