"""Which tasks a dbt project becomes, in the process that parses a DAG file and in one that runs a task."""

from __future__ import annotations

from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from cosmos.config import ProfileConfig

from include.dbt_watch import group
from include.dbt_watch.group import watched_group
from include.dbt_watch.operators import DbtNode, Plan
from include.dbt_watch.parse import slim
from include.dbt_watch.project import DbtProject
from include.elt.manifest import MANIFEST, PROJECT, build_manifest
from include.elt.paths import DBT_PROJECT
from include.elt.settings import load_settings


def tasks(select: tuple[str, ...] = ("source:shop.raw_orders+",)) -> dict[str, Any]:
    build_manifest(load_settings())
    profile = ProfileConfig(PROJECT, "duckdb", profiles_yml_filepath=DBT_PROJECT / "profiles.yml")
    project = DbtProject(DBT_PROJECT, MANIFEST, profile)
    with DAG("d", schedule=None, start_date=pendulum.datetime(2026, 1, 1)) as dag:
        watched_group("dbt", project, select=select, plan=lambda _: Plan(), keep=lambda *_: None)
    return {task.task_id: task for task in dag.tasks}


def test_every_node_is_one_task_and_starts_in_the_triggerer() -> None:
    found = tasks()

    nodes = {task_id: task for task_id, task in found.items() if isinstance(task, DbtNode)}
    assert set(found) - set(nodes) == {"dbt.dbt_build"}
    assert {"dbt.source_shop_raw_orders", "dbt.stg_orders", "dbt.orders", "dbt.order_status_history"} <= set(nodes)
    for task in nodes.values():
        assert task.start_from_trigger
        assert task.start_trigger_args.trigger_kwargs == {"node": task.node, "build": "dbt.dbt_build"}
        assert task.retries == 0, "tries are the build's"
        assert not task.template_fields, "the triggerer need not render anything"
    assert found["dbt.stg_orders"].upstream_task_ids == {"dbt.source_shop_raw_orders"}
    assert found["dbt.dbt_build"].retries == 1


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ("shop.raw_orders.load", set()),
        ("dbt.stg_orders", {"dbt.stg_orders"}),
        ("dbt.source_shop_raw_orders", {"dbt.source_shop_raw_orders"}),
    ],
)
def test_a_process_that_runs_a_task_makes_no_other(
    running: str, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "d")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", running)

    assert set(tasks()) == {"dbt.dbt_build", *expected}


def test_nodes_of_one_name_in_two_packages_have_tasks_of_two_names() -> None:
    nodes = dict.fromkeys(["model.one.orders", "model.two.orders", "model.one.users.v2", "test.one.orders"])
    graph = {"nodes": nodes, "sources": dict.fromkeys(["source.one.shop.users"])}

    assert group._names(graph) == {
        "model.one.orders": "one__orders",
        "model.two.orders": "two__orders",
        "model.one.users.v2": "users_v2",
        "source.one.shop.users": "source_shop_users",
    }


def test_the_extract_of_a_manifest_has_no_sql_and_no_tests_but_those_of_sources() -> None:
    def node(unique_id: str, *reads: str) -> dict[str, Any]:
        kind = unique_id.split(".")[0]
        return {"unique_id": unique_id, "resource_type": kind, "depends_on": {"nodes": list(reads)}, "raw_code": "sql"}

    made = [node("model.p.a", "source.p.s.x"), node("test.p.of_a", "model.p.a"), node("test.p.of_x", "source.p.s.x")]
    made.append(node("test.p.of_both", "source.p.s.x", "model.p.a"))
    manifest = {
        "metadata": {"project_name": "p"},
        "nodes": {each["unique_id"]: each for each in made},
        "sources": {"source.p.s.x": node("source.p.s.x")},
    }

    extract = slim(manifest)
    assert set(extract["nodes"]) == {"model.p.a", "test.p.of_x"}
    assert "raw_code" not in extract["nodes"]["model.p.a"]
