"""The same project for a developer's schemas and for Databricks, without a warehouse at hand."""

from typing import Any


def schemas(manifest: dict[str, Any]) -> dict[str, str]:
    nodes = [*manifest["nodes"].values(), *manifest["sources"].values()]
    kinds = {"model", "snapshot", "source"}
    return {node["name"]: node["schema"] for node in nodes if node["resource_type"] in kinds}


def test_a_prefix_moves_what_dbt_builds_and_not_what_it_reads(warehouse: Any, manifest: Any) -> None:
    # The parse result without a prefix is at hand, and must not be taken for this one.
    result = warehouse.dbt("parse", DBT_SCHEMA_PREFIX="anna")
    assert result.returncode == 0, result.output
    plain = schemas(manifest)
    sources = {name for name in plain if name.startswith("raw_") or name in ("load_log", "completeness")}
    assert schemas(warehouse.manifest) == {
        name: schema if name in sources else f"anna_{schema}" for name, schema in plain.items()
    }


def test_it_parses_for_databricks_without_a_network(warehouse: Any) -> None:
    result = warehouse.dbt(
        "parse",
        "--target",
        "databricks",
        "--show-all-deprecations",
        DBT_DATABRICKS_HOST="warehouse.invalid",
        DBT_DATABRICKS_HTTP_PATH="/sql/1.0/warehouses/none",
        DATABRICKS_CATALOG="prod",
        DBT_DATABRICKS_CLIENT_ID="nobody",
        DBT_ENV_SECRET_DATABRICKS_CLIENT_SECRET="do-not-show",
    )
    assert result.returncode == 0, result.output
    assert result.warnings == []
    manifest = warehouse.manifest
    assert manifest["metadata"]["adapter_type"] == "databricks"
    orders = manifest["nodes"]["model.jdbt.orders"]
    assert orders["relation_name"] == "`prod`.`marts`.`orders`"
    assert orders["config"]["liquid_clustered_by"] == "order_date"
    assert manifest["sources"]["source.jdbt.shop.raw_orders"]["relation_name"] == "`prod`.`raw`.`raw_orders`"
    for path in warehouse.folder.rglob("*"):
        assert path.is_dir() or b"do-not-show" not in path.read_bytes(), path
