"""What the project promises to its readers, checked on the manifest and on the files."""

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

PROJECT = Path(__file__).parents[2] / "dbt"
METHODS = ["credit_card", "coupon", "bank_transfer", "gift_card"]


def test_everything_is_described(ours: Any) -> None:
    nodes = ours("model", "source", "snapshot", "exposure", "macro")
    bare = [node["name"] for node in nodes if not node["description"] and not node["name"].startswith("test_")]
    bare += [
        f"{node['name']}.{column['name']}"
        for node in nodes
        for column in node.get("columns", {}).values()
        if not column["description"]
    ]
    assert bare == []


def test_the_columns_described_are_the_columns_there_are(build: Any, ours: Any) -> None:
    warehouse, _ = build
    for node in ours("model", "snapshot", "source"):
        if node["schema"] == "ops":
            continue  # the platform's own tables
        query = (
            "select column_name from duckdb_columns() where schema_name = ? and table_name = ? order by column_index"
        )
        there = [name for (name,) in warehouse.sql(query, [node["schema"], node["name"]])]
        assert list(node["columns"]) == there, node["name"]


def test_the_contract_gives_every_raw_column_a_type_that_both_warehouses_know(ours: Any) -> None:
    types = {
        (source["name"], column["name"]): column["data_type"]
        for source in ours("source")
        for column in source["columns"].values()
    }
    assert set(types.values()) <= {
        *("bigint", "int", "string", "varchar(2)", "date", "timestamp", "boolean", "double"),
        *("decimal(12,2)", "decimal(12,4)", "decimal(14,2)"),
    }
    assert types["raw_payments", "amount"] == "bigint"


def test_marts_have_enforced_contracts_and_unit_tests(ours: Any) -> None:
    marts = [model for model in ours("model") if model["schema"] == "marts"]
    kinds = dict.fromkeys(["customers", "orders", "daily_active_users", "inventory_days"], "table")
    assert {model["name"]: model["config"]["materialized"] for model in marts} == {**kinds, "purchases": "incremental"}
    tested = {name for unit_test in ours("unit_test") for name in [unit_test["model"]]}
    for model in marts:
        assert model["config"]["contract"]["enforced"]
        assert model["tags"] == ["mart"]
        assert model["name"] in tested
        assert all(column["data_type"] for column in model["columns"].values())


def test_every_model_has_an_owner_and_lives_in_the_schema_of_its_layer(ours: Any) -> None:
    for node in ours("model", "snapshot"):
        assert node["config"]["meta"]["owner"]
        layer = "snapshots" if node["resource_type"] == "snapshot" else Path(node["path"]).parts[0]
        assert node["schema"] == layer


def test_sources_have_keys_and_freshness(ours: Any) -> None:
    tested = {
        (test.get("column_name"), *test["depends_on"]["nodes"], test["test_metadata"]["name"])
        for test in ours("test")
        if "test_metadata" in test
    }
    for source in ours("source"):
        if source["source_name"] == "ops":
            continue
        if source["name"] == "raw_inventory":
            keys = {"not_null": ("site", "sku", "_loaded_at"), "unique_together": (None,)}
        else:
            keys = {"not_null": ("id",), "unique": ("id",)}
        assert {(column, source["unique_id"], test) for test, columns in keys.items() for column in columns} <= tested
        assert source["freshness"]["warn_after"] == {"count": 36, "period": "hour"}
        assert source["freshness"]["error_after"] == {"count": 5, "period": "day"}


def test_the_ways_to_pay_are_the_same_everywhere(ours: Any) -> None:
    [test] = [t for t in ours("test") if t["name"].startswith("accepted_values_stg_payments_payment_method")]
    assert test["test_metadata"]["kwargs"]["values"] == METHODS
    for node in ours("model"):
        if node["name"] in {"orders", "int_order_payments"}:
            amounts = [column for column in node["columns"] if column.endswith("_amount")]
            assert amounts == [f"{method}_amount" for method in METHODS]


def test_no_packages_and_no_hooks() -> None:
    assert not list(PROJECT.glob("packages.yml")) + list(PROJECT.glob("dependencies.yml"))
    assert not [key for key in yaml.safe_load((PROJECT / "dbt_project.yml").read_text()) if key.startswith("on-run")]


@pytest.mark.parametrize("path", sorted(PROJECT.rglob("*.sql")), ids=lambda path: path.name)
def test_sql_means_the_same_on_both_warehouses(path: Path) -> None:
    sql = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    traps = {
        r'"': "a string on Databricks, a name on DuckDB",
        r"::": "DuckDB's cast",
        r"\\": "an escape on Databricks only",
        r"/": "keeps or leaves decimals",
        r"\border by\b(?!.*\bnulls (first|last)\b)": "nulls come first or last",
        r"\b(string_agg|listagg|concat|substring|dateadd|datediff|date_diff|strftime|dayofweek|unnest)\b": "differs",
    }
    found = {why for trap, why in traps.items() if re.search(trap, sql, flags=re.IGNORECASE)}
    assert not found


def test_the_profile_needs_nothing_but_plain_jinja_and_holds_no_secret() -> None:
    text = (PROJECT / "profiles.yml").read_text(encoding="utf-8")
    rendered = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(text)
    outputs = yaml.safe_load(rendered.render(env_var=lambda name, default: default))["jdbt"]["outputs"]
    assert outputs["duckdb"]["threads"] == 4
    assert outputs["duckdb"]["retries"] == {"connect_attempts": 9, "retryable_exceptions": ["IOException"]}
    secrets = outputs["databricks"]["client_secret"], outputs["databricks"]["token"]
    assert secrets == ("", "")
    assert set(re.findall(r"(?:client_secret|token): .*env_var\('(\w+)'", text)) == {
        "DBT_ENV_SECRET_DATABRICKS_CLIENT_SECRET",
        "DBT_ENV_SECRET_DATABRICKS_TOKEN",
    }
