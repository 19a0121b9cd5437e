"""The dbt project as Airflow tasks: one per source, model and snapshot with its tests, run by a single `dbt build`.

`include/dbt_watch` makes the tasks and runs dbt. What is said here is what a run's build does:

- A node whose stream failed is not built, and every other one is (a plain build would stop them all).
- What the run's form chooses, excludes and sets reaches dbt; a node that it leaves out ends as skipped.
- The models' assets have names that are the same in every environment.
- The results of dbt are kept with the run.
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, BaseOperator, Context, TaskGroup
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from cosmos.config import ProfileConfig

from include.dbt_watch.group import BUILD, watched_group
from include.dbt_watch.operators import Plan
from include.dbt_watch.parse import GRAPH
from include.dbt_watch.project import DbtProject
from include.elt import freshness
from include.elt.alerts.deadlines import Promise, keep_fresh, wanted
from include.elt.contract import read_contracts
from include.elt.errors import ContractError
from include.elt.lake import slug
from include.elt.manifest import MANIFEST, PROJECT, changed_files
from include.elt.paths import DBT_PROJECT, shown
from include.elt.results import publish
from include.elt.settings import WAREHOUSE_POOL, Settings
from include.elt.tasks import dbt_environment, raw_asset

log = logging.getLogger(__name__)


def transform(
    settings: Settings, after: Mapping[str, BaseOperator], select: Sequence[str] = (), group_id: str = "dbt"
) -> TaskGroup:
    """The task group of a DAG's share of the dbt project, wired to the loads it reads from.

    A mart that says how old it may be (`meta.freshness`) gives the DAG a deadline.

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
    if not MANIFEST.with_name(GRAPH).is_file():
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
    watched = watched_group(
        group_id,
        DbtProject(
            DBT_PROJECT,
            MANIFEST,
            ProfileConfig(
                profile_name=PROJECT, target_name=settings.warehouse, profiles_yml_filepath=DBT_PROJECT / "profiles.yml"
            ),
        ),
        select=select,
        plan=build.plan,
        keep=build.keep_artifacts,
        asset=_mart,
        timeout=timedelta(seconds=settings.dbt_timeout),
        pool=WAREHOUSE_POOL,
    )
    for source, load in loads.items():
        load >> watched.build
        if (task := watched.nodes.get(f"source.{PROJECT}.{source}")) is not None:
            load >> task
    if wanted():
        keep_fresh(watched.group.dag, _promises(watched.nodes))
    return watched.group


def _promises(tasks: Mapping[str, BaseOperator]) -> dict[str, Promise]:
    """How old the marts of these tasks may be, by asset."""
    nodes = json.loads(MANIFEST.with_name(GRAPH).read_bytes())["nodes"]
    return {
        asset.name: Promise(task.task_id, task.owner, limit)
        for unique_id, task in tasks.items()
        if unique_id in nodes and (limit := freshness.seconds_of(freshness.of_model(nodes[unique_id])))
        for asset in task.outlets
        if isinstance(asset, Asset)
    }


def _mart(name: str, tags: Sequence[str]) -> Asset | None:
    """The asset of a mart, the same in every environment."""
    return raw_asset(f"marts.{name}") if "mart" in tags else None


