"""Install, upgrade and uninstall: idempotent, one routine per name, and no trace afterwards."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner
from conftest import fresh_database
from doctor_run import see_worker
from small_farm import Rows, booking, make_work, stored

from retally.cli import main
from retally.procedures import TOTALS, install, routines, uninstall
from retally.procedures.booking import book
from retally.procedures.journal import set_journal
from retally.sql import migrate
from retally.sql.errors import NotInstalledError, PermissionDeniedError, RetallyError, ShowBusyError
from retally.sql.farm_build import create_schema
from retally.sql.migrate import (
    _SCHEMA,
    known_digest,
    known_version,
    require_current,
    schema_version,
)
from retally.sql.text import sql_texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from retally.sql.embedded import EmbeddedServer


def dump(server: EmbeddedServer, conn: psycopg.Connection) -> list[str]:
    # not conn.info.dsn: it holds what psycopg's libpq knows and an older pg_dump does not
    dsn = server.dsn(conn.info.dbname)
    command = [str(server.bindir / "pg_dump"), "--schema-only", dsn]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # from PostgreSQL 15.14 on, \restrict carries a key of each dump's own
    return [line for line in text.splitlines() if "restrict" not in line]


def installed(conn: psycopg.Connection) -> tuple[Any, ...]:
    row = conn.execute("SELECT program, digest, installed_at, installed_by FROM retally.installed")
    (only,) = row.fetchall()
    return only


def test_uninstall_leaves_the_farm_as_it_was(
    server: EmbeddedServer, empty_db: psycopg.Connection
) -> None:
    create_schema(empty_db)
    before = dump(server, empty_db)
    install(empty_db)
    assert dump(server, empty_db) != before
    assert uninstall(empty_db)
    assert dump(server, empty_db) == before
    assert not uninstall(empty_db)


@pytest.mark.parametrize("off", [True, False], ids=["off", "on"])
def test_uninstall_leaves_nothing_of_the_journal(
    server: EmbeddedServer, empty_db: psycopg.Connection, off: bool
) -> None:
    create_schema(empty_db)
    before = dump(server, empty_db)
    install(empty_db)
    between = dump(server, empty_db)
    work = make_work(Rows(empty_db))
    routines.set_managed(empty_db, work.show, managed=True)
    set_journal(empty_db, work.show, on=True)
    assert dump(server, empty_db) != between
    book(empty_db, booking(work, core_units=300))
    if off:
        set_journal(empty_db, work.show, on=False)
        assert dump(server, empty_db) == between
    assert uninstall(empty_db)
    assert dump(server, empty_db) == before
    assert {stored(empty_db, work, total)[0] for total in TOTALS} == {300}


def test_uninstall_hands_managed_shows_back_with_totals_that_are_true(
    farm_db: psycopg.Connection,
) -> None:
    work = make_work(Rows(farm_db))
    routines.set_managed(farm_db, work.show, managed=True)
    book(farm_db, booking(work, core_units=300))
    assert stored(farm_db, work, "job")[0] == 0
    assert uninstall(farm_db)
    assert {stored(farm_db, work, total)[0] for total in TOTALS} == {300}


def test_a_show_that_cannot_be_handed_back_now_keeps_retally_where_it_is(
    farm_db: psycopg.Connection, connect: Callable[[], psycopg.Connection]
) -> None:
    work = make_work(Rows(farm_db))
    routines.set_managed(farm_db, work.show, managed=True)
    other = connect()
    other.execute("BEGIN")
    book(other, booking(work))
    with pytest.raises(ShowBusyError, match="in flight"):
        uninstall(farm_db)
    assert routines.override(farm_db) == "per-show"
    other.execute("ROLLBACK")
    assert uninstall(farm_db)


def test_an_older_schema_is_uninstalled_without_a_trace(
    server: EmbeddedServer, empty_db: psycopg.Connection
) -> None:
    create_schema(empty_db)
    before = dump(server, empty_db)
    name, first = next(iter(sql_texts("sql", "migrations").items()))
    empty_db.execute(_SCHEMA)
    empty_db.execute("INSERT INTO retally.migration (version, name) VALUES (1, %s)", (name,))
    empty_db.execute(first)
    empty_db.execute("INSERT INTO retally.managed_scope (scope) VALUES ('a show')")
    assert uninstall(empty_db)
    assert dump(server, empty_db) == before


def test_an_upgrade_keeps_the_flags(empty_db: psycopg.Connection) -> None:
    create_schema(empty_db)
    name, first = next(iter(sql_texts("sql", "migrations").items()))
    empty_db.execute(_SCHEMA)
    empty_db.execute("INSERT INTO retally.migration (version, name) VALUES (1, %s)", (name,))
    empty_db.execute(first)
    empty_db.execute("INSERT INTO retally.managed_scope (scope) VALUES ('a show')")
    assert install(empty_db).migrations == (
        "0002_dispatch",
        "0003_worker",
        "0004_journal",
        "0005_admission",
    )
    flag = empty_db.execute("SELECT scope, asked, managed FROM retally.scope_flag").fetchall()
    assert flag == [("a show", True, True)]


def test_installing_twice_changes_nothing(
    server: EmbeddedServer, farm_db: psycopg.Connection
) -> None:
    farm_db.execute("UPDATE retally.setting SET wait_after_passes = 9")
    before, record = dump(server, farm_db), installed(farm_db)
    assert install(farm_db).migrations == ()
    assert dump(server, farm_db) == before
    assert installed(farm_db) == record
    assert farm_db.execute("SELECT wait_after_passes FROM retally.setting").fetchone() == (9,)


def test_an_install_keeps_which_routines_it_brought_and_by_whom(
    farm_db: psycopg.Connection,
) -> None:
    program, digest, at, by = installed(farm_db)
    assert (program, digest, by) == (version("retally"), known_digest(), "postgres")
    farm_db.execute("UPDATE retally.installed SET program = '0.0.1', digest = 'another'")
    install(farm_db)
    again = installed(farm_db)
    assert again[:2] == (program, digest)
    assert again[2] > at


def test_the_digest_follows_every_text_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"a": "SELECT 1", "b": "SELECT 2"}

    def digest(**changed: str) -> str:
        monkeypatch.setattr(migrate, "sql_texts", lambda *_: texts | changed)
        return migrate.known_digest.__wrapped__()

    first = digest()
    assert len({first, digest(a="SELECT 3"), digest(c=""), digest(a="", b="SELECT 1")}) == 4
    texts = {"b": "SELECT 2", "a": "SELECT 1"}
    assert digest() == first


def test_routines_of_another_version_of_the_program_ask_for_an_install(
    farm_db: psycopg.Connection,
) -> None:
    require_current(farm_db)
    farm_db.execute("UPDATE retally.installed SET program = '0.0.1', digest = 'another'")
    with pytest.raises(NotInstalledError, match=r"retally 0\.0\.1 brought them") as refusal:
        require_current(farm_db)
    assert refusal.value.hint.startswith("run `retally install`")
    farm_db.execute("DELETE FROM retally.installed")
    with pytest.raises(NotInstalledError, match="unknown program"):
        require_current(farm_db)
    install(farm_db)
    require_current(farm_db)


def test_an_install_replaces_routines_of_other_signatures_and_drops_those_that_are_gone(
    server: EmbeddedServer, farm_db: psycopg.Connection
) -> None:
    before = dump(server, farm_db)
    farm_db.execute("""
        DROP FUNCTION retally.totals();
        CREATE FUNCTION retally.totals() RETURNS integer LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION retally.drift(p_one text, p_two text)
        RETURNS integer LANGUAGE sql AS 'SELECT 1';
        DROP FUNCTION retally.drift(text);
        CREATE PROCEDURE retally.no_longer_needed() LANGUAGE sql AS 'SELECT 1';
    """)
    install(farm_db)
    assert dump(server, farm_db) == before


def test_a_newer_schema_than_this_program_is_refused(farm_db: psycopg.Connection) -> None:
    farm_db.execute(
        "INSERT INTO retally.migration (version, name) VALUES (%s, 'of the future')",
        (known_version() + 1,),
    )
    for refuse in (install, uninstall, require_current):
        with pytest.raises(NotInstalledError, match="this program knows"):
            refuse(farm_db)


def test_an_older_or_missing_schema_asks_for_an_install(
    farm_db: psycopg.Connection, empty_db: psycopg.Connection
) -> None:
    with pytest.raises(NotInstalledError, match="not installed"):
        require_current(empty_db)
    farm_db.execute("DELETE FROM retally.migration")
    assert schema_version(farm_db) == 0
    with pytest.raises(NotInstalledError, match="this program needs"):
        require_current(farm_db)


def test_uninstall_spares_what_others_have_built_on_it(farm_db: psycopg.Connection) -> None:
    farm_db.execute("CREATE VIEW public.wrong AS SELECT * FROM retally.drift('show1')")
    with pytest.raises(RetallyError, match="view wrong"):
        uninstall(farm_db)
    farm_db.execute("DROP VIEW public.wrong")
    assert uninstall(farm_db)


def test_nothing_of_retally_hangs_on_the_farms_tables(farm_db: psycopg.Connection) -> None:
    hooks = farm_db.execute("""
        SELECT t.tgname FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
        WHERE p.pronamespace = 'retally'::regnamespace
        UNION ALL
        SELECT c.conname FROM pg_constraint AS c JOIN pg_class AS r ON r.oid = c.confrelid
        WHERE c.connamespace = 'retally'::regnamespace AND r.relnamespace <> c.connamespace
        UNION ALL
        SELECT d.objid::text FROM pg_depend AS d JOIN pg_class AS c ON c.oid = d.refobjid
        WHERE c.relnamespace = 'public'::regnamespace AND (d.classid, d.objid) IN (
            SELECT 'pg_proc'::regclass, oid FROM pg_proc
            WHERE pronamespace = 'retally'::regnamespace
        )
    """).fetchall()
    assert hooks == []


def test_it_installs_on_a_copy_made_from_a_dump(
    server: EmbeddedServer, farm_db: psycopg.Connection
) -> None:
    text = "\n".join(dump(server, farm_db))
    with fresh_database(server, "template0") as dsn:
        command = [str(server.bindir / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn]
        subprocess.run(command, input=text, check=True, capture_output=True, text=True)
        with psycopg.connect(dsn, autocommit=True) as conn:
            # a schema-only dump has no rows: neither which migrations ran, nor the settings
            assert schema_version(conn) == 0


def test_the_row_of_the_settings_cannot_be_deleted(farm_db: psycopg.Connection) -> None:
    farm_db.execute("DELETE FROM retally.setting")
    assert farm_db.execute("SELECT count(*) FROM retally.setting").fetchone() == (1,)


def test_an_install_puts_a_missing_row_of_the_settings_back(farm_db: psycopg.Connection) -> None:
    farm_db.execute("TRUNCATE retally.setting")
    assert install(farm_db).migrations == ()
    assert routines.override(farm_db) == "per-show"


def test_who_does_not_own_it_is_told_who_can_install_and_uninstall(
    farm_db: psycopg.Connection, empty_db: psycopg.Connection, role: str
) -> None:
    for db, told in ((farm_db, "connect as postgres"), (empty_db, "CREATE in database")):
        create_schema(db) if db is empty_db else None
        with psycopg.connect(db.info.dsn, autocommit=True) as conn:
            conn.execute(f"SET ROLE {role}".encode())
            with pytest.raises(PermissionDeniedError) as refusal:
                install(conn)
            assert told in refusal.value.hint
    with psycopg.connect(farm_db.info.dsn, autocommit=True) as conn:
        conn.execute(f"SET ROLE {role}".encode())
        with pytest.raises(PermissionDeniedError) as refusal:
            uninstall(conn)
        assert "only the owner" in refusal.value.hint or "may read" in refusal.value.hint


@pytest.mark.parametrize("alive", [True, False])
def test_an_uninstall_names_the_workers_that_still_run(
    farm_db: psycopg.Connection, alive: bool
) -> None:
    see_worker(farm_db, "10 min" if alive else "0 s")
    result = CliRunner().invoke(main, ["uninstall", "--yes"], env={"RETALLY_DSN": farm_db.info.dsn})
    assert result.exit_code == 0
    assert ("still running, and of no use from now on: me" in result.stderr) == alive


@pytest.mark.parametrize(
    "command", [("status",), ("managed",), ("drift",), ("recompute", "--all")], ids=" ".join
)
def test_a_setting_without_its_row_asks_for_an_install(
    farm_db: psycopg.Connection, command: tuple[str, ...]
) -> None:
    farm_db.execute("TRUNCATE retally.setting")
    result = CliRunner().invoke(main, command, env={"RETALLY_DSN": farm_db.info.dsn})
    assert result.exit_code == 1
    assert "run `retally install`" in result.stderr
