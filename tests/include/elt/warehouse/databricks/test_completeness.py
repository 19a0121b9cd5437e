"""The completeness history on Databricks: what it says is what DuckDB says of the same."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from include.elt.warehouse import COMPLETENESS, Completeness, Counted
from tests.support.databricks_standin.bench import DatabricksBench
from tests.support.elt import Bench

pytestmark = pytest.mark.databricks_standin

DAY = date(2026, 3, 1)
AT = datetime(2026, 3, 1, 5, 0, 0, 123456, tzinfo=UTC)
AWKWARD = 'shrank: it\'s 7 rows \\n `x` "y"'


@pytest.fixture(params=["duckdb", "databricks"])
def bench(request: pytest.FixtureRequest, workspace: Any, tmp_path: Path) -> Bench:
    return Bench(tmp_path) if request.param == "duckdb" else DatabricksBench(tmp_path, workspace)


def test_a_day_is_written_once_however_often_it_is_counted(bench: Bench) -> None:
    bench.query("CREATE SCHEMA IF NOT EXISTS raw")
    bench.query("CREATE TABLE raw.orders AS SELECT 1 AS x UNION ALL SELECT 2")
    bench.query("CREATE VIEW raw.orders_view AS SELECT * FROM raw.orders")
    warehouse = bench.warehouse()
    tables = {"raw.orders": "raw.orders", "marts.view": "raw.orders_view", "raw.gone": "raw.gone"}

    first = warehouse.count_all(tables, DAY)
    warehouse.write_completeness(DAY, "run 0", [])
    warehouse.write_completeness(date(2026, 2, 27), "run 1", [Completeness("raw.orders", 1, None, None, ())])
    warehouse.write_completeness(date(2026, 2, 28), "run 2", [Completeness("raw.orders", None, 1, AT, ("gone",))])
    for run, rows in (("run 3", 7), ("run 3", 7), ("run 4", 8)):
        warehouse.write_completeness(DAY, run, [Completeness("raw.orders", rows, 1, AT, ("late", AWKWARD))])
    warehouse.write_completeness(date(2026, 3, 2), "run 5", [Completeness("raw.orders", 9, 2, None, ())])

    assert first == {"raw.orders": Counted(2, ()), "marts.view": Counted(2, ()), "raw.gone": Counted(None, ())}
    assert warehouse.count_all(tables, DAY)["raw.orders"] == Counted(2, (1,))
    assert warehouse.count_all(tables, date(2026, 3, 3))["raw.orders"] == Counted(2, (9, 8, 1))
    columns = "day, table_name, rows, rows_usual, updated_at, findings, run_id, measured_at IS NULL"
    found = [tuple(row) for row in bench.query(f"SELECT {columns} FROM {COMPLETENESS} ORDER BY day")]
    assert [row[:4] + row[5:] for row in found] == [
        (date(2026, 2, 27), "raw.orders", 1, None, None, "run 1", False),
        (date(2026, 2, 28), "raw.orders", None, 1, "gone", "run 2", False),
        (DAY, "raw.orders", 8, 1, f"late; {AWKWARD}", "run 4", False),
        (date(2026, 3, 2), "raw.orders", 9, 2, None, "run 5", False),
    ]
    assert [row[4] and row[4].replace(tzinfo=UTC) for row in found] == [None, AT, AT, None]
