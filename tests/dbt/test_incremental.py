"""An incremental model: it reads what the loads since its last build have read, and nothing else."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

EVENT = '{{"amount": "{}"}}'
BEGIN = datetime.now(UTC)


def purchases(warehouse: Any) -> dict[int, Decimal]:
    return dict(warehouse.sql("select event_id, amount from marts.purchases order by 1"))


def event(key: int, amount: str, day: int) -> tuple[object, ...]:
    return (key, "u-1", "purchase", EVENT.format(amount), f"2026-01-{day:02} 12:00:00", f"2026-01-{day:02} 12:00:00")


def build(warehouse: Any, *more: str) -> Any:
    result = warehouse.dbt(
        "build", "--select", "purchases", "stg_events", "--exclude-resource-type", "unit_test", *more
    )
    assert result.returncode == 0, result.output
    return result


def load(warehouse: Any, rows: list[tuple[object, ...]], hours: int, lower: str | None, changed: int = 1) -> None:
    """A load whose row in the log says what it has read."""
    warehouse.load("raw_events", rows, BEGIN - timedelta(days=9))
    warehouse.log("raw_events", BEGIN + timedelta(hours=hours), lower, changed)


def test_late_rows_and_changed_rows_are_merged_and_the_others_left_alone(built: Any, golden: Any) -> None:
    assert purchases(built) == {3: Decimal("19.99"), 4: Decimal("0.01")}
    built.sql("update marts.purchases set amount = 7 where event_id = 3")  # what is not read again stays as it is
    late, next_day = event(6, "6.00", 2), event(7, "7.00", 3)
    changed = event(4, "0.02", 2)
    rows = [row for row in golden["raw_events"] if row[0] != 4] + [changed, late, next_day]

    load(built, rows, 1, "2026-01-02 00:00:00+00")
    build(built)

    assert purchases(built) == {3: Decimal(7), 4: Decimal("0.02"), 6: Decimal(6), 7: Decimal(7)}

    before = built.sql("select * from marts.purchases order by 1")
    load(built, [*rows, event(8, "8.00", 1)], 2, "2026-01-01 00:00:00+00", changed=0)
    build(built)
    assert built.sql("select * from marts.purchases order by 1") == before, "no load has changed anything"

    load(built, [*rows, event(8, "8.00", 1)], 3, "2026-01-01 00:00:00+00")  # a backfill of a day before the others
    build(built)
    assert purchases(built) == {3: Decimal("19.99"), 4: Decimal("0.02"), 6: Decimal(6), 7: Decimal(7), 8: Decimal(8)}

    load(built, rows, 4, None)
    build(built, "--full-refresh")
    assert purchases(built) == {3: Decimal("19.99"), 4: Decimal("0.02"), 6: Decimal(6), 7: Decimal(7)}


def test_a_build_that_was_left_out_is_made_up_for(built: Any, golden: Any) -> None:
    rows = [*golden["raw_events"], event(6, "6.00", 1)]
    load(built, rows, 1, "2026-01-01 00:00:00+00")
    load(built, [*rows, event(7, "7.00", 5)], 2, "2026-01-05 00:00:00+00")
    build(built)
    assert set(purchases(built)) == {3, 4, 6, 7}
