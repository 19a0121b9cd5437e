"""Whole runs of the DAG health_report: the completeness history that it writes, and what its report says."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HISTORY = "SELECT table_name, rows, rows_usual, findings FROM ops.completeness WHERE day = current_date ORDER BY 1"


def line_of(table: str, log: str) -> list[str]:
    """The words of a table's line in the report."""
    return next(line.split() for line in log.splitlines() if line.startswith(f"{table} "))


def test_a_fresh_installation_is_well(deployment: Any) -> None:
    outcome = deployment.run("health_report")

    assert (outcome.state, set(outcome.tasks.values())) == ("success", {"success"})
    assert line_of("marts.orders", outcome.log) == ["marts.orders", "never"]
    assert "disappeared" not in outcome.log
    assert not deployment.warehouse.exists()


def test_each_day_has_one_row_per_table_however_often_it_is_counted(used: Any) -> None:
    first = used.run("health_report")
    once = used.query(HISTORY)
    again = used.run("health_report")

    assert (first.state, again.state) == ("success", "success")
    assert used.query(HISTORY) == once
    rows = {table: rows for table, rows, *_ in once}
    counted = "SELECT (SELECT count(*) FROM raw.raw_orders), (SELECT count(*) FROM marts.orders)"
    assert used.query(counted) == [(rows["raw.raw_orders"], rows["marts.orders"])]
    assert set(rows) == {
        *(f"raw.raw_{name}" for name in ("customers", "orders", "payments")),
        "marts.customers",
        "marts.orders",
    }
    assert {findings for *_, findings in once} == {None}
    updated = used.query("SELECT table_name FROM ops.completeness WHERE updated_at IS NULL OR run_id = ''")
    assert updated == [], "each was loaded or built"
    assert line_of("marts.orders", again.log)[2:] == [f"{rows['marts.orders']:,}", "ok"]


def test_a_mart_that_is_not_what_it_was_on_the_days_before_is_told(used: Any) -> None:
    used.run("health_report")
    with duckdb.connect(str(used.warehouse)) as sql:
        sql.execute(
            "INSERT INTO ops.completeness BY NAME SELECT day - i::INTEGER AS day, table_name, 10 * rows AS rows,"
            " run_id, measured_at FROM ops.completeness, range(1, 7) AS r(i) WHERE table_name = 'marts.orders'"
        )
        sql.execute("DROP TABLE raw.raw_payments CASCADE")

    outcome = used.run("health_report")

    assert outcome.state == "success"
    found = {table: (rows, usual, findings) for table, rows, usual, findings in used.query(HISTORY)}
    rows, usual, findings = found["marts.orders"]
    assert (usual, findings) == (10 * rows, f"shrank: {rows:,} rows, {10 * rows:,} are usual")
    assert found["raw.raw_payments"][0] is None
    assert found["raw.raw_payments"][2].startswith("disappeared")
    assert line_of("marts.orders", outcome.log)[2:5] == [f"{rows:,}", f"{usual:,}", "-90%"]
    assert f"marts.orders: {findings}" in outcome.log
    assert "raw.raw_payments: disappeared" in outcome.log


def test_a_warehouse_that_cannot_be_asked_is_told_and_the_rest_is_reported(deployment: Any) -> None:
    deployment.settings |= {"WAREHOUSE": "databricks", "LAKE": "/Volumes/main/lake/files"}
    outcome = deployment.run("health_report")

    assert outcome.tasks == {"measure": "failed", "report": "success"}
    assert "the tables were not counted: there is no Airflow connection databricks_default" in outcome.log
