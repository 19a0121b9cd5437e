"""Watched nodes where worker, scheduler and triggerers share no disk, and there are two triggerers.

With the KubernetesExecutor's way to start a task, as processes; and with Celery and Redis (`make test-celery`).
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from tests.support import watched
from tests.support.real_airflow import until
from tests.support.spread_airflow import PODS, no_celery, spread_airflow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

DAG = "watched"
NODES = 10
"""More than one triggerer of the test takes, and fewer than two."""


@pytest.mark.parametrize("executor", [PODS, "CeleryExecutor"])
def test_nodes_end_as_dbt_says(executor: str, tmp_path: Path) -> None:
    if executor == "CeleryExecutor" and (why := no_celery()):
        pytest.skip(why)
    slow = "select (select max(md5(i::varchar)) from range(300000) as t(i)) as x"
    models = {f"m{number}": slow for number in range(NODES)} | {"last": "select * from {{ ref('m0') }}"}
    models["broken"] = "select 1 / 'no' as x"
    watched.write_project(tmp_path, models, {})
    watched.write_dag(tmp_path, DAG, retries=0)

    with spread_airflow(tmp_path, executor) as airflow:
        client = airflow.client
        until(lambda: client.dag(DAG), 400, f"the DAG is read ({airflow.folder})")
        client.pause(DAG, paused=False)
        run = client.run(DAG, client.trigger(DAG, {}))
        until(lambda: run.state() in ("success", "failed"), 600, f"the end of the run ({airflow.folder})")

        states = {each["task_id"].removeprefix("dbt."): each["state"] for each in run.tasks()}
        expected = dict.fromkeys([*models, "dbt_build"], "success") | {"broken": "failed"}
        assert states == expected, f"hidden from the triggerers: {airflow.hidden}"
        assert run.state() == "failed"
        by_triggerer = [airflow.watched_by(f"triggerer-{number}", DAG) for number in (1, 2)]
        assert all(by_triggerer), "both triggerers have watched"
        assert set.union(*by_triggerer) == {f"dbt.{name}" for name in models}
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        tables = {name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()}
    assert tables == set(models) - {"broken"}
