"""Real runs in a real Airflow: what the page shows of them, and that each trouble is told exactly once.

A copy of the project gets three more DAGs: `stock`, whose stream rejects rows and takes new columns, `sites`, which
asks before it takes any, and `slow`, which misses its deadline. SCREENSHOTS=folder keeps pictures.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.browser import browsing, chromium, picture
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

DAGS = '''\
"""Stock levels, and a run that is too slow."""

import time
from datetime import timedelta

from airflow.sdk import DAG, task

from include.elt.alerts.deadlines import run_deadline
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
'''


@dataclass
class Bench:
    """An Airflow, a deployment, and the receiver of its alerts."""

    airflow: RealAirflow
    deployment: Any
    receiver: Receiver
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

    def alerts_of(self, dag_id: str, run_id: str, expected: int = 1) -> list[dict[str, Any]]:
        """The alerts of a run: waits for as many as are expected, and then for one too many."""
        found = [0.0]

        def arrived() -> bool:
            found[0] += 1
            return len(self._alerts(dag_id, run_id)) >= expected and found[0] > 20

        until(arrived, 90, f"{expected} alerts of {run_id}: {self.receiver.bodies}")
        return self._alerts(dag_id, run_id)

    def _alerts(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return [each for each in self.receiver.bodies if (each["dag_id"], each["run_id"]) == (dag_id, run_id)]


@pytest.fixture(scope="module")
def bench(new_deployment: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("real")
    deployment = new_deployment(folder)
    deployment.root = copy_of_the_project(folder / "project")
    (deployment.root / "include/replications/stock_files.yaml").write_text(REPLICATION)
    (deployment.root / "dbt/models/staging/stock").mkdir()
    (deployment.root / "dbt/models/staging/stock/sources.yml").write_text(CONTRACT + SITES)
    (deployment.root / "include/replications/sites_files.yaml").write_text(ASKING)
    (deployment.root / "dags/stock.py").write_text(DAGS)
    stock = folder / "stock"
    stock.mkdir()
    (stock / "levels.csv").write_text("product_id,pieces\n1,40\n2,7\n")
    with receiving() as receiver:
        deployment.settings |= {
            "STOCK_FILES": str(stock),
            "ALERTS": "webhook:alerts",
            "AIRFLOW_CONN_ALERTS": json.dumps({"conn_type": "http", "host": receiver.url}),
            "AIRFLOW__TRIGGERER__DEFAULT_CAPACITY": "100",
        }
        module(deployment.root, deployment.environment, "include.elt.manifest")
        with real_airflow(deployment) as airflow:
            yield Bench(airflow, deployment, receiver, stock / "levels.csv")


def test_each_trouble_of_a_stream_is_told_exactly_once(bench: Bench) -> None:
    clean = bench.airflow.trigger("stock")
    bench.levels.write_text("product_id,pieces\n1,40\n2,many\n")
    rejecting = bench.airflow.trigger("stock")
    (bench.deployment.root / "dbt/models/staging/stock/sources.yml").write_text(
        CONTRACT + "          - {name: site, description: Where., data_type: string}\n" + SITES
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
    contract.write_text(CONTRACT + SITES + "          - {name: town, description: Where., data_type: string}\n")
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
    nodes = bench.api("lineage", dag_id="jaffle_shop")["nodes"]
    assert "Shop overview" in {each["name"] for each in nodes if each["type"] == "exposure"}
    _look(bench, second)


def _look(bench: Bench, run_id: str) -> None:
    """The same through a browser: the DAG's tab, the run's tab with what failed, and Airflow's dashboard."""
    chromium()
    with browsing(bench.airflow.url, bench.token()) as page:
        page.goto(f"{bench.airflow.url}/dags/jaffle_shop/plugin/data-platform-dag")
        page.frame_locator("iframe").locator("tr[data-key='raw.raw_orders']").wait_for()
        picture(page, "real_dag_tab")
        page.goto(f"{bench.airflow.url}/dags/jaffle_shop/runs/{quote(run_id)}/plugin/data-platform-run")
        frame = page.frame_locator("iframe")
        frame.get_by_role("tab", name="Models").click()
        frame.locator("tr[data-key='model.jdbt.stg_payments']").get_by_text("1 failed").wait_for()
        picture(page, "real_run_tab_failed")
        frame.get_by_role("tab", name="Lineage").click()
        frame.locator(".graph .node.bad").first.wait_for()
        picture(page, "real_lineage_failed")
        page.goto(f"{bench.airflow.url}/plugin/data-platform")
        page.frame_locator("iframe").locator("tr[data-key='raw.raw_orders']").wait_for()
        picture(page, "real_page")
    with browsing(bench.airflow.url, bench.token(), dark=True) as page:
        page.goto(f"{bench.airflow.url}/plugin/data-platform#tab=lineage")
        frame = page.frame_locator("iframe")
        frame.get_by_role("tab", name="Lineage").click()
        frame.locator(".graph .node").first.wait_for()
        picture(page, "real_dark")
