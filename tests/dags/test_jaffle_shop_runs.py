"""Whole runs of jaffle_shop with `dag.test()`: what the warehouse holds afterwards, and what the run says about it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from include.elt.lake import slug

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STREAMS = ("raw_customers", "raw_orders", "raw_payments")


def rows_of(deployment: Any, file: str) -> list[dict[str, str]]:
    with (deployment.files / file).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_run_loads_and_builds_everything(first_run: Any) -> None:
    deployment, outcome = first_run

    assert outcome.state == "success"
    assert set(outcome.tasks.values()) == {"success"}
    assert "the project was parsed ahead of time" in outcome.log, "dbt parses nothing in a run"
    customers, orders, payments = (rows_of(deployment, f"{stream}.csv") for stream in STREAMS)
    paid = Counter[str]()
    for payment in payments:
        paid[payment["payment_method"]] += int(payment["amount"])
    sums = ", ".join(f"sum({method}_amount)" for method in sorted(paid))
    [(rows, total, *per_method)] = deployment.query(f"SELECT count(*), sum(amount), {sums} FROM marts.orders")
    assert rows == len(orders)
    assert total == Decimal(sum(paid.values())) / 100
    assert per_method == [Decimal(paid[method]) / 100 for method in sorted(paid)]
    assert deployment.query("SELECT count(*), count(first_order) FROM marts.customers") == [
        (len(customers), len({order["user_id"] for order in orders}))
    ]


def test_the_assets_tell_what_was_loaded(first_run: Any) -> None:
    deployment, outcome = first_run
    orders = rows_of(deployment, "raw_orders.csv")

    assert set(outcome.assets) == {*(f"raw.{stream}" for stream in STREAMS), "marts.customers", "marts.orders"}
    extra = outcome.assets["raw.raw_orders"]
    assert (extra["rows_read"], extra["rows_loaded"], extra["rows_rejected"]) == (len(orders), len(orders), 0)
    assert extra["watermark"] == max(order["order_date"] for order in orders)
    assert extra["seconds"] > 0
    assert extra["bytes"] > 0


def test_the_results_of_dbt_are_kept_with_the_run(first_run: Any) -> None:
    deployment, outcome = first_run
    artifacts = deployment.folder / "artifacts" / "jaffle_shop" / slug(outcome.run_id)

    results = json.loads((artifacts / "run_results.json").read_text())["results"]
    nodes = json.loads((artifacts / "manifest.json").read_text())["nodes"]

    assert {result["status"] for result in results} <= {"success", "pass", "no-op"}
    models = {name for name, node in nodes.items() if name.startswith("model.") and "web" not in node["fqn"]}
    assert models
    assert models <= {result["unique_id"] for result in results}, "the web shop has a DAG of its own"


def test_a_second_run_changes_nothing(used: Any, first_run: Any) -> None:
    checksums = used.checksums()

    outcome = used.run()

    assert outcome.state == "success"
    assert used.checksums() == checksums
    assert used.query("SELECT run_id, count(*) FROM ops.load_log GROUP BY ALL ORDER BY min(loaded_at)") == [
        (first_run[1].run_id, 3),
        (outcome.run_id, 3),
    ]


def test_a_bad_value_fails_its_stream_only(used: Any) -> None:
    before = used.checksums()
    used.edit("raw_payments.csv", row=57, column="amount", value="12,5")
    used.edit("raw_customers.csv", row=1, column="first_name", value="Changed")

    outcome = used.run()

    assert outcome.state == "failed"
    assert outcome.with_state("failed") == {"shop.raw_payments.extract"}
    assert "raw_payments.csv: 1 row does not fit the contract" in outcome.log
    assert "row 57 (line 58): column amount: '12,5' is not a bigint" in outcome.log
    after = used.checksums()
    assert after["raw.raw_payments"] == before["raw.raw_payments"]
    assert after["raw.raw_customers"] != before["raw.raw_customers"]
    # Only what depends on payments is stopped.
    assert outcome.state_of("dbt.stg_customers", "dbt.stg_orders", "dbt.customers_history") == {"success"}
    assert outcome.state_of("dbt.stg_payments", "dbt.orders", "dbt.customers") == {"upstream_failed"}
    assert after["marts.orders"] == before["marts.orders"]
    assert set(outcome.assets) == {"raw.raw_customers", "raw.raw_orders"}


def test_a_failing_data_test_is_seen_at_its_model(deployment: Any) -> None:
    deployment.edit("raw_payments.csv", row=3, column="amount", value="-100")

    outcome = deployment.run()

    assert outcome.state == "failed"
    assert outcome.with_state("failed") == {"dbt.stg_payments"}, "it is the task of the model and of its tests"
    assert outcome.state_of("dbt.stg_customers", "dbt.dbt_build") == {"success"}
    assert outcome.state_of("dbt.orders") == {"upstream_failed"}


def test_a_dry_run_changes_nothing(deployment: Any) -> None:
    outcome = deployment.run(dry_run=True)

    assert outcome.state == "success"
    assert outcome.state_of(*(f"shop.{stream}.extract" for stream in STREAMS)) == {"success"}
    assert outcome.state_of(*(f"shop.{stream}.load" for stream in STREAMS)) == {"skipped"}
    assert {state for task, state in outcome.tasks.items() if task.startswith("dbt.")} <= {"skipped", "success"}
    assert not deployment.warehouse.exists()
    assert not list((deployment.folder / "lake").rglob("*.parquet"))
    assert not outcome.assets
    assert "dry run: raw.raw_customers would be replaced: 0 rows by" in outcome.log


def test_the_form_chooses_streams_and_models(used: Any) -> None:
    built = "SELECT max(loaded_at) FROM ops.load_log WHERE table_name = 'raw.raw_{}'"
    loaded = {name: used.query(built.format(name)) for name in ("customers", "payments")}

    outcome = used.run(streams=["raw_customers"], dbt_select="stg_customers customers_history")

    assert outcome.state == "success"
    assert used.query(built.format("customers")) > loaded["customers"]
    assert used.query(built.format("payments")) == loaded["payments"]
    assert outcome.state_of("shop.raw_payments.extract", "shop.raw_payments.load") == {"skipped"}
    assert outcome.state_of("dbt.stg_customers", "dbt.customers_history") == {"success"}
    assert outcome.state_of("dbt.orders", "dbt.stg_payments") == {"skipped"}
    assert set(outcome.assets) == {"raw.raw_customers"}


def test_a_selection_that_selects_nothing_is_an_error(deployment: Any) -> None:
    outcome = deployment.run(dbt_select="no_such_model")

    assert outcome.state == "failed"
    assert "dbt_select='no_such_model' selects nothing of what this DAG builds" in outcome.log
    assert deployment.query("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'marts'") == [(0,)]
