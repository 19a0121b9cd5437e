"""The task group: Cosmos reads, selects and wires the dbt project, and each node becomes a task of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import Asset, BaseOperator, TaskGroup, get_parsing_context
from cosmos.airflow.task_group import DbtTaskGroup
from cosmos.config import ExecutionConfig, ProjectConfig, RenderConfig
from cosmos.constants import DbtResourceType, ExecutionMode, LoadMode, SourceRenderingBehavior, TestBehavior

from include.dbt_watch.operators import DbtBuild, DbtNode, Keeper, Planner, long_enough
from include.dbt_watch.parse import GRAPH
from include.dbt_watch.project import DbtProject

BUILD = "dbt_build"
"""Name of the build's task in the group."""


@dataclass
class Watched:
    """A dbt project as tasks.

    Attributes:
        group: the task group.
        build: the task that runs dbt.
        nodes: task per unique id of a dbt node. In a process that runs one task, only that one may be there.
    """

    group: TaskGroup
    build: DbtBuild
    nodes: Mapping[str, BaseOperator] = field(default_factory=dict)


def watched_group(
    group_id: str,
    project: DbtProject,
    *,
    select: Sequence[str],
    plan: Planner,
    keep: Keeper,
    asset: Callable[[str, Sequence[str]], Asset | None] = lambda _name, _tags: None,
    timeout: timedelta = timedelta(hours=2),
    retries: int = 1,
    retry_delay: timedelta = timedelta(seconds=5),
    **common: Any,
) -> Watched:
    """A task per node of a dbt project, and one that builds them all.

    Args:
        group_id: name of the task group.
        project: the project, parsed ahead of time by `include.dbt_watch.parse`.
        select: which nodes have tasks, in that part of dbt's selection syntax that Cosmos knows.
        plan: decides, when a run's build begins, what it does.
        keep: is given dbt's artifacts at the end of each call of `dbt build`.
        asset: the asset of a node, given its name and tags.
        timeout: how long a build may take.
        retries: how often the build is tried again by itself.
        retry_delay: how long it waits before.
        common: arguments of all operators, e.g. `pool`.

    Raises:
        FileNotFoundError: the project was not parsed ahead of time.
    """
    file = project.manifest.with_name(GRAPH)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; the dbt project has to be parsed ahead of time")
    graph = json.loads(file.read_bytes())
    names = _names(graph)
    build_id = f"{group_id}.{BUILD}"
    assets: dict[str, Asset] = {}
    shared = {"project": project, "plan": plan, "keep": keep, **common}

    def task(node: Any, task_id: str, dag: Any, task_group: Any, **_: Any) -> BaseOperator:
        of_source = node.resource_type == DbtResourceType.SOURCE
        if node.has_ephemeral_materialization or (of_source and not (node.has_test or node.has_freshness)):
            return EmptyOperator(task_id=task_id, dag=dag, task_group=task_group, trigger_rule="none_failed")
        found = None if of_source else asset(node.name, node.tags)
        if found is not None:
            assets[node.unique_id] = found
        owner = {"owner": node.owner} if node.owner else {}
        return DbtNode(
            task_id=task_id,
            dag=dag,
            task_group=task_group,
            node=node.unique_id,
            build=build_id,
            outlets=[found] if found else [],
            retries=0,
            trigger_rule="none_failed",
            execution_timeout=long_enough(timeout, retries),
            **shared | owner | node.operator_kwargs_to_override,
        )

    kinds = (DbtResourceType.MODEL, DbtResourceType.SEED, DbtResourceType.SNAPSHOT, DbtResourceType.SOURCE)
    config = ProjectConfig(dbt_project_path=project.folder, install_dbt_deps=False)
    # Not as an argument: Cosmos would make an ObjectStoragePath of it, and look through every provider for its storage.
    config.manifest_path = file
    wanted = _rendered(group_id, build_id, graph, names)
    rendered: TaskGroup = (
        TaskGroup(group_id)
        if wanted == []
        else DbtTaskGroup(
            group_id=group_id,
            project_config=config,
            profile_config=project.profile,
            execution_config=ExecutionConfig(execution_mode=ExecutionMode.LOCAL),
            render_config=RenderConfig(
                load_method=LoadMode.DBT_MANIFEST,
                test_behavior=TestBehavior.NONE,  # the build runs the tests, and a node's task answers for them
                source_rendering_behavior=SourceRenderingBehavior.ALL,
                emit_datasets=False,
                select=list(select) if wanted is None else wanted,
                normalize_task_id=lambda node: names.get(node.unique_id, node.name),
                node_converters=dict.fromkeys(kinds, task),
            ),
        )
    )
    build = DbtBuild(
        task_id=BUILD,
        task_group=rendered,
        dag=rendered.dag,
        assets=assets,
        execution_timeout=timeout,
        retries=retries,
        retry_delay=retry_delay,
        trigger_rule="all_done",
        priority_weight=100,
        weight_rule="absolute",
        **shared,
    )
    return Watched(rendered, build, getattr(rendered, "tasks_map", {}))


def _names(graph: Mapping[str, Any]) -> dict[str, str]:
    """Task id in the group per unique id: the node's name, its package before it where two packages have that name."""
    plain: dict[str, list[str]] = {}
    for unique_id in (*graph["nodes"], *graph["sources"]):
        kind, _, name = unique_id.split(".", 2)
        if kind != "test":
            task_id = name.replace(".", "_") if kind != "source" else f"source_{name.replace('.', '_')}"
            plain.setdefault(task_id, []).append(unique_id)
    return {
        unique_id: task_id if len(ids) == 1 else f"{unique_id.split('.')[1]}__{task_id}"
        for task_id, ids in plain.items()
        for unique_id in ids
    }


def _rendered(group_id: str, build_id: str, graph: Mapping[str, Any], names: Mapping[str, str]) -> list[str] | None:
    """What has to be rendered in a process that runs a single task: nothing, one node, or (None) everything.

    Such a process parses the DAG file for its own task; the others it never looks at.
    """
    running = get_parsing_context().task_id
    if running is None or running == build_id:
        return None
    if not running.startswith(f"{group_id}."):
        return []
    for unique_id, task_id in names.items():
        if f"{group_id}.{task_id}" == running:
            kind, _, name = unique_id.split(".", 2)
            return [f"source:{name}"] if kind == "source" else [f"fqn:{'.'.join(graph['nodes'][unique_id]['fqn'])}"]
    return None
