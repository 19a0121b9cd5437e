"""`dbt source freshness` reads the load log: fresh, late, stale and never loaded."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

SHOP = ("raw_customers", "raw_orders", "raw_payments")


def freshness(warehouse: Any) -> tuple[int, dict[str, str]]:
    result = warehouse.dbt("source", "freshness", "--select", "source:shop")
    rows = json.loads((warehouse.target / "sources.json").read_text(encoding="utf-8"))["results"]
    return result.returncode, {row["unique_id"].split(".")[-1]: row["status"] for row in rows}


def test_the_latest_load_counts_and_time_is_utc(warehouse: Any, golden: Any) -> None:
    now = datetime.now(UTC)
    for table, hours in {"raw_customers": 35, "raw_orders": 37, "raw_payments": 5 * 24 + 1}.items():
        warehouse.load(table, golden[table], loaded_at=now - timedelta(hours=hours))
        warehouse.log(table, now - timedelta(days=300))
    warehouse.log("raw_payments_of_another_shop", now)
    assert freshness(warehouse) == (1, {"raw_customers": "pass", "raw_orders": "warn", "raw_payments": "error"})


def test_a_table_that_was_never_loaded_is_an_error(warehouse: Any, golden: Any) -> None:
    warehouse.load_all({name: rows for name, rows in golden.items() if name in SHOP})
    warehouse.sql("delete from ops.load_log where table_name = 'raw.raw_orders'")
    code, statuses = freshness(warehouse)
    assert code == 1
    assert statuses == {"raw_customers": "pass", "raw_orders": "error", "raw_payments": "pass"}
