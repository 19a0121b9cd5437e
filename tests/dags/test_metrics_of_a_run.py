"""What a whole run of the shop sends to StatsD: its streams, its models and tests, beside Airflow's own metrics."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.statsd import listening

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ORDERS = {"dag_id": "jaffle_shop", "replication": "shop_files", "stream": "raw_orders"}


def test_a_run_tells_statsd_of_streams_models_and_failures(deployment: Any) -> None:
    deployment.edit("raw_payments.csv", row=3, column="amount", value="-100")  # a test of stg_payments forbids it
    deployment.edit("raw_customers.csv", row=2, column="id", value="two")
    with listening() as server:
        deployment.settings |= server.environment() | {"AIRFLOW__METRICS__STATSD_PREFIX": "airflow"}
        outcome = deployment.run()

    assert outcome.with_state("failed") >= {"shop.raw_customers.extract"}, outcome.tasks
    told = outcome.assets["raw.raw_orders"]
    for metric, value in {
        "stream.loads": 1,
        "stream.rows": told["rows_loaded"],
        "stream.bytes": told["bytes"],
    }.items():
        [line] = server.sent(metric, **ORDERS)
        assert (line.kind, line.value) == ("c", value), metric
        assert line.tags == ORDERS
    [rows] = server.sent("stream.table_rows", **ORDERS)
    assert (rows.kind, rows.value) == ("g", told["rows_total"])
    for metric in ("stream.extract_time", "stream.load_time"):
        [time] = server.sent(metric, **ORDERS)
        assert time.kind == "ms"
        assert 0 < time.value < 1000 * deployment.patience
    assert server.sent("stream.loads", stream="raw_customers") == []
    assert [line.kind for line in server.sent("stream.failures", stream="raw_customers")] == ["c"]
    assert outcome.state == "failed"
    built = server.sent("model.builds", model="stg_orders", status="ok")
    assert [line.value for line in built] == [1], "once, though dbt was called again for what had failed"
    assert {line.value for line in server.sent("model.tests", model="stg_payments", status="failed")} == {1}
    assert [line.kind for line in server.sent("model.time", dag_id="jaffle_shop", model="stg_orders")] == ["ms"]
    assert [name for name in server.metrics if name.startswith("airflow.ti.")], "Airflow's own stand beside ours"
