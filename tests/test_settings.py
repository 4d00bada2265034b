"""Settings: which place wins, what is refused and how it is named, what is never shown."""

from __future__ import annotations

import csv
import io
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict

from retally.cli import main
from retally.cli.worker import worker as worker_command
from retally.worker import SettingError, WorkerSettings, settings
from retally.worker.settings import flag_of, masked, read, read_dsn, variable_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg

    Write = Callable[[str], str]

_SECRET = "correct-horse"


@pytest.fixture(autouse=True)
def _nothing_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file, whatever this machine has."""
    for name in [name for name in os.environ if name.upper().startswith("RETALLY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(settings, "DEFAULT_FILE", tmp_path / "default.toml")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a settings file that has to be named; answers with its path."""

    def written(text: str) -> str:
        file = tmp_path / "named.toml"
        file.write_text(text, encoding="utf-8")
        return str(file)

    return written


def retally(*args: str, **env: str) -> Result:
    return CliRunner().invoke(main, args, env=env)


def printed(*args: str, **env: str) -> dict[str, tuple[Any, str]]:
    result = retally("settings", "--format", "json", *args, **env)
    assert result.exit_code == 0, result.stderr
    return {row["setting"]: (row["value"], row["source"]) for row in json.loads(result.stdout)}


def test_a_flag_wins_over_a_variable_that_over_the_file_that_over_the_default(
    monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    file = write("pool_size = 5\nresource_interval = 5\nsubscription_interval = 5\n")
    monkeypatch.setenv("RETALLY_POOL_SIZE", "7")
    monkeypatch.setenv("RETALLY_RESOURCE_INTERVAL", "7")

    got = read({"pool_size": "9", "resource_interval": None}, file)

    assert got.worker == WorkerSettings(
        pool_size=9, resource_interval=7, subscription_interval=5, statement_timeout=60
    )
    assert {name: got.sources[name] for name in ("pool_size", "resource_interval")} == {
        "pool_size": "--pool-size",
        "resource_interval": "RETALLY_RESOURCE_INTERVAL",
    }
    assert got.sources["subscription_interval"] == file
    assert got.sources["statement_timeout"] == "default"


@pytest.mark.parametrize(
    "given",
    [
        {"flags": {"totals": ("point", "subscription")}},
        {"variable": "point, subscription"},
        {"file": 'totals = ["point", "subscription"]'},
        {"file": 'totals = "point,subscription"'},
    ],
)
def test_several_totals_can_be_given_everywhere_and_keep_the_order_of_the_booking_path(
    monkeypatch: pytest.MonkeyPatch, write: Write, given: dict[str, Any]
) -> None:
    if "variable" in given:
        monkeypatch.setenv("RETALLY_TOTALS", given["variable"])
    got = read(given.get("flags"), write(given.get("file", "")))
    assert got.worker.totals == ("subscription", "point")


def test_an_empty_variable_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETALLY_POOL_SIZE", "")
    monkeypatch.setenv("RETALLY_CONFIG", "")
    assert read().worker.pool_size == 2


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("subscription_interval", "0", "greater than or equal to 0.1"),
        ("resource_interval", "inf", "finite"),
        ("resource_interval", "soon", "valid number"),
        ("pool_size", "0", "greater than or equal to 1"),
        ("pool_size", "1.5", "valid integer"),
        ("totals", "subscription,hosts", "no such total: hosts; there are subscription, layer"),
        ("unmanaged", "mend", "'off', 'watch' or 'repair'"),
        ("metrics_port", "65536", "less than or equal to 65535"),
        ("log_format", "xml", "'text' or 'json'"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_name_and_its_source(
    monkeypatch: pytest.MonkeyPatch, write: Write, name: str, value: str, said: str
) -> None:
    file = write(f'{name} = "{value}"')
    with pytest.raises(SettingError, match=f"setting {name} from {file}: ") as in_file:
        read({}, file)
    assert said in str(in_file.value)

    flag = {name: tuple(value.split(",")) if name == "totals" else value}
    with pytest.raises(SettingError, match=f"setting {name} from {flag_of(name)}: "):
        read(flag)

    monkeypatch.setenv(variable_of(name), value)
    with pytest.raises(SettingError, match=f"setting {name} from {variable_of(name)}: "):
        read()


@pytest.mark.parametrize("name", ["pool_size", "statement_timeout", "metrics_port"])
def test_true_is_no_number(write: Write, name: str) -> None:
    with pytest.raises(SettingError, match=name):
        read({}, write(f"{name} = true"))


def test_the_port_can_be_taken_away_again(write: Write) -> None:
    file = write("metrics_port = 9000")
    assert read({}, file).worker.metrics_port == 9000
    assert read({"metrics_port": "none"}, file).worker.metrics_port is None


def test_a_file_is_read_when_it_is_named_or_in_its_usual_place(
    monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    assert read().file is None
    settings.DEFAULT_FILE.write_text("pool_size = 3")
    assert (read().worker.pool_size, read().file) == (3, settings.DEFAULT_FILE)
    monkeypatch.setenv("RETALLY_CONFIG", write("pool_size = 4"))
    assert read().worker.pool_size == 4
    assert read({}, "/dev/null").worker.pool_size == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("poolsize = 3", "has poolsize, which is no setting"),
        ("[worker]\npool_size = 3", "has worker, which is no setting"),
        ("pool_size = 3\ntotals = [!]", r"is not TOML: .*line 2"),
        ("pool_size = 3\npool_size = 4\n", r"is not TOML: .*line 2"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_what_is_wrong(
    write: Write, text: str, said: str
) -> None:
    file = write(text)
    with pytest.raises(SettingError, match=f"{file} {said}"):
        read({}, file)
    with pytest.raises(SettingError, match=f"{file} {said}"):
        read_dsn("dbname=farm", file)


def test_an_unknown_key_comes_with_the_nearest_one(write: Write) -> None:
    with pytest.raises(SettingError) as refused:
        read({}, write("poolsize = 3"))
    assert refused.value.hint == "did you mean pool_size?"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingError, match="not UTF-8"):
        read({}, str(file))


def test_a_named_file_that_cannot_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing.toml")
    with pytest.raises(SettingError, match=rf"{missing} cannot be read: No such file") as refused:
        read({}, missing)
    assert "/dev/null" in refused.value.hint
    monkeypatch.setenv("RETALLY_CONFIG", str(tmp_path))
    with pytest.raises(SettingError, match="directory"):
        read_dsn()


def test_it_can_be_read_again_and_flags_persist(
    monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    flags, file = {"pool_size": "9"}, write("pool_size = 3\nshutdown_grace = 3")
    before = read(flags, file).worker
    write("pool_size = 4\nshutdown_grace = 4")
    monkeypatch.setenv("RETALLY_LOG_LEVEL", "debug")

    after = read(flags, file).worker

    assert (before.pool_size, before.shutdown_grace, before.log_level) == (9, 3, "info")
    assert (after.pool_size, after.shutdown_grace, after.log_level) == (9, 4, "debug")


def test_a_variable_that_nothing_reads_is_told_with_the_nearest_one() -> None:
    result = retally("settings", RETALLY_POOLSIZE="3", RETALLY_PG_BINDIR="/bin", RETALLY_X="1")
    assert result.exit_code == 0
    assert (
        "note: nothing reads the variable RETALLY_POOLSIZE; did you mean RETALLY_POOL_SIZE?\n"
        in result.stderr
    )
    assert "note: nothing reads the variable RETALLY_X\n" in result.stderr
    assert "BINDIR" not in result.stderr


def test_all_settings_are_printed_with_their_sources(write: Write) -> None:
    file = write('unmanaged = "repair"')
    rows = printed("--config", file, "--total", "job", "--total", "layer", RETALLY_POOL_SIZE="4")
    assert list(rows) == list(WorkerSettings.model_fields)
    assert rows["totals"] == (["layer", "job"], "--total")
    assert rows["pool_size"] == (4, "RETALLY_POOL_SIZE")
    assert rows["unmanaged"] == ("repair", file)
    assert rows["dsn"] == (None, "default")
    assert rows["log_level"] == ("info", "default")


def test_the_styles_print_the_same_settings() -> None:
    as_csv = csv.DictReader(
        io.StringIO(retally("settings", "--format", "csv", "--metrics-port", "9100").stdout)
    )
    values = {row["setting"]: row["value"] for row in as_csv}
    assert list(values) == list(WorkerSettings.model_fields)
    assert values["totals"] == "subscription,layer,job,folder,point"
    assert values["metrics_port"] == "9100"
    table = retally("settings", "--metrics-port", "9100").stdout
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["setting", "value", "source"]
    assert ["metrics_port", "9100", "--metrics-port"] in lines
    assert ["dsn", "-", "default"] in lines


def test_what_is_printed_as_csv_can_be_given_again_as_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = retally("settings", "--format", "csv", "--pool-size", "5", "--unmanaged", "off").stdout
    for row in csv.DictReader(io.StringIO(text)):
        monkeypatch.setenv(variable_of(row["setting"]), row["value"])
    assert (
        WorkerSettings().model_dump()
        == read({"pool_size": 5, "unmanaged": "off"}).worker.model_dump()
    )


def test_settings_takes_the_flags_of_the_worker() -> None:
    flags = {option for param in worker_command.params for option in param.opts}
    taken = {option for param in main.commands["settings"].params for option in param.opts}
    assert taken - flags == {"--format"}
    assert flags <= taken
    assert {flag_of(name) for name in WorkerSettings.model_fields} <= flags


@pytest.mark.parametrize("command", ["settings", "worker"])
def test_a_wrong_setting_is_one_line_and_exit_code_2(command: str) -> None:
    result = retally(command, "--pool-size", "many")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "Error: setting pool_size from --pool-size: Input should be a valid integer, unable to"
        " parse string as an integer (it is 'many')"
    ]


def test_a_wrong_file_is_one_line_and_exit_code_2_in_every_command(write: Write) -> None:
    file = write("poolsize = 3")
    for command in (["settings"], ["drift"], ["install"], ["worker"]):
        result = retally(*command, "--config", file)
        assert result.exit_code == 2
        assert result.stderr.splitlines() == [
            f"Error: the settings file {file} has poolsize, which is no setting:"
            " did you mean pool_size?"
        ]


def test_every_command_takes_its_database_from_the_file(
    farm_db: psycopg.Connection, write: Write
) -> None:
    file = write(f'dsn = "{farm_db.info.dsn}"\npool_size = 0')
    # the worker's pool_size is nothing to it
    assert retally("drift", "--config", file).stderr == "no drift\n"
    assert retally("drift", RETALLY_CONFIG=file).stderr == "no drift\n"
    lost = retally("drift", "--config", file, "--dsn", "host=/nowhere")
    assert "/nowhere" in lost.stderr
    assert "/elsewhere" in retally("drift", "--config", file, RETALLY_DSN="host=/elsewhere").stderr


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://cue:{_SECRET}@db.example/farm",
        f"postgres://cue:{_SECRET}@db.example:5432/farm?sslmode=require",
        f"postgresql://cue@db.example/farm?password={_SECRET}",
        f"postgresql://cue@db.example/farm?sslpassword={_SECRET}",
        f"host=db.example user=cue password={_SECRET} dbname=farm",
        f"host=db.example user=cue dbname=farm password = '{_SECRET} x'",
        f"host=db.example user=cue dbname=farm scram_client_key={_SECRET}",
        f"host=db.example user=cue dbname=farm scram_server_key={_SECRET}",
    ],
)
def test_a_dsn_is_shown_without_its_secrets(dsn: str, write: Write) -> None:
    try:
        conninfo_to_dict(dsn)
    except Exception:
        pytest.skip("this libpq is older than the keyword")
    shown, source = printed("--dsn", dsn)["dsn"]
    assert _SECRET not in shown
    assert source == "--dsn"
    parts = conninfo_to_dict(shown)
    assert (parts["host"], parts["user"], parts["dbname"]) == ("db.example", "cue", "farm")
    in_file = write(f"dsn = {json.dumps(dsn)}")
    assert printed("--config", in_file)["dsn"] == (shown, in_file)
    assert _SECRET not in repr(read({"dsn": dsn}))


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://cue:p@{_SECRET}@db.example/farm",  # an @ that is not escaped
        f"postgresql://cue:%zz{_SECRET}@db.example/farm",
        f"passwort={_SECRET}",
        _SECRET,
    ],
)
def test_a_dsn_that_libpq_does_not_understand_is_not_shown_at_all(dsn: str) -> None:
    assert set(masked(dsn)) == {"*"}


def test_an_error_never_shows_a_dsn(write: Write) -> None:
    file = write(f'dsn = ["password={_SECRET}"]')
    for command in ("settings", "drift"):
        result = retally(command, "--config", file, "--debug")
        assert result.exit_code == 2
        assert f"setting dsn from {file}" in result.stderr
        assert _SECRET not in result.stderr
    wrong = retally("worker", "--dsn", f"password={_SECRET}", "--pool-size", "x", "--debug")
    assert "pool_size" in wrong.stderr
    assert _SECRET not in wrong.stderr


@pytest.mark.parametrize("command", sorted(set(main.commands) - {"demo", "bench", "farm"}))
def test_every_command_on_a_database_takes_dsn_and_config(command: str) -> None:
    options = {option for param in main.commands[command].params for option in param.opts}
    assert {"--dsn", "--config", "--debug"} <= options
