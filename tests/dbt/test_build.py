"""`dbt build`: the figures that come out, and what stops when the data is broken."""

import csv
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.postgres import running_server
from tests.support.web import Shop

SAMPLE = Path(__file__).parents[2] / "include" / "sample_data"


def money(*texts: str) -> tuple[Decimal, ...]:
    return tuple(Decimal(text) for text in texts)


def test_everything_succeeds_and_nothing_warns(build: Any) -> None:
    _, result = build
    assert result.returncode == 0, result.output
    assert result.warnings == []
    assert set(result.statuses.values()) == {"success", "pass", "no-op"}


def test_orders_have_what_was_paid_in_each_way(build: Any) -> None:
    warehouse, _ = build
    columns = "order_id, customer_id, order_date, status, credit_card_amount, coupon_amount, bank_transfer_amount"
    assert warehouse.sql(f"select {columns}, gift_card_amount, amount from marts.orders order by order_id") == [
        (10, 1, date(2025, 1, 2), "completed", *money("20.00", "0.00", "0.00", "10.00", "30.00")),
        (11, 1, date(2025, 3, 1), "returned", *money("0.00", "0.00", "45.50", "0.00", "45.50")),
        (12, 2, date(2025, 2, 14), "shipped", *money("12.50", "5.00", "0.00", "0.00", "17.50")),
        (13, 4, date(2024, 12, 31), "return_pending", *money("0.00", "0.00", "0.00", "3.33", "3.33")),
        (14, 4, date(2025, 3, 2), "placed", *money("0.00", "0.00", "0.00", "0.00", "0.00")),
        (15, 2, date(2025, 3, 1), "completed", *money("0.00", "0.00", "0.00", "0.00", "0.00")),
        (
            16,
            5,
            date(2025, 3, 3),
            "completed",
            *money("0.00", "0.00", "90071992547409.93", "0.00", "90071992547409.93"),
        ),
    ]


def test_customers_have_the_sum_of_their_orders(build: Any) -> None:
    warehouse, _ = build
    assert warehouse.sql("select * from marts.customers order by customer_id") == [
        (1, "Ada", "Byron", date(2025, 1, 2), date(2025, 3, 1), 2, Decimal("75.50")),
        (2, "Zoë", "O'Brien", date(2025, 2, 14), date(2025, 3, 1), 2, Decimal("17.50")),
        (3, "Émilie", "du Châtelet", None, None, 0, Decimal("0.00")),
        (4, 'Robert "Bob"', "Hayes, Jr.", date(2024, 12, 31), date(2025, 3, 2), 2, Decimal("3.33")),
        (5, "美咲", "田中", date(2025, 3, 3), date(2025, 3, 3), 1, Decimal("90071992547409.93")),
    ]


def test_payments_have_a_label(build: Any) -> None:
    warehouse, _ = build
    labels = warehouse.sql("select distinct payment_method, payment_method_label from staging.stg_payments order by 1")
    assert labels == [
        ("bank_transfer", "Bank transfer"),
        ("coupon", "Coupon"),
        ("credit_card", "Credit card"),
        ("gift_card", "Gift card"),
    ]


def test_descriptions_are_in_the_warehouse(build: Any) -> None:
    warehouse, _ = build
    comments = warehouse.sql("select column_name, comment from duckdb_columns() where schema_name = 'marts'")
    assert ("number_of_orders", "How many orders; 0 without one.") in comments
    assert [name for name, comment in comments if not comment] == []


def test_the_sample_data_passes_every_test(warehouse: Any) -> None:
    tables = {}
    for path in SAMPLE.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            tables[path.stem] = list(csv.reader(file))[1:]
    warehouse.load_all({name: map(tuple, rows) for name, rows in tables.items()})
    result = warehouse.dbt("build", "--select", "source:shop+")
    assert result.returncode == 0, result.output
    cents = sum(int(amount) for *_, amount in tables["raw_payments"])
    assert warehouse.sql("select count(*), sum(amount) from marts.orders") == [(500, Decimal(cents) / 100)]
    buyers = len({customer for _, customer, *_ in tables["raw_orders"]})
    assert warehouse.sql(
        "select count(*), count(first_order), sum(number_of_orders), sum(customer_lifetime_value) from marts.customers"
    ) == [(100, buyers, 500, Decimal(cents) / 100)]