class Build:
    """What one run's `dbt build` does, decided when it begins.

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
        self.task_id = f"{group_id}.{BUILD}"

    def plan(self, context: Context) -> Plan:
        """Apply the form, and leave out what depends on a stream that failed.

        Raises:
            AirflowSkipException: it is a dry run, or nothing was loaded.
            AirflowFailException: the form's selection holds an option of dbt.
        """
        params = context["params"]
        if params["dry_run"]:
            raise AirflowSkipException("dry run: dbt builds nothing")
        states = self._states(context, list(self.loads.values()))
        failed = [source for source, task in self.loads.items() if states.get(task) in {"failed", "upstream_failed"}]
        loaded = [source for source, task in self.loads.items() if states.get(task) == "success"]
        if self.loads and len(failed) == len(self.loads):
            raise AirflowSkipException("every stream failed; there is nothing to build")
        if changed := changed_files():
            log.error(
                "%s is older than the project: %s changed since. A node that is missing here has no task, one that is"
                " gone will fail; `make manifest` parses the project again",
                shown(MANIFEST),
                ", ".join(changed[:10]),
            )
        # dbt takes a missing folder for a locked file, and waits.
        self.settings.duckdb_path.parent.mkdir(parents=True, exist_ok=True)
        for name in ("dbt_select", "dbt_exclude"):
            if any(word.startswith("-") for word in (params.get(name) or "").split()):
                raise AirflowFailException(f"the parameter {name}={params[name]!r} holds an option of dbt")
        if failed:
            log.warning("not built, because their stream failed: everything after %s", ", ".join(failed))
        exclude = (params.get("dbt_exclude") or "").split()
        return Plan(
            select=self.selection(params["dbt_select"]),
            exclude=[*exclude, *(f"source:{source}+" for source in failed)],
            chosen=", ".join(f"{name}={params[name]!r}" for name in ("dbt_select", "dbt_exclude") if params.get(name)),
            options=_options(params),
            variables=params.get("dbt_vars") or {},
            environment=dbt_environment(self.settings, context),
            fresh=_with_freshness(loaded),
        )

    def selection(self, chosen: str | None) -> list[str]:
        """What dbt is told to build: what the form chooses of what the DAG builds.

        Args:
            chosen: the form's selection. To dbt a space is a union and a comma an intersection.
        """
        if not chosen:
            return list(self.select)
        return [f"{word},{ours}" for word in chosen.split() for ours in self.select]

    def keep_artifacts(self, target: Path, context: Context) -> None:
        """At the end of each `dbt build`, once: keep its manifest and results with the run.

        The results of a node that is built again, by a further try or by its own task, replace those of before.

        Args:
            target: dbt's target folder.
            context: of the task that called dbt.
        """
        kept = self.settings.artifacts / context["ti"].dag_id
        folder = kept / slug(context["run_id"])
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            manifest = target / "manifest.json"
            _replace(folder / "manifest.json", (manifest if manifest.is_file() else MANIFEST).read_bytes())
            results = folder / "run_results.json"
            if not (target / "run_results.json").is_file():
                return  # dbt failed before it built anything; it says so itself
            new = json.loads((target / "run_results.json").read_text(encoding="utf-8"))
            whole = new
            if results.is_file() and self._goes_on(context):
                again = {result["unique_id"] for result in new["results"]}
                old = json.loads(results.read_text(encoding="utf-8"))["results"]
                kept_results = [result for result in old if result["unique_id"] not in again]
                whole = new | {"results": kept_results + new["results"]}
            _replace(results, json.dumps(whole).encode())
            publish(context, new, json.loads((folder / "manifest.json").read_text(encoding="utf-8")), whole)
        runs = sorted(kept.iterdir(), key=lambda run: run.stat().st_mtime_ns, reverse=True)
        for old_run in runs[self.settings.artifacts_keep :]:
            shutil.rmtree(old_run, ignore_errors=True)

    def _goes_on(self, context: Context) -> bool:
        """Whether this builds a part of what was built before: a node by itself, or a further try of the build."""
        ti = context["ti"]
        # Clearing a task gives it a new round of tries: Airflow raises `max_tries` by as many as the task has.
        first = ti.max_tries - (context["task"].retries or 0) + 1
        return ti.task_id != self.task_id or ti.try_number > first

    def _states(self, context: Context, task_ids: list[str]) -> dict[str, str]:
        """States of tasks of this run."""
        run_id = context["run_id"]
        states = RuntimeTaskInstance.get_task_states(dag_id=context["ti"].dag_id, task_ids=task_ids, run_ids=[run_id])
        return {task: str(state) for task, state in states.get(run_id, {}).items()}


def _with_freshness(loaded: Sequence[str]) -> list[str]:
    """Unique ids of the sources that were loaded and say how old they may be."""
    sources = json.loads(MANIFEST.with_name(GRAPH).read_bytes())["sources"]
    unique_ids = [f"source.{PROJECT}.{source}" for source in loaded]
    return [each for each in unique_ids if each in sources and _says_freshness(sources[each].get("freshness"))]


def _says_freshness(freshness: Mapping[str, Any] | None) -> bool:
    limits = [value for value in (freshness or {}).values() if isinstance(value, Mapping)]
    return any(each is not None for limit in limits for each in limit.values())


def _options(params: Mapping[str, Any]) -> list[str]:
    """Options of `dbt build` that the form sets."""
    options = ["--full-refresh"] if params["full_refresh"] else []
    for name in ("event_time_start", "event_time_end"):
        if params.get(name):
            options += [f"--{name.replace('_', '-')}", str(params[name])]
    return options


def _replace(file: Path, content: bytes) -> None:
    """Put the new content in the place of the old in one step."""
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(file)
