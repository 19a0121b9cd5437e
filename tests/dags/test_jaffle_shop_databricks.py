"""jaffle_shop with WAREHOUSE=databricks, with a token and as a service principal: Airflow with its scheduler and
triggerer, and `dag.test()`."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from include.elt.contract import read_contracts
from include.elt.extract import Extraction
from include.elt.paths import ROOT
from include.elt.replication import read_replication
from include.elt.settings import load_settings
from include.elt.warehouse import open_warehouse
from tests.conftest import Deployment
from tests.support.databricks_standin.running import CLIENT_ID, StandIn
from tests.support.real_airflow import RealAirflow, pages, real_airflow

pytestmark = [
    pytest.mark.databricks_standin,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.xdist_group("jaffle_shop"),  # they share an Airflow and what is in the warehouse
]

TABLES = (
    "raw.raw_customers",
    "raw.raw_orders",
    "raw.raw_payments",
    "marts.customers",
    "marts.orders",
)
HISTORY = {"snapshots.order_status_history": "status", "snapshots.customers_history": "first_name, last_name"}
"""Snapshots, and what they keep of a row; their times are those of each run."""


@dataclass
class Both:
    """The same shop in DuckDB and in Databricks.

    Attributes:
        folder: for DuckDB: lake, file.
        databricks: the deployment with Databricks; it has a project of its own, because a parsed dbt project belongs to
            one environment.
        standin: what it asks.
        catalog: its catalog.
    """

    folder: Path
    databricks: Deployment
    standin: StandIn
    catalog: str = "main"

    def use(self, login: str, catalog: str = "main") -> None:
        """Log in in that way from now on, in that catalog."""
        self.catalog = catalog
        self.databricks.settings |= {
            "WAREHOUSE": "databricks",
            "LAKE": f"/Volumes/{catalog}/lake/files/shop",
            "DATABRICKS_CATALOG": catalog,
            "AIRFLOW_CONN_DATABRICKS_DEFAULT": self.standin.connection_json(login),
            **self.standin.trust,
        }
        self._python("-m", "include.elt.manifest", environment=self.databricks.environment)

    @property
    def warehouse(self) -> Path:
        return self.folder / f"beside_{self.catalog}.duckdb"

    def run_on_duckdb(self) -> None:
        """Extract, load and build the same files, without Airflow, which other tests are about."""
        settings = load_settings(
            _env_file=None,
            lake=self.folder / "lake",
            duckdb_path=self.warehouse,
            shop_files=self.databricks.files,
        )
        replication, contracts = read_replication(settings.shop_replication(), settings.variables()), read_contracts()
        for stream in replication.streams:
            extraction = Extraction(replication, stream, contracts[stream.table], settings)
            manifest, location = extraction.run("duckdb")
            open_warehouse(settings).load_from(extraction.lake, str(location), manifest, stream.meta)
        project = str(self.databricks.root / "dbt")
        where = ["--project-dir", project, "--profiles-dir", project, "--target", "duckdb"]
        where += ["--target-path", str(self.folder / "target"), "--log-path", str(self.folder / "logs")]
        own = {"DUCKDB_PATH": str(self.warehouse)}
        command = ["-m", "dbt.cli.main", "--quiet", "build", *where, "--select", "source:shop+"]
        self._python(*command, environment={**os.environ, **own})

    def _python(self, *words: str, environment: dict[str, str]) -> None:
        result = subprocess.run(
            [sys.executable, *words],
            cwd=self.databricks.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-5000:]

    def rows(self, table: str, columns: str = "*") -> tuple[list[Any], list[Any]]:
        """A table of both, sorted."""
        with duckdb.connect(str(self.warehouse), read_only=True) as sql:
            ours = sql.execute(f"SELECT {columns} FROM {table}").fetchall()
        theirs = self.standin.rows(f"SELECT {columns} FROM {table}", self.catalog)
        return sorted(ours, key=str), sorted(theirs, key=str)

    def compare(self) -> dict[str, int]:
        """Each table has the same rows in both; how many."""
        counts = {}
        for table in TABLES:
            ours, theirs = self.rows(table)
            assert theirs == ours, table
            counts[table] = len(ours)
        for table, told in HISTORY.items():
            ours, theirs = self.rows(table, f"id, dbt_valid_to IS NULL, {told}")
            assert theirs == ours, table
            counts[table] = len(ours)
        return counts

    def check_secrets(self, *texts: str) -> None:
        """None of the secrets is in the texts, nor in a file that the deployment has written."""
        secrets = [secret.encode() for secret in (self.standin.token, self.standin.secret)]
        for text in texts:
            assert not any(secret in text.encode() for secret in secrets)
        for file in self.databricks.folder.rglob("*"):
            if file.is_file():
                assert not any(secret in file.read_bytes() for secret in secrets), file


@pytest.fixture(scope="module")
def both(
    databricks: StandIn, new_deployment: Callable[[Path], Deployment], tmp_path_factory: pytest.TempPathFactory
) -> Both:
    """The sample shop, of which nothing was loaded yet."""
    databricks.order()
    databricks.clear()
    folder = tmp_path_factory.mktemp("both")
    root = folder / "project"
    for name in ("dags", "dbt", "include", "tests", "plugins"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("target", "logs", "__pycache__"))
    for file in ROOT.glob("*.py"):
        shutil.copy(file, root)
    (folder / "databricks").mkdir()
    deployment = new_deployment(folder / "databricks")
    deployment.root, deployment.patience = root, 900
    return Both(folder, deployment, databricks)


@pytest.fixture(scope="module")
def airflow(both: Both) -> Iterator[RealAirflow]:
    """Airflow with its scheduler and triggerer on that deployment. Its connection is in its own database."""
    both.use("token")
    settings = {name: value for name, value in both.databricks.settings.items() if not name.startswith("AIRFLOW_CONN")}
    with real_airflow(replace(both.databricks, settings=settings)) as airflow:
        yield airflow


def connect(airflow: RealAirflow, standin: StandIn, login: str, **fields: Any) -> None:
    """Make or replace the connection `databricks_default`."""
    airflow.client.call("DELETE", "/connections/databricks_default")
    given = json.loads(standin.connection_json(login, **fields))
    body = given | {"connection_id": "databricks_default", "extra": json.dumps(given["extra"])}
    airflow.client.call("POST", "/connections", json=body)


def log_of(airflow: RealAirflow, run_id: str, task_id: str) -> str:
    """What the last try of a task has logged."""
    run = airflow.client.run("jaffle_shop", run_id)
    [tries] = [task["try_number"] for task in run.tasks() if task["task_id"] == task_id]
    return "\n".join(str(line) for line in run.log(task_id, tries))


@pytest.fixture(scope="module")
def first(both: Both, airflow: RealAirflow) -> str:
    """A first run by the scheduler, with a token and a warehouse that is only just waking up; its id."""
    connect(airflow, both.standin, "token")
    since = both.standin.mark()
    both.standin.order(cold=3)
    run_id = airflow.trigger("jaffle_shop")
    states = airflow.states("jaffle_shop", run_id)
    assert set(states.values()) == {"success"}, states
    assert {"dbt.dbt_build", "dbt.orders", "dbt.order_status_history", "dbt.source_shop_raw_orders"} <= set(states)
    assert len(both.standin.entries("asleep", since)) == 3
    assert "parsed ahead of time" in log_of(airflow, run_id, "dbt.dbt_build")
    both.run_on_duckdb()
    counts = both.compare()
    assert counts["raw.raw_orders"] == counts["marts.orders"] == counts["snapshots.order_status_history"] == 500
    return run_id


def test_a_second_run_as_a_service_principal(both: Both, airflow: RealAirflow, first: str) -> None:
    shop = both.databricks
    shop.edit("raw_orders.csv", 1, "status", "returned")
    shop.edit("raw_customers.csv", 2, "last_name", 'O\'Neill \\ "Ng"')
    remove(shop.files / "raw_orders.csv", "id", "500")
    remove(shop.files / "raw_payments.csv", "order_id", "500")
    with (shop.files / "raw_orders.csv").open("a") as file:
        file.write("501,1,2025-12-31,placed\n")
    since = both.standin.mark()
    connect(airflow, both.standin, "principal")
    second = airflow.trigger("jaffle_shop")
    states = airflow.states("jaffle_shop", second)
    assert set(states.values()) == {"success"}, states
    both.run_on_duckdb()
    counts = both.compare()
    assert counts["raw.raw_orders"] == 500
    assert counts["snapshots.order_status_history"] == 502  # one changed, one is new; the deleted one has ended
    users = {entry["user"] for entry in both.standin.entries("open", since) if "by:test" not in str(entry["settings"])}
    assert users == {f"principal:{CLIENT_ID}"}
    assets = airflow.extras("jaffle_shop", second)
    assert assets["raw.raw_orders"]["rows_total"] == 500
    assert {"marts.orders", "marts.customers"} <= set(assets)
    made = dict(both.standin.rows("SHOW TBLPROPERTIES raw.raw_orders"))
    assert made["standin.made"] == "replace"
    assert both.standin.rows("SHOW TABLES IN ops LIKE 'load__*'") == []
    both.check_secrets(*(text for run_id in (first, second) for _, text in pages(airflow, "jaffle_shop", run_id)))


def test_a_model_that_is_refused_is_red_alone_and_the_next_run_builds_it(
    both: Both, airflow: RealAirflow, first: str
) -> None:
    text = "User does not have MODIFY on Table 'main.marts.customers'."
    connect(airflow, both.standin, "principal")
    both.standin.order(denied=[(r"^create or replace table `main`\.`marts`\.`customers`", text)])
    run_id = airflow.trigger("jaffle_shop", streams=["raw_customers"], dbt_select="stg_customers customers")
    states = airflow.states("jaffle_shop", run_id)
    assert airflow.client.run("jaffle_shop", run_id).state() == "failed"
    assert {task for task, state in states.items() if state == "failed"} == {"dbt.customers"}
    assert states["dbt.stg_customers"] == "success"
    assert states["dbt.orders"] == "skipped"
    assert "does not have MODIFY on Table" in log_of(airflow, run_id, "dbt.customers")
    both.standin.order()

    again = airflow.trigger("jaffle_shop", streams=["raw_customers"], dbt_select="customers")

    assert airflow.client.run("jaffle_shop", again).state() == "success"
    both.compare()
    both.check_secrets(*(text for _, text in pages(airflow, "jaffle_shop", run_id)))


@pytest.mark.usefixtures("first")
def test_each_statement_tells_the_dag_the_task_and_the_run(both: Both) -> None:
    tags = {entry["tags"] for entry in both.standin.entries() if entry["tags"] and "jaffle_shop" in entry["tags"]}
    loads = [each for each in tags if "task:shop.raw_orders.load" in each]
    assert loads
    assert all(part in loads[0] for part in ("dag:jaffle_shop", "run:manual__", "table:raw.raw_orders"))
    models = [each for each in tags if "@@dbt_model_name:orders" in each]
    assert models
    assert all(part in models[0] for part in ("dag:jaffle_shop", "project:jdbt", "run:manual__"))


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("login", ["token", "principal"])
def test_without_a_scheduler(both: Both, login: str) -> None:
    """`dag.test()`: what it loads is what was there."""
    both.use(login)
    outcome = both.databricks.run()
    assert set(outcome.tasks.values()) == {"success"}, outcome.log[-8000:]
    both.compare()
    both.check_secrets(outcome.log)


def test_a_wrong_token_fails_at_once_and_says_so(both: Both, airflow: RealAirflow, first: str) -> None:
    connect(airflow, both.standin, "token", password="dapi-wrong-token")
    run_id = airflow.trigger("jaffle_shop", streams=["raw_orders"])
    [extract] = [
        task
        for task in airflow.client.run("jaffle_shop", run_id).tasks()
        if task["task_id"] == "shop.raw_orders.extract"
    ]
    assert (extract["state"], extract["try_number"]) == ("failed", 1)
    assert "Invalid access token" in log_of(airflow, run_id, "shop.raw_orders.extract")
    assert not [path for path, text in pages(airflow, "jaffle_shop", run_id) if "dapi-wrong-token" in text]
    both.compare()


def remove(file: Path, column: str, value: str) -> None:
    """Remove the rows of a CSV file that have a value."""
    with file.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    place = header.index(column)
    with file.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *(row for row in rows if row[place] != value)])
