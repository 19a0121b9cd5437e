import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from include.elt.local.environment import (
    LOOPBACK,
    Home,
    airflow_environment,
    choose_port,
    free_port,
    parallelism,
    read_dotenv,
)
from include.elt.local.errors import StartError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.socket()) as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_home_is_for_its_owner_only(home: Home) -> None:
    before = os.umask(0)
    try:
        home.prepare()
    finally:
        os.umask(before)
    assert {mode(folder) for folder in (home.folder, home.logs, home.component_logs)} == {0o700}
    assert (mode(home.keys), mode(home.passwords)) == (0o600, 0o600)


def test_a_home_that_was_open_is_closed(home: Home) -> None:
    home.prepare()
    home.folder.chmod(0o755)
    home.keys.chmod(0o644)
    home.prepare()
    assert (mode(home.folder), mode(home.keys)) == (0o700, 0o600)


def test_keys_stay_and_are_long_enough(home: Home) -> None:
    keys = home.prepare()
    assert home.prepare() == keys
    assert len(keys.jwt) >= 64
    assert len(keys.api) >= 64
    assert json.loads(home.passwords.read_text()) == {"admin": keys.password}
    assert len({keys.jwt, keys.api, keys.fernet, keys.password}) == 4


def test_damaged_keys_are_named(home: Home) -> None:
    home.prepare()
    home.keys.write_text("{")
    with pytest.raises(StartError, match=r"keys\.json is damaged"):
        home.prepare()


def test_the_home_of_another_airflow_is_refused(home: Home) -> None:
    home.folder.mkdir()
    home.database.touch()
    with pytest.raises(StartError, match="another Airflow; unset AIRFLOW_HOME"):
        home.prepare()
    assert not home.keys.exists()


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="cannot be used"):
        Home(tmp_path / "file" / "home").prepare()


@pytest.mark.parametrize("one_shot", [True, False])
def test_nothing_listens_beyond_this_computer(home: Home, one_shot: bool) -> None:
    environ = {"AIRFLOW__API__HOST": "0.0.0.0", "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "True"}
    values = airflow_environment(environ, home, home.prepare(), 1234, one_shot=one_shot)
    assert "0.0.0.0" not in values.values()
    assert values["AIRFLOW__API__HOST"] == LOOPBACK
    assert values["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:1234"
    assert values["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:1234/execution/"
    assert values["AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK"] == "False"
    assert all(isinstance(value, str) for value in values.values())


def test_the_users_own_variables_win_except_where_we_rely_on_ours(home: Home) -> None:
    mine = {
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        "AIRFLOW_CONN_SHOP": "postgres://u:p@h/d",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    }
    values = airflow_environment(mine, home, home.prepare(), 1, one_shot=True)
    for name in ("AIRFLOW__CORE__PARALLELISM", "AIRFLOW__LOGGING__LOGGING_LEVEL", "AIRFLOW_CONN_SHOP"):
        assert values[name] == mine[name]
    assert values["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert values["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"


def test_schedules_begin_only_when_airflow_is_up_for_good(home: Home) -> None:
    keys = home.prepare()
    once = airflow_environment({}, home, keys, 1, one_shot=True)
    up = airflow_environment({}, home, keys, 1, one_shot=False)
    assert once["AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE"] == "False"
    assert "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE" not in up


def test_nothing_is_reported_to_anyone(home: Home) -> None:
    values = airflow_environment({}, home, home.prepare(), 1, one_shot=False)
    assert values["DO_NOT_TRACK"] == "1"
    assert values["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] == "False"
    assert values["AIRFLOW__COSMOS__ENABLE_TELEMETRY"] == "False"
    assert values["DBT_SEND_ANONYMOUS_USAGE_STATS"] == "false"


def test_dotenv_is_taken_literally(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# a comment\nAIRFLOW_CONN_SHOP=postgres://u:p${X}$y@h/d\nexport EMPTY=\nQUOTED='a b'\nNO_VALUE\n")
    assert read_dotenv(file) == {"AIRFLOW_CONN_SHOP": "postgres://u:p${X}$y@h/d", "EMPTY": "", "QUOTED": "a b"}
    assert read_dotenv(tmp_path / "missing") == {}


def test_a_fixed_port_in_use_is_refused_in_one_sentence(taken: int) -> None:
    with pytest.raises(StartError) as refused:
        choose_port({"AIRFLOW_PORT": str(taken)})
    assert str(refused.value).startswith(f"port {taken} (AIRFLOW_PORT) is in use")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["http", "0", "65536", "-1"])
def test_a_fixed_port_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(StartError, match="AIRFLOW_PORT"):
        choose_port({"AIRFLOW_PORT": value})


def test_a_preferred_port_that_is_taken_makes_way(taken: int) -> None:
    port = choose_port({}, preferred=taken)
    assert port != taken
    free = free_port()
    assert choose_port({"AIRFLOW_PORT": str(free)}, preferred=taken) == free


@pytest.mark.parametrize(("cores", "tasks"), [(1, 4), (2, 4), (3, 6), (4, 8), (64, 8)])
def test_parallelism_follows_the_cores_within_bounds(cores: int, tasks: int) -> None:
    assert parallelism(cores) == tasks


def test_airflow_home_is_the_users_or_the_projects(tmp_path: Path) -> None:
    assert Home.of({"AIRFLOW_HOME": str(tmp_path)}).folder == tmp_path.resolve()
    assert Home.of({}).folder.name == ".airflow"
    assert Home.of({"AIRFLOW_HOME": ""}).folder.name == ".airflow"
