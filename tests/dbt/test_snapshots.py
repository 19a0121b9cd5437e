"""Snapshots: what changed, what disappeared and what came back stays visible."""

from datetime import UTC, datetime, timedelta
from typing import Any


def history(warehouse: Any, table: str, column: str, key: int) -> list[tuple[str, datetime, datetime | None]]:
    query = f"select {column}, dbt_valid_from, dbt_valid_to from snapshots.{table} where id = ? order by dbt_valid_from"
    return warehouse.sql(query, [key])


def test_history_of_a_change_a_deletion_and_a_return(built: Any, golden: Any) -> None:
    warehouse = built  # with a first snapshot of the golden rows

    golden["raw_customers"][0] = (1, "Ada", "Lovelace")
    golden["raw_orders"][4] = (14, 4, "2025-03-02", "shipped")
    order, zoe = golden["raw_orders"].pop(2), golden["raw_customers"].pop(1)
    warehouse.load_all(golden)
    assert warehouse.dbt("snapshot").returncode == 0
    for table, column, key in (("customers_history", "last_name", 2), ("order_status_history", "status", 12)):
        [(_, _, end)] = history(warehouse, table, column, key)
        assert end is not None, "deleted, but not forgotten"

    golden["raw_customers"].append(zoe)
    golden["raw_orders"].append(order)
    warehouse.load_all(golden)
    assert warehouse.dbt("snapshot").returncode == 0

    for table, column, key, values in (
        ("customers_history", "last_name", 1, ["Byron", "Lovelace"]),
        ("order_status_history", "status", 14, ["placed", "shipped"]),
    ):
        old, new = history(warehouse, table, column, key)
        assert [old[0], new[0]] == values
        assert old[2] == new[1], "one ends when the next begins"
        assert new[2] is None

    for table, column, key, value in (
        ("customers_history", "last_name", 2, "O'Brien"),
        ("order_status_history", "status", 12, "shipped"),
    ):
        gone, back = history(warehouse, table, column, key)
        assert gone[0] == back[0] == value
        assert gone[1] < gone[2] < back[1], "a gap while it was gone"
        assert back[2] is None

    assert len(history(warehouse, "customers_history", "last_name", 3)) == 1, "no change, no row"
    assert warehouse.sql("select count(*) from snapshots.customers_history") == [(7,)]
    assert warehouse.sql("select count(*) from snapshots.order_status_history") == [(9,)]

    [(latest,)] = warehouse.sql("select max(dbt_valid_from) from snapshots.customers_history")
    assert abs(datetime.now(UTC).replace(tzinfo=None) - latest) < timedelta(minutes=10), "written in UTC"
