"""What holds for every DAG of the project, whatever it does."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from include.elt.contract import read_contracts
from include.elt.freshness import of_model, seconds_of
from include.elt.manifest import MANIFEST, build_manifest
from include.elt.paths import ROOT
from include.elt.settings import load_settings

DAG_FILES = sorted((ROOT / "dags").glob("*.py"))
GRAPHS = Path(__file__).with_name("graphs")


@pytest.fixture(scope="module")
def bag(migrated_home: Path) -> Any:
    """All DAGs, parsed in a process of its own with no connection, no variable and no database to go to."""
    build_manifest(load_settings())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.describe_dags", str(ROOT / "dags")],
        cwd=ROOT,
        env=environment
        | {
            "AIRFLOW_HOME": str(migrated_home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "_AIRFLOW_PROCESS_CONTEXT": "client",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nowhere/at/all.db",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def tasks_of(dag: Any, *types: str) -> set[str]:
    return {task_id for task_id, task in dag["tasks"].items() if task["type"] in types}


def test_every_dag_file_can_be_imported_without_any_connection_or_database(bag: Any) -> None:
    assert bag["import_errors"] == {}
    assert bag["lookups"] == [], "connections or variables were read while the DAG files were parsed"


def test_every_dag_has_owner_tags_docs_and_one_active_run(bag: Any) -> None:
    assert bag["dags"]
    for dag_id, dag in bag["dags"].items():
        assert dag["tags"], dag_id
        assert dag["doc_md"], dag_id
        assert dag["max_active_runs"] == 1, dag_id
        assert not dag["catchup"], dag_id
        assert dag["timeout"], dag_id
        owners = {task["owner"] for task in dag["tasks"].values()}
        assert "data-platform" in owners, dag_id
        assert not owners & {"", "airflow"}, f"{dag_id}: a task belongs to nobody (dbt nodes: meta.owner)"


def test_every_dag_tells_what_is_wrong_with_its_runs_and_has_a_deadline(bag: Any) -> None:
    for dag_id, dag in bag["dags"].items():
        assert dag["told"] == ["report_run", "report_run"], dag_id
        kinds = [kind for kind, _, _ in dag["deadlines"]]
        assert kinds.count("RunQueued") == 1, dag_id
        assert not set(kinds) - {"RunQueued", "TablesLoaded"}, "with Airflow's own, clearing a task fails (issue 70368)"


def test_every_raw_table_and_mart_has_a_deadline_as_its_declaration_says(bag: Any) -> None:
    nodes = json.loads(MANIFEST.read_text())["nodes"].values()
    limits = {table: contract.late_after for table, contract in read_contracts().items()}
    limits |= {f"marts.{node['name']}": seconds_of(of_model(node)) for node in nodes if "mart" in node["tags"]}
    for dag_id, dag in bag["dags"].items():
        made = {name for task in dag["tasks"].values() for name in task["outlets"] if name in limits}
        promised = {table: seconds for _, seconds, tables in dag["deadlines"] for table in tables}

        assert promised == {table: limits[table] for table in made if limits[table]}, dag_id
        assert not {table for table in made if not limits[table]}, "a table that nobody waits for"


def test_every_task_is_tried_again_and_cannot_hang(bag: Any) -> None:
    for dag_id, dag in bag["dags"].items():
        for task_id, task in dag["tasks"].items():
            if task["type"] == "EmptyOperator":
                continue
            if task["type"] == "DbtNode":  # the build is tried again, and its nodes wait for it
                assert tasks_of(dag, "DbtBuild")
                assert task["retries"] == 0, (dag_id, task_id)
            else:
                assert task["retries"] >= 1, (dag_id, task_id)
            assert 0 < task["timeout"] <= timedelta(days=1).total_seconds(), (dag_id, task_id)


def test_every_pool_is_one_that_the_product_makes(bag: Any) -> None:
    pools = {"default_pool", *load_settings().pools()}
    for dag_id, dag in bag["dags"].items():
        assert {task["pool"] for task in dag["tasks"].values()} <= pools, dag_id


def test_only_the_warehouse_pool_writes_to_the_warehouse(bag: Any) -> None:
    for dag_id, dag in bag["dags"].items():
        tasks = dag["tasks"]
        writers = {task_id for task_id, task in tasks.items() if task["pool"] == "warehouse"}
        assert writers == tasks_of(dag, "LoadOperator", "DbtBuild", "DbtNode", "MeasureOperator"), dag_id
    assert load_settings().pools()["warehouse"] == 1


def test_every_model_and_snapshot_is_built_by_one_dag(bag: Any) -> None:
    nodes = json.loads(MANIFEST.read_text())["nodes"].values()
    of_the_project = sorted(node["name"] for node in nodes if node["resource_type"] in {"model", "snapshot", "seed"})
    built = [
        match["node"]
        for dag in bag["dags"].values()
        for task_id in dag["tasks"]
        if (match := re.fullmatch(r"dbt\.(?!source_|dbt_build$)(?P<node>\w+)", task_id))
    ]
    assert sorted(built) == of_the_project, "built by no DAG, or by two (transform's `select` decides)"


def test_every_raw_table_and_mart_is_the_asset_of_one_task(bag: Any) -> None:
    emitted = [name for dag in bag["dags"].values() for task in dag["tasks"].values() for name in task["outlets"]]

    assert len(emitted) == len(set(emitted))
    assert {"raw.raw_users", "raw.raw_orders", "marts.orders", "marts.inventory_days"} <= set(emitted)


def test_a_backfill_of_two_days_reads_these_two_days(bag: Any) -> None:
    """With CronTriggerTimetable and an interval it would read the day before the first, and not the last."""
    midnights = [f"2026-03-0{day}T00:00:00+00:00" for day in (1, 2, 3)]

    assert bag["dags"]["web_shop"]["backfill"] == [midnights[:2], midnights[1:]]


def test_every_task_group_and_graph_is_as_agreed(bag: Any) -> None:
    """The graph of each DAG equals its golden file; after a wanted change: `UPDATE_GRAPHS=1 make test`."""
    for dag_id, dag in bag["dags"].items():
        graph = "".join(
            f"{task_id} <- {', '.join(task['upstream']) or '-'}\n" for task_id, task in sorted(dag["tasks"].items())
        )
        golden = GRAPHS / f"{dag_id}.txt"
        if os.environ.get("UPDATE_GRAPHS"):
            golden.parent.mkdir(exist_ok=True)
            golden.write_text(graph)
        assert graph == golden.read_text(), f"{golden} differs"


@pytest.mark.parametrize("file", DAG_FILES, ids=lambda file: file.name)
def test_a_dag_file_is_short_and_holds_declarations_only(file: Path) -> None:
    source = file.read_text()
    tree = ast.parse(source)

    assert len(source.splitlines()) <= 60
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Try | ast.For)]
    assert not file.name.startswith("dbt_"), "Cosmos leaks between DAG files of that name"


def test_the_library_knows_no_dag_and_the_warehouse_no_airflow() -> None:
    for file in (ROOT / "include").rglob("*.py"):
        imported = {
            name
            for node in ast.walk(ast.parse(file.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not [name for name in imported if name.split(".")[0] == "dags"], file
        if "warehouse" in file.parts:
            assert not [name for name in imported if name.split(".")[0] in {"airflow", "cosmos"}], file
