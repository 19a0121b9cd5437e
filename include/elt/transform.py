"""The dbt project as Airflow tasks: one per source, model, snapshot and its tests, run by a single `dbt build`.

Cosmos' WATCHER mode: a producer task runs dbt once, and a task per node watches how its node fares. What is added here:

- A node whose stream failed is not built, and every other one is (a plain build would stop them all).
- A node that the run's form leaves out ends as skipped; Cosmos would show it as a success.
- `airflow dags test` and `dag.test()` end. They run one task at a time and would let a watcher wait for ever for the
  producer that comes after it.
- The models' assets have names that are the same in every environment.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException, AirflowSkipException
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.timezone import utcnow
from cosmos.airflow.task_group import DbtTaskGroup
from cosmos.config import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import (
    PRODUCER_WATCHER_TASK_ID,
    ExecutionMode,
    InvocationMode,
    LoadMode,
    SourceRenderingBehavior,
    TestBehavior,
)

from include.elt.contract import read_contracts
from include.elt.errors import ContractError
from include.elt.lake import slug
from include.elt.manifest import MANIFEST, dbt_command
from include.elt.paths import DBT_PROJECT, shown
from include.elt.results import publish
from include.elt.settings import WAREHOUSE_POOL, Settings
from include.elt.tasks import raw_asset

PROJECT = "jdbt"
"""Name of the dbt project and of its profile."""

_BEGAN = "producer_cmd_flags"
"""XCom that Cosmos' producer writes right before it calls `dbt build`."""

_FINISHED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_STALE = frozenset({"error", "runtime error"})
"""Freshness results that stop what depends on the source; a warning does not."""


def transform(
    settings: Settings, after: Mapping[str, BaseOperator], select: Sequence[str] = (), group_id: str = "dbt"
) -> DbtTaskGroup:
    """The task group of a DAG's share of the dbt project, wired to the loads it reads from.

    There is one dbt project for all DAGs. Each builds what depends on the tables that it loads, so a model that joins
    tables of two DAGs is built by both.

    Args:
        settings: settings of the deployment.
        after: load tasks by raw table; a node runs when the loads of its own sources are done.
        select: what the DAG builds instead, in that part of dbt's selection syntax that Cosmos knows, e.g. `tag:web`.
        group_id: name of the task group.

    Returns:
        The task group.

    Raises:
        FileNotFoundError: the project was not parsed ahead of time.
        ContractError: none of the tables has a contract, and nothing is selected.
    """
    if not MANIFEST.is_file():
        raise FileNotFoundError(f"{shown(MANIFEST)} is missing; `make manifest` builds it")
    loads = {
        contract.dbt_source: after[contract.table] for contract in read_contracts().values() if contract.table in after
    }
    select = tuple(select) or tuple(f"source:{source}+" for source in loads)
    if not select:  # to Cosmos and dbt it would mean everything
        raise ContractError(
            f"no source of dbt is loaded ({', '.join(after) or 'no tables'}); there is nothing to build"
        )
    build = Build(settings, {source: load.task_id for source, load in loads.items()}, group_id, select)
    group = DbtTaskGroup(
        group_id=group_id,
        project_config=ProjectConfig(
            dbt_project_path=DBT_PROJECT,
            manifest_path=MANIFEST,
            install_dbt_deps=False,
            env_vars=settings.dbt_environment(),
        ),
        profile_config=ProfileConfig(
            profile_name=PROJECT, target_name=settings.warehouse, profiles_yml_filepath=DBT_PROJECT / "profiles.yml"
        ),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.WATCHER,
            invocation_mode=InvocationMode.DBT_RUNNER,
            setup_operator_args={
                "pool": WAREHOUSE_POOL,
                "pre_execute": build.prepare,
                "freshness_callback": stale_nodes,
                "trigger_rule": "all_done",
            },
        ),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST,
            test_behavior=TestBehavior.AFTER_EACH,
            source_rendering_behavior=SourceRenderingBehavior.WITH_TESTS_OR_FRESHNESS,
            emit_datasets=False,
            select=list(select),
            exclude=["resource_type:exposure"],
        ),
        operator_args={
            "install_deps": False,
            "poke_interval": 1,
            "pre_execute": build.admit,
            "callback": build.keep_artifacts,
            "trigger_rule": "none_failed",
            "execution_timeout": timedelta(seconds=settings.dbt_timeout),
            "retries": 1,
            "retry_delay": timedelta(seconds=5),
        },
    )
    for source, load in loads.items():
        load >> group.tasks_map[PRODUCER_WATCHER_TASK_ID]
        if (watcher := group.tasks_map.get(f"source.{PROJECT}.{source}")) is not None:
            load >> watcher
    for task in group.iter_tasks():
        node = group.dbt_graph.filtered_nodes.get(getattr(task, "model_unique_id", ""))
        if node is not None and "mart" in node.tags and task.task_id.endswith("run"):
            task.outlets.append(raw_asset(f"marts.{node.name}"))
    return group