def test_events_have_what_their_payload_says_in_columns(build: Any) -> None:
    warehouse, _ = build
    assert warehouse.sql("select event_id, kind, page, amount from staging.stg_events order by event_id") == [
        (1, "view", '/cups?a="b"\n', None),
        (2, "search", None, None),
        (3, "purchase", "/", Decimal("19.99")),
        (4, "purchase", None, Decimal("0.01")),
        (5, "add_to_cart", None, None),
    ]


def test_a_day_has_its_users_and_revenue_in_utc(build: Any) -> None:
    warehouse, _ = build
    assert warehouse.sql("select * from marts.daily_active_users order by day") == [
        (date(2026, 1, 1), 2, 1, 3, 1, Decimal("19.99")),
        (date(2026, 1, 2), 2, 1, 2, 1, Decimal("0.01")),
    ]


def test_a_day_has_the_stock_of_its_last_reading(build: Any) -> None:
    warehouse, _ = build
    assert warehouse.sql("select * from marts.inventory_days order by day, site") == [
        (date(2026, 1, 1), "north", "A-1", 7, -1, Decimal("8.7500"), None),
        (date(2026, 1, 2), "north", "A-1", 10, 10, Decimal("13.3330"), 3),
        (date(2026, 1, 2), "south", "A-1", 1, 1, Decimal("0.0001"), None),
    ]


def test_a_source_builds_without_the_tables_of_the_other(warehouse: Any, golden: Any) -> None:
    """Each DAG builds what depends on its own tables, in whatever order they run for the first time."""
    warehouse.load_all({name: golden[name] for name in ("raw_customers", "raw_orders", "raw_payments")})
    shop = warehouse.dbt("build", "--select", "source:shop+", "--exclude-resource-type", "unit_test")
    assert (shop.returncode, shop.warnings) == (0, []), shop.output
    web_tables = ("raw_users", "raw_events", "raw_inventory", "raw_active_carts")
    warehouse.load_all({name: golden[name] for name in web_tables})
    web = warehouse.dbt("build", "--select", *(f"source:web.{name}+" for name in web_tables))
    assert (web.returncode, web.warnings) == (0, []), web.output
    assert not shop.statuses.keys() & web.statuses.keys()
    assert {"a_day_counts_each_user_once", "the_last_reading_of_a_day_counts"} <= web.statuses.keys()


def test_a_reading_that_was_loaded_twice_is_found(built: Any, golden: Any) -> None:
    built.load("raw_inventory", golden["raw_inventory"] + golden["raw_inventory"][:1])
    result = built.dbt("build", "--select", "source:web.raw_inventory+", "--exclude-resource-type", "unit_test")
    assert result.having("fail") == {"source_unique_together_web_raw_inventory_site__sku___loaded_at"}
    assert "inventory_days" in result.having("skipped")


