"""What tests of whole runs share: an Airflow of their own, and deployments in which a DAG runs to its end."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest

from include.elt.manifest import build_manifest
from include.elt.paths import ROOT, SAMPLE_DATA
from include.elt.settings import load_settings

AIRFLOW = {
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "DO_NOT_TRACK": "1",
}


def pytest_configure() -> None:
    """Heed signals that a shell lets its background jobs ignore: the programs that tests start would inherit that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


STATEMENTS = pytest.StashKey[Counter[str]]()
"""Statements that the stand-in for Databricks was sent, per class."""


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A worker of pytest-xdist gets a stand-in of its own only where these tests were asked for by their mark."""
    node.workerinput["databricks_standin"] = "databricks_standin" in node.config.getoption("markexpr")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand a worker's statements to the process that tells them."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["statements"] = dict(session.config.stash.get(STATEMENTS, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add a worker's statements to those of the others."""
    counts = node.config.stash.setdefault(STATEMENTS, Counter())
    counts.update(getattr(node, "workeroutput", {}).get("statements", {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Tell how the stand-in for Databricks answered."""
    if counts := config.stash.get(STATEMENTS, None):
        text = ", ".join(f"{count:,} {how}" for how, count in sorted(counts.items(), key=lambda each: -each[1]))
        terminalreporter.write_line(f"statements on the stand-in for Databricks: {text}")


def _clean_environment() -> dict[str, str]:
    """This process' environment without settings that would change what is tested."""
    ours = {name.upper() for name in type(load_settings()).model_fields}
    return {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("AIRFLOW")}


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[Any]:
    from tests.support.s3 import running_s3

    with running_s3() as server:
        yield server


@pytest.fixture
def s3(_s3_server: Any) -> Iterator[Any]:
    """A server with the API of S3, without faults; see tests/support/s3.py."""
    _s3_server.requests.clear()
    yield _s3_server
    _s3_server.faults.clear()
    _s3_server.cut.clear()


@pytest.fixture(scope="session")
def databricks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _s3_server: Any
) -> Iterator[Any]:
    """The stand-in for Databricks, with S3 behind its external locations; see tests/support/databricks_standin."""
    from tests.support.databricks_standin.environment import missing, unavailable
    from tests.support.databricks_standin.known import unlisted
    from tests.support.databricks_standin.running import running

    worker = getattr(request.config, "workerinput", None)
    if worker is not None and not worker["databricks_standin"]:
        pytest.skip("each worker would start a Java process; `make test-databricks` runs these tests")
    if reason := missing() or unavailable():
        pytest.skip(reason)
    key, secret = _s3_server.user()
    s3 = {"endpoint": _s3_server.url, "key": key, "secret": secret}
    with running(tmp_path_factory.mktemp("databricks"), s3) as standin, pytest.MonkeyPatch.context() as env:
        for name, value in standin.trust.items():
            env.setenv(name, value)
        yield standin
        request.config.stash[STATEMENTS] = standin.counts()
        assert not unlisted(standin.entries()), "\n".join(
            ["not native, and not in tests/support/databricks_standin/known.py:", *unlisted(standin.entries())]
        )


@pytest.fixture
def workspace(databricks: Any) -> Iterator[Any]:
    """The stand-in without tables and without faults."""
    databricks.order()
    databricks.clear()
    yield databricks
    databricks.order()


@pytest.fixture(scope="session")
def migrated_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AIRFLOW_HOME with an empty metadata database."""
    home = tmp_path_factory.mktemp("airflow")
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env=_clean_environment() | AIRFLOW | {"AIRFLOW_HOME": str(home)},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return home


@dataclass
class Outcome:
    """What became of one run."""

    run_id: str
    state: str
    tasks: dict[str, str]
    assets: dict[str, dict[str, Any]]
    log: str

    def state_of(self, *task_ids: str) -> set[str]:
        return {self.tasks[task_id] for task_id in task_ids}

    def with_state(self, state: str) -> set[str]:
        return {task_id for task_id, each in self.tasks.items() if each == state}


@dataclass
class Deployment:
    """A deployment of its own: settings, warehouse, lake, metadata database, shop files."""

    folder: Path
    root: Path = ROOT
    settings: dict[str, str] = field(default_factory=dict)
    patience: float = 280

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def warehouse(self) -> Path:
        return self.folder / "warehouse.duckdb"

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.root / "dags"),
            "PYTHONPATH": str(self.root),
            "DUCKDB_PATH": str(self.warehouse),
            "LAKE": str(self.folder / "lake"),
            "ARTIFACTS": str(self.folder / "artifacts"),
            "SHOP_FILES": str(self.files),
        }
        return _clean_environment() | AIRFLOW | own | self.settings

    def run(self, dag_id: str = "jaffle_shop", **conf: Any) -> Outcome:
        """One whole run with `dag.test()`, in a process of its own."""
        result = self.folder / "outcome.json"
        result.unlink(missing_ok=True)
        process = subprocess.run(
            [sys.executable, "-m", "tests.support.dag_test", dag_id, json.dumps(conf), str(result)],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.patience,
            check=False,
        )
        assert process.returncode == 0, process.stdout[-5000:]
        return Outcome(**json.loads(result.read_text()), log=process.stdout)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.warehouse), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def checksums(self) -> dict[str, tuple[int, int]]:
        """Rows and order-free checksum of every raw table and mart."""
        tables = self.query(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables()"
            " WHERE schema_name IN ('raw', 'marts') ORDER BY 1"
        )
        return {
            table: self.query(f"SELECT count(*), sum(hash(t)::HUGEINT)::HUGEINT FROM {table} AS t")[0]  # type: ignore[misc]
            for (table,) in tables
        }

    def edit(self, file: str, row: int, column: str, value: str) -> None:
        """Change one value of a shop file; the first row after the header is 1."""
        path = self.files / file
        with path.open(newline="") as stream:
            rows = list(csv.reader(stream))
        rows[row][rows[0].index(column)] = value
        with path.open("w", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)


def _deployment(folder: Path, home: Path) -> Deployment:
    build_manifest(load_settings())
    deployment = Deployment(folder)
    shutil.copytree(home, folder / "airflow")
    (folder / "airflow" / "airflow.cfg").unlink(missing_ok=True)  # it names the database of the home that was copied
    deployment.files.mkdir()
    for file in SAMPLE_DATA.glob("*.csv"):
        shutil.copy(file, deployment.files)
    return deployment


@pytest.fixture(scope="session")
def new_deployment(migrated_home: Path) -> Callable[[Path], Deployment]:
    """Makes a deployment in a folder; for fixtures that outlive a test."""
    return lambda folder: _deployment(folder, migrated_home)


@pytest.fixture
def deployment(tmp_path: Path, migrated_home: Path) -> Deployment:
    """A deployment on a copy of the sample files, in which nothing has run yet."""
    return _deployment(tmp_path, migrated_home)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, migrated_home: Path) -> tuple[Deployment, Outcome]:
    """A deployment with one run behind it, and what became of that run. Only to look at and to copy."""
    deployment = _deployment(tmp_path_factory.mktemp("first"), migrated_home)
    return deployment, deployment.run()


@pytest.fixture
def used(tmp_path: Path, first_run: tuple[Deployment, Outcome]) -> Deployment:
    """A copy of the deployment with one run behind it."""
    folder = tmp_path / "used"
    shutil.copytree(first_run[0].folder, folder)
    return Deployment(folder)
