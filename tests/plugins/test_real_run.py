"""Real runs in a real Airflow: what the page shows of them, and that each trouble is told exactly once.

A copy of the project gets more DAGs: `stock`, whose stream rejects rows and takes new columns, `sites`, which asks
before it takes any, `slow`, which misses its deadline, and `gone`, whose source is not there, so that its table becomes
too old. SCREENSHOTS=folder keeps pictures.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import httpx
import pytest

from tests.support.browser import browsing, chromium, picture
from tests.support.otlp import Point, StandInForACollector, collecting
from tests.support.real_airflow import RealAirflow, real_airflow, until
from tests.support.receiver import Receiver, receiving
from tests.test_contributing import copy_of_the_project, module

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REPLICATION = """\
source: LOCAL
target: WAREHOUSE
env:
  STOCK_FILES: ${STOCK_FILES}
streams:
  "file://{STOCK_FILES}/levels.csv":
    mode: full-refresh
    object: raw.stock_levels
    primary_key: product_id
    meta: {on_bad_row: reject, on_schema_change: add}
"""

ASKING = """\
source: LOCAL
target: WAREHOUSE
env:
  STOCK_FILES: ${STOCK_FILES}
streams:
  "file://{STOCK_FILES}/sites_*.csv":
    mode: incremental
    object: raw.sites
    primary_key: id
    meta: {on_schema_change: ask}
"""

GONE = """\
source: LOCAL
target: WAREHOUSE
env:
  STOCK_FILES: ${STOCK_FILES}
streams:
  "file://{STOCK_FILES}/gone.csv":
    mode: full-refresh
    object: raw.gone
    primary_key: id
"""

CONTRACT = """\
sources:
  - name: stock
    description: Stock levels.
    schema: raw
    tables:
      - name: stock_levels
        description: One row per product.
        columns:
          - {name: product_id, description: The product., data_type: bigint}
          - {name: pieces, description: How many., data_type: int}
"""

SITES = """\
      - name: sites
        description: One row per site.
        columns:
          - {name: id, description: The site., data_type: bigint}
"""

OLD = """\
      - name: gone
        description: A table whose source is not there.
        columns:
          - {name: id, description: Its number., data_type: bigint}