@pytest.mark.slow
def test_the_sample_web_shop_passes_every_test(warehouse: Any) -> None:
    """Three days of it, with a reading of the stock levels on each and a user who was deleted."""
    with running_server() as server, Shop.on(server, deployment=SimpleNamespace(settings={})) as shop:
        now = datetime(2026, 1, 5, 23, tzinfo=UTC)
        levels = [(*row, now) for row in shop.source("raw_inventory")]
        users = {row[0]: (*row, None) for row in shop.source("raw_users")}
        for day in (1, 2):
            shop.next_day()
            now += timedelta(days=day)
            levels += [(*row, now) for row in shop.source("raw_inventory")]
            there = {row[0]: (*row, None) for row in shop.source("raw_users")}
            users = {key: (*row[:-1], row[-1] or now) for key, row in users.items()} | there
        tables = {"raw_users": users.values(), "raw_inventory": levels}
        tables |= {table: shop.source(table) for table in ("raw_events", "raw_active_carts")}
    warehouse.load_all(tables)
    result = warehouse.dbt("build", "--select", *(f"source:web.{table}+" for table in tables))
    assert (result.returncode, result.warnings) == (0, []), result.output
    [(events, days, revenue)] = warehouse.sql(
        "select sum(events), count(*), sum(revenue) from marts.daily_active_users"
    )
    assert (events, days) == (len(tables["raw_events"]), 7)
    amounts = (json.loads(row[3]).get("amount", 0) for row in tables["raw_events"])
    assert revenue == sum(map(Decimal, amounts))
    assert warehouse.sql("select count(*), count(distinct day) from marts.inventory_days") == [(len(levels), 3)]
    assert warehouse.sql("select count(deleted_at) > 0, count(*) from staging.stg_users") == [(True, len(users))]


def test_a_bad_value_fails_its_own_test_and_leaves_the_marts_alone(built: Any, golden: Any) -> None:
    before = built.sql("select * from marts.orders order by all")
    golden["raw_orders"] += [
        (17, 999, "2025-03-03", "completed"),
        (18, 1, "2025-03-03", "lost"),
        (19, 1, None, "placed"),
    ]
    golden["raw_payments"] += [
        (109, 999, "coupon", 100),
        (110, 17, "credit_card", -1),
        (111, 17, "cash", 5),
        (112, 17, "credit_card", None),
    ]
    built.load_all(golden)
    result = built.dbt("build", "--exclude-resource-type", "unit_test")
    assert result.returncode == 1
    assert result.having("fail") == {
        "relationships_stg_orders_customer_id__customer_id__ref_stg_customers_",
        "accepted_values_stg_orders_status__placed__shipped__completed__return_pending__returned",
        "not_null_stg_orders_order_date",
        "relationships_stg_payments_order_id__order_id__ref_stg_orders_",
        "accepted_range_stg_payments_amount__0",
        "accepted_values_stg_payments_payment_method__credit_card__coupon__bank_transfer__gift_card",
        "not_null_stg_payments_amount",
    }
    assert result.having("error") == set()
    assert {"int_order_payments", "orders", "customers"} <= result.having("skipped")
    assert built.sql("select * from marts.orders order by all") == before


def test_a_bad_key_stops_everything_that_reads_the_table(built: Any, golden: Any) -> None:
    golden["raw_customers"].append((1, "Ada", "Lovelace"))
    golden["raw_orders"].append((None, 1, "2025-03-03", "placed"))
    golden["raw_payments"].append((108, 10, "coupon", 1))
    built.load_all(golden)
    result = built.dbt("build", "--select", "source:shop+", "--exclude-resource-type", "unit_test")
    assert result.returncode == 1
    assert result.having("fail") == {
        "source_unique_shop_raw_customers_id",
        "source_not_null_shop_raw_orders_id",
        "source_unique_shop_raw_payments_id",
    }
    assert result.having("success") == set()
    assert built.sql("select count(*) from snapshots.customers_history") == [(5,)]


def test_figures_that_do_not_add_up_are_found_in_the_marts(built: Any) -> None:
    built.sql("update marts.orders set amount = amount + 0.01 where order_id = 10")
    built.sql("update marts.customers set customer_lifetime_value = -1 where customer_id = 1")
    built.sql("update marts.customers set customer_id = 50 where customer_id = 2")
    result = built.dbt("test", "--select", "marts", "payments_add_up_per_order", "--exclude", "test_type:unit")
    assert result.having("fail") == {
        "payments_add_up_per_order",
        "accepted_range_customers_customer_lifetime_value__0",
        "relationships_orders_customer_id__customer_id__ref_customers_",
    }