class Build:
    """What one run's `dbt build` does, decided when the producer starts.

    Args:
        settings: settings of the deployment.
        loads: task id of the load by dbt source, e.g. `shop.raw_orders`.
        group_id: name of the task group.
        select: what the DAG builds; a node that any of them selects.
    """

    def __init__(self, settings: Settings, loads: Mapping[str, str], group_id: str, select: Sequence[str] = ()) -> None:
        self.settings = settings
        self.loads = loads
        self.select = select
        self.producer = f"{group_id}.{PRODUCER_WATCHER_TASK_ID}"

    def prepare(self, context: Context) -> None:
        """Before the producer: apply the form, and leave out what depends on a stream that failed.

        Raises:
            AirflowSkipException: it is a dry run, or nothing was loaded.
            AirflowFailException: the form's selection is wrong or selects nothing.
        """
        params, task = context["params"], cast("Any", context["task"])
        self._tell_again(context)
        if params["dry_run"]:
            raise AirflowSkipException("dry run: dbt builds nothing")
        failed = self._failed_sources(context)
        if self.loads and len(failed) == len(self.loads):
            raise AirflowSkipException("every stream failed; there is nothing to build")
        # dbt takes a missing folder for a locked file, and waits.
        self.settings.duckdb_path.parent.mkdir(parents=True, exist_ok=True)
        if any(word.startswith("-") for word in (params["dbt_select"] or "").split()):
            raise AirflowFailException(f"the parameter dbt_select={params['dbt_select']!r} holds an option of dbt")
        task.full_refresh = params["full_refresh"]
        task.select = self.selection(params["dbt_select"])
        task.exclude = " ".join(f"source:{source}+" for source in failed) or None
        if failed:
            task.log.warning("not built, because their stream failed: everything after %s", ", ".join(failed))
        if params["dbt_select"]:
            chosen = self._chosen(params["dbt_select"])
            for node in task.task_group.dbt_graph.filtered_nodes:
                if node not in chosen:  # tell its watcher, in Cosmos' own words
                    key = node.replace(".", "__")
                    context["ti"].xcom_push(key=f"{key}_status", value={"status": "skipped", "outlet_uris": []})
                    context["ti"].xcom_push(key=f"{key}_tests_status", value="skipped")

    def selection(self, chosen: str | None) -> str:
        """What dbt is told to build: what the form chooses of what the DAG builds.

        Args:
            chosen: the form's selection. To dbt a space is a union and a comma an intersection.
        """
        if not chosen:
            return " ".join(self.select)
        return " ".join(f"{word},{ours}" for word in chosen.split() for ours in self.select)

    def admit(self, context: Context) -> None:
        """Before a watcher: end it where it has nothing to wait for.

        Raises:
            AirflowSkipException: it is a dry run.
            AirflowFailException: the build never began, so that there is no run of dbt to fall back to.
            AirflowRescheduleException: `dag.test()` has not run the producer yet.
        """
        if context["params"]["dry_run"]:
            raise AirflowSkipException("dry run: dbt builds nothing")
        ti = context["ti"]
        state = self._states(context, [self.producer]).get(self.producer)
        if _in_dag_test() and state not in _FINISHED:
            raise AirflowRescheduleException(utcnow())  # type: ignore[no-untyped-call]
        if state in _FINISHED - {"success"} and ti.xcom_pull(task_ids=self.producer, key=_BEGAN) is None:
            raise AirflowFailException(f"{self.producer} ended before dbt began; see its log")

    def keep_artifacts(self, project_dir: str, context: Context) -> None:
        """After every dbt invocation: keep its manifest and results with the run.

        The results of a node that is built again by its own task replace those of the build.

        Args:
            project_dir: Cosmos' temporary copy of the project.
            context: of the task that called dbt.
        """
        target = Path(project_dir) / "target"
        kept = self.settings.artifacts / context["ti"].dag_id
        folder = kept / slug(context["run_id"])
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (target / "manifest.json").is_file():
                shutil.copyfile(target / "manifest.json", folder / "manifest.json")
            results = folder / "run_results.json"
            if not (target / "run_results.json").is_file():
                return  # dbt failed before it built anything, or looked at freshness only; it says so itself
            new = json.loads((target / "run_results.json").read_text(encoding="utf-8"))
            publish(context, new, json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
            if context["ti"].task_id != self.producer and results.is_file():
                again = {result["unique_id"] for result in new["results"]}
                old = json.loads(results.read_text(encoding="utf-8"))["results"]
                new["results"] = [result for result in old if result["unique_id"] not in again] + new["results"]
            temporary = results.with_suffix(".tmp")
            temporary.write_text(json.dumps(new), encoding="utf-8")
            temporary.replace(results)
        runs = sorted(kept.iterdir(), key=lambda run: run.stat().st_mtime_ns, reverse=True)
        for old in runs[self.settings.artifacts_keep :]:
            shutil.rmtree(old, ignore_errors=True)

    def _tell_again(self, context: Context) -> None:
        """On another try of the producer, tell the results of the one before.

        Airflow removes what a task has told when it is tried again, and Cosmos' producer then builds nothing.
        """
        if context["ti"].try_number > 1:
            from include.elt.report import read_artifacts  # with what prints tables, which no DAG file needs

            kept = read_artifacts(self.settings.artifacts / context["ti"].dag_id, context["run_id"])
            if kept is not None:
                publish(context, *kept)

    def _states(self, context: Context, task_ids: list[str]) -> dict[str, str]:
        """States of tasks of this run."""
        run_id = context["run_id"]
        states = RuntimeTaskInstance.get_task_states(dag_id=context["ti"].dag_id, task_ids=task_ids, run_ids=[run_id])
        return {task: str(state) for task, state in states.get(run_id, {}).items()}

    def _failed_sources(self, context: Context) -> list[str]:
        states = self._states(context, list(self.loads.values()))
        return [source for source, task in self.loads.items() if states.get(task) in {"failed", "upstream_failed"}]

    def _chosen(self, select: str) -> set[str]:
        """Nodes that dbt's own selection gives of what the DAG builds."""
        with tempfile.TemporaryDirectory() as scratch:
            where = ["--target", self.settings.warehouse, "--target-path", scratch, "--log-path", scratch]
            what = ["--output", "json", "--output-keys", "unique_id", "--select", *self.selection(select).split()]
            result = subprocess.run(
                dbt_command("--quiet", "ls", *where, *what),
                env=os.environ | self.settings.dbt_environment(),
                capture_output=True,
                text=True,
                timeout=self.settings.dbt_timeout,
                check=False,
            )
        lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
        if result.returncode or not lines:
            raise AirflowFailException(
                f"the parameter dbt_select={select!r} selects nothing of what this DAG builds"
                f" (dbt ls ended with {result.returncode}): {result.stdout[-2000:]}{result.stderr[-2000:]}"
            )
        return {json.loads(line)["unique_id"] for line in lines}


def stale_nodes(
    context: Context,  # noqa: ARG001  (the signature is Cosmos')
    dag: Any,  # noqa: ARG001
    task_group: Any,  # noqa: ARG001
    nodes: Mapping[str, Any] | None,
    sources_json: Mapping[str, Any] | None,
) -> list[tuple[str, str]]:
    """Cosmos' freshness callback: everything that depends on a stale source is left out of the build.

    Cosmos' own treats a warning like an error, and builds what has a fresh source beside the stale one.

    Returns:
        Pairs of node and state, as Cosmos wants them.
    """
    left_out = {result["unique_id"] for result in (sources_json or {}).get("results", []) if result["status"] in _STALE}
    stale = frozenset(left_out)
    while found := {
        name for name, node in (nodes or {}).items() if name not in left_out and left_out.intersection(node.depends_on)
    }:
        left_out |= found
    built = ("model.", "snapshot.", "seed.")
    return [(node, "skipped") for node in sorted(left_out - stale) if node.startswith(built)]


def _in_dag_test() -> bool:
    """Whether this task runs inside `dag.test()`: in the process of the DAG run, one task after the other."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.supervisor import InProcessSupervisorComms

    return isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), InProcessSupervisorComms)