"""

DAGS = '''\
"""Stock levels, and a run that is too slow."""

import time
from datetime import timedelta

from airflow.sdk import DAG, task

from include.elt.alerts.deadlines import Promise, keep_fresh, run_deadline
from include.elt.alerts.run import report_run
from include.elt.paths import REPLICATIONS
from include.elt.replication import read_replication
from include.elt.settings import load_settings
from include.elt.tasks import DEFAULT_ARGS, extract_and_load, pipeline_params

settings = load_settings()
stock = read_replication(REPLICATIONS / "stock_files.yaml", settings.variables())
told = {"on_success_callback": report_run, "on_failure_callback": report_run}

with DAG(dag_id="stock", schedule=None, default_args=DEFAULT_ARGS, params=pipeline_params(stock), **told):
    extract_and_load(stock, settings)

sites = read_replication(REPLICATIONS / "sites_files.yaml", settings.variables())

with DAG(dag_id="sites", schedule=None, default_args=DEFAULT_ARGS, params=pipeline_params(sites), **told):
    extract_and_load(sites, settings)

with DAG(dag_id="slow", schedule=None, deadline=run_deadline(after=timedelta(seconds=3)), **told):

    @task
    def sleep() -> None:
        time.sleep(25)

    sleep()

gone = read_replication(REPLICATIONS / "gone_files.yaml", settings.variables())
at_once = DEFAULT_ARGS | {"retries": 0}

with DAG(
    dag_id="gone",
    schedule=None,
    default_args=at_once,
    params=pipeline_params(gone),
    deadline=run_deadline(after=timedelta(hours=1)),
    **told,
) as dag:
    loads = extract_and_load(gone, settings)
    keep_fresh(dag, {table: Promise(load.task_id, load.owner, 25) for table, load in loads.items()})
'''


@dataclass
class Bench:
    """An Airflow, a deployment, and the receivers of its alerts and metrics."""

    airflow: RealAirflow
    deployment: Any
    receiver: Receiver
    collector: StandInForACollector
    levels: Path

    def token(self) -> str:
        [(user, password)] = json.loads((self.airflow.home / "passwords.json").read_text()).items()
        body = {"username": user, "password": password}
        answer = httpx.post(f"{self.airflow.url}/auth/token", json=body, trust_env=False, timeout=60)
        return str(answer.json()["access_token"])

    def api(self, path: str, **parameters: str) -> Any:
        headers = {"Authorization": f"Bearer {self.token()}"}
        url = f"{self.airflow.url}/data-platform/api/{path}"
        return httpx.get(url, params=parameters, headers=headers, trust_env=False, timeout=60).json()

    def log_lines(self, dag_id: str, run_id: str, task_id: str, event: str) -> list[dict[str, Any]]:
        """The structured lines of one event in a task's log."""
        folder = self.airflow.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        lines = [json.loads(line) for file in folder.glob("*.log") for line in file.read_text().splitlines()]
        return [line for line in lines if line["event"] == event and line["logger"] == "elt"]

    def points(self, metric: str, **attributes: str) -> list[Point]:
        """What the collector was sent of a metric."""
        points = self.collector.metrics.get(f"airflow.elt.{metric}", [])
        return [point for point in points if point.attributes.items() >= attributes.items()]

    def alerts_of(self, dag_id: str, run_id: str, expected: int = 1) -> list[dict[str, Any]]:
        """The alerts of a run: waits for as many as are expected, and then for one too many."""
        found = [0.0]

        def arrived() -> bool:
            found[0] += 1
            return len(self._alerts(dag_id, run_id)) >= expected and found[0] > 20

        until(arrived, 90, f"{expected} alerts of {run_id}: {self.receiver.bodies}")
        return self._alerts(dag_id, run_id)

    def alerts_of_kind(self, dag_id: str, kind: str) -> list[dict[str, Any]]:
        """The alerts of a kind that have come of a DAG."""
        return [each for each in self.receiver.bodies if (each["dag_id"], each["kind"]) == (dag_id, kind)]

    def _alerts(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return [each for each in self.receiver.bodies if (each["dag_id"], each["run_id"]) == (dag_id, run_id)]


@pytest.fixture(scope="module")
def bench(new_deployment: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("real")
    deployment = new_deployment(folder)
    deployment.root = copy_of_the_project(folder / "project")
    (deployment.root / "include/replications/stock_files.yaml").write_text(REPLICATION)
    (deployment.root / "dbt/models/staging/stock").mkdir()
    (deployment.root / "dbt/models/staging/stock/sources.yml").write_text(CONTRACT + OLD + SITES)
    (deployment.root / "include/replications/gone_files.yaml").write_text(GONE)
    (deployment.root / "include/replications/sites_files.yaml").write_text(ASKING)
    (deployment.root / "dags/stock.py").write_text(DAGS)
    stock = folder / "stock"
    stock.mkdir()
    (stock / "levels.csv").write_text("product_id,pieces\n1,40\n2,7\n")
    with receiving() as receiver, collecting() as collector:
        deployment.settings |= collector.environment() | {
            "STOCK_FILES": str(stock),
            "ALERTS": "webhook:alerts",
            "AIRFLOW_CONN_ALERTS": json.dumps({"conn_type": "http", "host": receiver.url}),
            "AIRFLOW__TRIGGERER__DEFAULT_CAPACITY": "100",
        }
        module(deployment.root, deployment.environment, "include.elt.manifest")
        with real_airflow(deployment) as airflow:
            yield Bench(airflow, deployment, receiver, collector, stock / "levels.csv")


def test_each_trouble_of_a_stream_is_told_exactly_once(bench: Bench) -> None:
    clean = bench.airflow.trigger("stock")
    bench.levels.write_text("product_id,pieces\n1,40\n2,many\n")
    rejecting = bench.airflow.trigger("stock")
    (bench.deployment.root / "dbt/models/staging/stock/sources.yml").write_text(
        CONTRACT + "          - {name: site, description: Where., data_type: string}\n" + OLD + SITES
    )
    bench.levels.write_text("product_id,pieces,site\n1,40,north\n")
    changed = bench.airflow.trigger("stock")

    [rejected] = bench.alerts_of("stock", rejecting)
    [change] = bench.alerts_of("stock", changed)

    assert bench.alerts_of("stock", clean, expected=0) == []
    assert (rejected["kind"], rejected["subject"], rejected["owner"]) == (
        "rejected rows",
        "stock_levels",
        "data-platform",
    )
    assert "1 of 2 rows" in rejected["text"]
    assert change["kind"] == "schema change"
    assert "the column site string is new" in change["text"]
    assert rejected["link"].startswith(f"{bench.airflow.url}/dags/stock/runs/")


def test_a_person_is_asked_before_a_table_gets_other_columns(bench: Bench) -> None:
    """Rejected, the table is as before and the stream has failed; approved, it has the new column."""
    client, folder = bench.airflow.client, bench.levels.parent
    contract = bench.deployment.root / "dbt/models/staging/stock/sources.yml"
    (folder / "sites_1.csv").write_text("id\n1\n")
    bench.airflow.trigger("sites")
    contract.write_text(CONTRACT + OLD + SITES + "          - {name: town, description: Where., data_type: string}\n")
    outcomes = []
    for answer in ("Reject", "Approve"):
        (folder / "sites_2.csv").write_text("id,town\n2,Oslo\n")
        run = client.trigger("sites", {})
        path = f"/dags/sites/dagRuns/{quote(run)}/taskInstances/sites.sites.load"
        waiting = "awaiting_input"
        until(lambda: client.call("GET", path)["state"] == waiting, 120, "the question")  # noqa: B023
        asked = client.call("GET", f"{path}/-1/hitlDetails")
        time.sleep(8)  # as a person would: Airflow kills a task that comes back before its first process was taken away
        shown = bench.api("streams", dag_id="sites")["streams"][0]["status"]
        client.call("PATCH", f"{path}/-1/hitlDetails", json={"chosen_options": [answer], "params_input": {}})
        bench.airflow.wait("sites", run, 150)
        state = bench.airflow.states("sites", run)["sites.sites.load"]
        outcomes.append((shown, "it lacks the column town string" in asked["body"], state))
        if answer == "Reject":
            [alert] = bench.alerts_of("sites", run)
            assert (alert["kind"], "was not approved" in alert["text"]) == ("schema change", True)

    assert outcomes == [("needs approval", True, "failed"), ("needs approval", True, "success")]
    assert bench.deployment.query("SELECT id, town FROM raw.sites ORDER BY id") == [(1, None), (2, "Oslo")]


def test_a_table_that_becomes_too_old_is_told_exactly_once_and_its_run_can_be_cleared(bench: Bench) -> None:
    """A second run takes the deadline over. Airflow's own deadline would make the clearing fail (its issue 70368)."""
    first = bench.airflow.trigger("gone")
    second = bench.airflow.trigger("gone")
    # A run that is cleared before its end was told is at work again, and its failure no longer worth a message.
    until(lambda: len(bench.alerts_of_kind("gone", "failed stream")) == 2, 60, "both failed runs are told")
    bench.airflow.clear("gone", second, ["gone.gone.extract", "gone.gone.load"])

    until(lambda: bench.alerts_of_kind("gone", "missed deadline"), 90, f"the alert: {bench.receiver.bodies}")
    time.sleep(6)  # one too many would come now
    [late] = bench.alerts_of_kind("gone", "missed deadline")
    assert (late["subject"], late["run_id"], late["owner"]) == ("raw.gone", second, "data-platform")
    assert "more than 25 seconds, which is how old it may be: raw.gone" in late["text"]
    assert late["task_id"] == "gone.gone.load"
    until(lambda: len(bench.alerts_of_kind("gone", "failed stream")) >= 3, 60, "what was cleared has failed again")
    failed = [each["run_id"] for each in bench.alerts_of_kind("gone", "failed stream")]
    assert sorted(failed) == sorted([first, second, second]), "each end of a run is told"
    [line] = bench.log_lines("gone", first, "gone.gone.extract", "failed")
    assert (line["stream"], line["replication"], line["run_id"]) == ("gone", "gone_files", first)
    assert "gone.csv" in line["text"]


def test_a_missed_deadline_is_told_exactly_once_while_the_run_goes_on(bench: Bench) -> None:
    run = bench.airflow.trigger("slow")

    [alert] = bench.alerts_of("slow", run)

    assert alert["kind"] == "missed deadline"
    assert bench.airflow.client.run("slow", run).state() == "success"


def test_a_run_and_a_failing_test_are_told_and_shown(bench: Bench) -> None:
    """The shop: a good run, then one with a payment below zero, which a test of stg_payments forbids."""
    first = bench.airflow.trigger("jaffle_shop")
    bench.deployment.edit("raw_payments.csv", row=3, column="amount", value="-100")
    second = bench.airflow.trigger("jaffle_shop")

    assert bench.alerts_of("jaffle_shop", first, expected=0) == []
    [alert] = bench.alerts_of("jaffle_shop", second)
    assert (alert["kind"], alert["subject"], alert["owner"]) == ("failed test", "stg_payments", "data")
    assert "accepted_range" in alert["text"]

    streams = {each["stream"]: each for each in bench.api("streams", dag_id="jaffle_shop")["streams"]}
    assert {each["status"] for each in streams.values()} == {"ok"}
    assert streams["raw_orders"]["freshness"] == "fresh"
    assert len(streams["raw_orders"]["history"]) == 2
    good = {each["name"]: each for each in bench.api("models", dag_id="jaffle_shop", run_id=first)["models"]}
    assert good["orders"]["status"] == "ok"
    assert good["orders"]["tests"]["ok"] >= 5
    models = {each["name"]: each for each in bench.api("models", dag_id="jaffle_shop")["models"]}
    assert models["stg_payments"]["tests"]["failed"] == 1
    assert models["orders"]["status"] in ("skipped", "not run")
    assert models["orders"]["built_at"] < models["stg_payments"]["built_at"], "by the first run"
    nodes = bench.api("lineage", dag_id="jaffle_shop")["nodes"]
    assert "Shop overview" in {each["name"] for each in nodes if each["type"] == "exposure"}
    [problem] = bench.api("problems", dag_id="jaffle_shop")["problems"]
    assert (problem["kind"], problem["subject"], problem["owner"]) == ("failed test", "stg_payments", "data")
    assert "Shop overview" in problem["holds_up"]
    assert problem["task_id"] == alert["task_id"] == "dbt.stg_payments"
    assert problem["task_id"] in bench.airflow.states("jaffle_shop", second)
    _logs_and_metrics(bench, first, second)
    _look(bench, second)
    _report(bench)


def _logs_and_metrics(bench: Bench, first: str, second: str) -> None:
    """What machines are told of the two runs."""
    [loaded] = bench.log_lines("jaffle_shop", first, "shop.raw_orders.load", "loaded")
    assert (loaded["stream"], loaded["run_id"], loaded["dag_id"]) == ("raw_orders", first, "jaffle_shop")
    assert loaded["rows"] == loaded["rows_total"] > 0
    [extracted] = bench.log_lines("jaffle_shop", first, "shop.raw_orders.extract", "extracted")
    assert extracted["rows"] == loaded["rows"]
    built = {line["model"]: line for line in bench.log_lines("jaffle_shop", second, "dbt.dbt_build", "built")}
    assert built["stg_payments"]["tests"]["failed"] == 1
    assert built["stg_orders"]["run_id"] == second
    orders = {"dag_id": "jaffle_shop", "replication": "shop_files", "stream": "raw_orders"}
    until(lambda: len(bench.points("stream.loads", **orders)) >= 2, 30, "metrics of both loads")
    assert {point.value for point in bench.points("stream.rows", **orders)} == {float(loaded["rows"])}
    assert bench.points("stream.load_time", **orders)[0].kind == "histogram"
    assert bench.points("model.tests", model="stg_payments", status="failed")
    assert bench.points("alerts", kind="failed_test", outcome="sent")


def _report(bench: Bench) -> None:
    """The daily report, with a table that became late and shrank: one message, a table in the log, a row per table."""
    with duckdb.connect(str(bench.deployment.warehouse)) as sql:
        sql.execute("CREATE TABLE raw.raw_users AS SELECT * FROM range(20)")
    call = bench.airflow.client.call
    [users] = call("GET", "/assets?name_pattern=raw.raw_users")["assets"]
    for rows in (100, 101, 99, 100, 100, 100, 20):
        told = {"rows_loaded": rows, "rows_total": rows}
        call("POST", "/assets/events", json={"asset_id": users["id"], "extra": told})
    with bench.airflow.standing_still(), sqlite3.connect(bench.airflow.home / "airflow.db") as database:
        moved = "UPDATE asset_event SET timestamp = datetime(timestamp, '-50 hours') WHERE asset_id = ?"
        database.execute(moved, [users["id"]])
    run = bench.airflow.trigger("health_report")

    [alert] = bench.alerts_of("health_report", run)
    assert alert["kind"] == "report"
    lines = alert["text"].splitlines()
    assert lines[0].startswith("raw.raw_users: late: loaded 50 h ago")
    assert "shrank: 20 rows, 100 are usual" in lines[0]
    assert [line for line in lines if "accepted_range" in line], "the test that failed in the last run of the shop"
    assert not [line for line in lines if "raw_orders" in line]
    folder = bench.airflow.home / "logs/dag_id=health_report" / f"run_id={run}" / "task_id=report"
    [log] = folder.glob("*.log")
    table = next(
        each["event"] for each in map(json.loads, log.read_text().splitlines()) if "rows before" in each["event"]
    )
    [row] = [line.split() for line in table.splitlines() if line.startswith("raw.raw_users")]
    assert row[2:11] == ["20", "100", "-80%", "100", "100", "100", "99", "101", "100"][: len(row[2:11])]
    _history(bench, run)


def _history(bench: Bench, run: str) -> None:
    """The completeness history: on the page as in the warehouse, and counting again doubles nothing."""
    counted = "SELECT table_name, rows, findings FROM ops.completeness ORDER BY 1"
    before = bench.deployment.query(counted)
    rows = {table: number for table, number, _ in before}
    for table in ("marts.orders", "raw.raw_orders", "raw.raw_users"):
        assert bench.deployment.query(f"SELECT count(*) FROM {table}") == [(rows[table],)]
    told = {each["table"]: each for each in bench.api("completeness")["tables"]}
    assert told["marts.orders"]["rows"] == rows["marts.orders"]
    assert told["marts.orders"]["counted_at"]
    assert told["raw.raw_users"]["unusual"] == "shrank: 20 rows, 100 are usual"
    bench.airflow.clear("health_report", run, ["measure"])
    assert bench.airflow.states("health_report", run) == {"measure": "success", "report": "success"}
    assert [row[:2] for row in bench.deployment.query(counted)] == [row[:2] for row in before]
    chromium()
    with browsing(bench.airflow.url, bench.token()) as page:
        page.goto(f"{bench.airflow.url}/data-platform/#tab=completeness")
        page.locator("tr[data-key='marts.orders']").wait_for()
        picture(page, "real_completeness")


def _look(bench: Bench, run_id: str) -> None:
    """The same through a browser: the DAG's tab, the run's tab with what failed, and Airflow's dashboard."""
    chromium()
    with browsing(bench.airflow.url, bench.token()) as page:
        page.goto(f"{bench.airflow.url}/dags/jaffle_shop/plugin/data-platform-dag")
        page.frame_locator("iframe").locator("tr[data-opens='model.jdbt.stg_payments']").wait_for()
        picture(page, "real_dag_tab")
        page.goto(f"{bench.airflow.url}/dags/jaffle_shop/runs/{quote(run_id)}/plugin/data-platform-run")
        frame = page.frame_locator("iframe")
        frame.get_by_role("tab", name="Models").click()
        frame.locator("tr[data-key='model.jdbt.stg_payments']").get_by_text("1 failed").wait_for()
        picture(page, "real_run_tab_failed")
        frame.get_by_role("tab", name="Problems").click()
        frame.locator("tr[data-opens='model.jdbt.stg_payments']").wait_for()
        picture(page, "real_run_tab_problems")
        frame.get_by_role("tab", name="Lineage").click()
        frame.locator(".graph .node.bad").first.wait_for()
        picture(page, "real_lineage_failed")
        page.goto(f"{bench.airflow.url}/plugin/data-platform")
        page.frame_locator("iframe").locator("tr[data-opens='model.jdbt.stg_payments']").first.wait_for()
        picture(page, "real_page")
        page.frame_locator("iframe").get_by_role("tab", name="Streams").click()
        page.frame_locator("iframe").locator("tr[data-key='raw.raw_orders']").wait_for()
        picture(page, "real_streams")
        for name in ("Models", "Reconciliation", "Lineage"):
            page.frame_locator("iframe").get_by_role("tab", name=name).click()
            page.frame_locator("iframe").locator("tr[data-key], .graph .node").first.wait_for()
            picture(page, f"real_{name.lower()}")
    with browsing(bench.airflow.url, bench.token(), dark=True) as page:
        page.goto(f"{bench.airflow.url}/plugin/data-platform#tab=lineage")
        frame = page.frame_locator("iframe")
        frame.get_by_role("tab", name="Lineage").click()
        frame.locator(".graph .node").first.wait_for()
        picture(page, "real_dark")
        frame.get_by_role("tab", name="Problems").click()
        frame.locator("tr[data-opens='model.jdbt.stg_payments']").first.click()
        frame.locator("#drawer .problem").first.wait_for()
        picture(page, "real_dark_failed")
