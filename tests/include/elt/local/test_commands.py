"""What the commands refuse, and the parts of the start that need no Airflow."""

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

import airflow_local_settings
from include.elt.local import database
from include.elt.local.__main__ import main
from include.elt.local.environment import Home, airflow_environment
from include.elt.local.errors import StartError
from include.elt.local.server import exclusive, in_use
from include.elt.paths import ROOT


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "home"))
    home = Home.of(os.environ)
    home.prepare()
    return home


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "warehouse.duckdb"
    monkeypatch.setenv("DUCKDB_PATH", str(file))
    return file


def test_a_home_is_used_by_one_command(home: Home) -> None:
    assert in_use(home) is None
    with exclusive(home, 1234):
        assert in_use(home) == {"pid": os.getpid(), "port": 1234}
        with pytest.raises(StartError, match=f"process {os.getpid()} is using"), exclusive(home, 1):
            pass
        assert in_use(home) == {"pid": os.getpid(), "port": 1234}, "the refused one has changed nothing"
    assert in_use(home) is None
    with exclusive(home, 5):
        pass


def test_a_lock_of_a_killed_command_is_free_again(home: Home) -> None:
    home.lock.write_text(json.dumps({"pid": 1, "port": 2}) + " " * 100)
    assert in_use(home) is None
    with exclusive(home, 3):
        assert in_use(home) == {"pid": os.getpid(), "port": 3}


def test_a_lock_that_says_nothing_yet_is_a_lock(home: Home) -> None:
    with home.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert in_use(home) == {}


def test_a_database_is_prepared_once_per_version(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = airflow_environment({}, home, home.prepare(), 1, one_shot=True)

    def prepare() -> None:
        command = [
            sys.executable,
            "-c",
            "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('create table t (x)')",
        ]
        database.finish_migration(subprocess.Popen([*command, str(home.database)]), home, environment)

    assert not database.is_migrated(home, environment)
    prepare()
    assert database.is_migrated(home, environment)
    with closing(sqlite3.connect(home.database)) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    elsewhere = environment | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://localhost/airflow"}
    assert not database.is_migrated(home, elsewhere)
    monkeypatch.setattr(database, "_versions", lambda: {"apache-airflow": "99"})
    assert not database.is_migrated(home, environment)


def test_a_database_that_was_removed_is_made_again(home: Home) -> None:
    environment = airflow_environment({}, home, home.prepare(), 1, one_shot=True)
    home.database.touch()
    database.finish_migration(subprocess.Popen(["true"]), home, environment)
    home.database.rename(home.folder / "old.db")
    assert not database.is_migrated(home, environment)
    home.database.touch()
    assert not database.is_migrated(home, environment)


def test_a_migration_that_fails_says_why(home: Home) -> None:
    (home.component_logs / "migrate.log").write_text("a line\nOperationalError: disk is full\n\n")
    environment = airflow_environment({}, home, home.prepare(), 1, one_shot=True)
    with pytest.raises(StartError, match=r"OperationalError: disk is full .*migrate\.log"):
        database.finish_migration(subprocess.Popen(["false"]), home, environment)
    assert not home.migrated.exists()


def test_a_query_prints_a_table(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute(
            "create table t as select range as id, if(range = 1, null, '[b]x[/b]') as name from range(3)"
        )
    assert main(["query", "select * from t order by id"]) == 0
    output = capsys.readouterr().out
    lines = [line.split() for line in output.splitlines() if line.strip() and "─" not in line]
    assert lines == [["id", "name"], ["0", "[b]x[/b]"], ["1", "NULL"], ["2", "[b]x[/b]"], ["3", "rows"]]


def test_a_long_result_is_cut_and_says_so(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    duckdb.connect(str(warehouse)).close()
    assert main(["query", "from range(1000)"]) == 0
    output = capsys.readouterr().out
    assert "the first 100 rows; there are more" in output
    assert " 99 " in output.replace("\n", " ")
    assert " 100 " not in output.replace("first 100 rows", "").replace("\n", " ")


def test_a_query_changes_nothing(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    duckdb.connect(str(warehouse)).close()
    assert main(["query", "create table t (x int)"]) == 1
    assert "read-only" in capsys.readouterr().err


def test_a_wrong_query_is_told_by_duckdb(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    duckdb.connect(str(warehouse)).close()
    assert main(["query", "select nothing"]) == 1
    assert "nothing" in capsys.readouterr().err


def test_a_warehouse_that_is_not_there_is_not_made(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "select 1"]) == 2
    assert "does not exist yet; `make run` makes it" in capsys.readouterr().err
    assert not warehouse.exists()


def test_a_warehouse_in_use_names_the_writer(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(warehouse)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert main(["query", "select 1"]) == 2
        writer.communicate(b"")
    assert f"process {writer.pid} is writing to" in capsys.readouterr().err


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dance"])
    assert ended.value.code == 2
    assert "dance" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "executor", "expected"),
    [
        (["scheduler", "--skip-serve-logs"], "LocalExecutor", True),
        (["scheduler"], "KubernetesExecutor", False),
        (["dag-processor"], "KubernetesExecutor", True),
        (["celery", "worker"], "CeleryExecutor", True),
        (["celery", "flower"], "CeleryExecutor", False),
        (["api-server"], "LocalExecutor", False),
        (["dags", "test", "scheduler"], "LocalExecutor", False),
        ([], "LocalExecutor", False),
    ],
)
def test_only_what_forks_tasks_imports_ahead(arguments: list[str], executor: str, expected: bool) -> None:
    script = "import airflow_local_settings, sys; print(airflow_local_settings.forks_tasks(sys.argv[1:]))"
    if arguments[:1] != ["scheduler"]:  # the others need no configuration of Airflow
        assert airflow_local_settings.forks_tasks(arguments) is expected
        return
    environ = os.environ | {"AIRFLOW__CORE__EXECUTOR": executor}
    # As an argument of python -c the word is not at the place where Airflow's command would be.
    output = subprocess.run(
        [sys.executable, "-c", script.replace("sys.argv[1:]", repr(arguments))],
        cwd=ROOT, env=environ, check=True, capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    assert output.split()[-1] == str(expected)


def test_a_missing_package_does_not_stop_airflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('not today')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(airflow_local_settings, "MODULES", ("no_such_package", "broken_package", "json"))
    assert airflow_local_settings.preload() == ["no_such_package", "broken_package"]


def test_everything_that_is_imported_ahead_exists() -> None:
    from importlib.util import find_spec

    assert [name for name in airflow_local_settings.MODULES if find_spec(name) is None] == []
    assert airflow_local_settings.__all__ == []
