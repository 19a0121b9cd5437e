"""What the form of a run sets reaches `dbt build`: seen in the tables of models made for it, and in its results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from include.elt.lake import slug
from tests.test_contributing import copy_of_the_project, module

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODELS = {
    "probe_runs": "{{ config(materialized='incremental') }} select '{{ var(\"label\", \"none\") }}' as label,"
    " {{ is_incremental() }} as added from {{ ref('stg_orders') }} limit 1",
    "probe_orders": "{{ config(materialized='view', event_time='moment') }}"
    " select order_date::timestamp as moment, order_id from {{ ref('stg_orders') }}",
    "probe_months": "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='moment',"
    " begin='2024-01-01', batch_size='month') }} select moment, order_id from {{ ref('probe_orders') }}",
}


def test_the_form_reaches_dbt(deployment: Any, tmp_path: Any) -> None:
    deployment.root = copy_of_the_project(tmp_path / "project")
    folder = deployment.root / "dbt" / "models" / "probes"
    folder.mkdir()
    for name, sql in MODELS.items():
        (folder / f"{name}.sql").write_text(sql)
    module(deployment.root, deployment.environment, "include.elt.manifest")
    runs = "select label, added from {schema}.probe_runs order by added"
    chosen = {"dbt_select": "+probe_runs +probe_months +stg_customers stg_payments", "dbt_exclude": "stg_payments"}

    first = deployment.run(
        **chosen,
        dbt_vars={"label": "first"},
        event_time_start="2024-03-01",
        event_time_end="2024-05-01",
    )
    assert first.state == "success", first.tasks
    assert first.state_of("dbt.probe_runs", "dbt.probe_months", "dbt.stg_orders") == {"success"}
    assert first.state_of("dbt.stg_payments", "dbt.orders", "dbt.customers") == {"skipped"}
    assert "dbt parses the project: with vars it has to be parsed again" in first.log
    [(schema,)] = deployment.query("select schema_name from duckdb_tables() where table_name = 'probe_runs'")
    assert deployment.query(runs.format(schema=schema)) == [("first", False)]
    months = f"select distinct strftime(moment, '%Y-%m') from {schema}.probe_months order by 1"
    assert deployment.query(months) == [("2024-03",), ("2024-04",)]
    told = arguments(deployment, first.run_id)
    assert told["vars"] == {"label": "first"}
    assert told["exclude"] == ["stg_payments"]
    assert str(told["event_time_start"]).startswith("2024-03-01")

    second = deployment.run(**chosen | {"dbt_exclude": "stg_payments probe_months"})
    assert second.state == "success"
    assert second.state_of("dbt.probe_months") == {"skipped"}
    assert "the project was parsed ahead of time" in second.log
    assert deployment.query(runs.format(schema=schema)) == [("first", False), ("none", True)]

    third = deployment.run(**chosen | {"dbt_exclude": "stg_payments probe_months"}, full_refresh=True)
    assert third.state == "success"
    assert deployment.query(runs.format(schema=schema)) == [("none", False)]
    assert arguments(deployment, third.run_id)["full_refresh"] is True
    assert deployment.query(months) == [("2024-03",), ("2024-04",)]


def arguments(deployment: Any, run_id: str) -> dict[str, Any]:
    """The options of `dbt build`, as dbt itself keeps them."""
    results = deployment.folder / "artifacts" / "jaffle_shop" / slug(run_id) / "run_results.json"
    return dict(json.loads(results.read_text())["args"])
