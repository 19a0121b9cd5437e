"""`run`: start Airflow, run one DAG to its end, tell what came of it, stop Airflow."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from include.elt.local import signals
from include.elt.local.client import ApiError, Client, Run
from include.elt.local.console import make_console
from include.elt.local.environment import Home, choose_port
from include.elt.local.errors import StartError
from include.elt.local.failure import essential_lines, failure_panel, log_file
from include.elt.local.progress import Display, Task, make_display
from include.elt.local.server import Airflow, running_airflow
from include.elt.paths import shown
from include.elt.report import (
    example_query,
    model_results,
    models_table,
    read_artifacts,
    stream_results,
    streams_table,
)
from include.elt.settings import Settings, load_settings

POLL = 0.5
"""Seconds between two looks at the run."""

DAG_TIMEOUT = 120.0
"""Seconds that the DAG processor gets to read the DAG file."""

SETTLED = 5.0
"""Seconds after the first DAG file was read until a DAG that is not there counts as missing."""

MAX_PANELS = 5
"""Failed tasks that are shown in full; the rest is named."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the state, all its tasks, and everything the report needs."""

    run_id: str
    state: str
    tasks: Sequence[Task]
    events: Sequence[Mapping[str, Any]]
    failures: Mapping[Task, Sequence[str]]


def run_dag(dag_id: str, conf: Mapping[str, Any], timeout: float) -> int:
    """The command.

    Args:
        dag_id: what to run.
        conf: the run's conf.
        timeout: seconds the run may take; Airflow's own start does not count.

    Returns:
        The exit code: 0 success, 1 failed.

    Raises:
        SettingsError: a setting is not allowed.
        StartError: Airflow or the DAG could not be started.
        Interrupted: a signal ended the command.
    """
    started = time.monotonic()
    console = make_console()
    settings = load_settings()
    home = Home.of(os.environ)
    keys = home.prepare()
    port = choose_port(os.environ)
    with signals.as_exceptions():
        display = make_display(console, started)
        with running_airflow(home, keys, port, settings.pools(), display.say, one_shot=True) as airflow:
            outcome = _run(airflow, dag_id, conf, timeout, display)
            _report(console, outcome, dag_id, home, settings)
    taken = time.monotonic() - started
    success = outcome.state == "success"
    console.print(Text(f"run {outcome.state}, {taken:.1f} s in all", style="bold green" if success else "bold red"))
    return 0 if success else 1


def _run(airflow: Airflow, dag_id: str, conf: Mapping[str, Any], timeout: float, display: Display) -> Outcome:
    """Run the DAG and follow it."""
    client = airflow.client
    _await_dag(airflow, dag_id)
    for run_id in client.unfinished_runs(dag_id):
        client.run(dag_id, run_id).fail()
        display.say(f"run {run_id} of an earlier command, which was interrupted, is marked as failed")
    with _unpaused(airflow, dag_id):
        try:
            run = client.run(dag_id, client.trigger(dag_id, conf))
        except ApiError as error:
            raise StartError(f"{dag_id} cannot be run: {error}") from error
        display.say(f"{dag_id}: run {run.run_id} started")
        try:
            with display:
                state, tasks = _follow(airflow, run, timeout, display)
        except BaseException:
            _give_up(run)
            raise
        if state not in ("success", "failed"):
            _give_up(run)
            display.say(f"given up after {timeout:.0f} s (--timeout)")
    failed = [task for task in tasks if task.state == "failed"]
    failures: dict[Task, Sequence[str]] = {task: essential_lines(_log(run, task)) for task in failed[:MAX_PANELS]}
    failures.update(dict.fromkeys(failed[MAX_PANELS:], ()))
    return Outcome(run.run_id, state, tasks, run.asset_events(), failures)


def _await_dag(airflow: Airflow, dag_id: str) -> None:
    """Wait until the DAG's file was read by this Airflow; what an earlier one knew of it does not count.

    Raises:
        StartError: the file cannot be imported, or there is no such DAG.
    """
    client = airflow.client
    deadline = time.monotonic() + DAG_TIMEOUT
    settled: float | None = None
    while True:
        airflow.supervisor.check()
        with suppress(httpx.TransportError):
            dag = client.dag(dag_id)
            if dag and _is_new(dag.get("last_parsed_time"), airflow.started):
                return
            errors = [error for error in client.import_errors() if _is_new(error["timestamp"], airflow.started)]
            known = [each for each in client.dags() if _is_new(each.get("last_parsed_time"), airflow.started)]
            if errors or known:
                settled = settled or time.monotonic() + SETTLED
            broken = any(_is_file_of(error["filename"], dag, dag_id) for error in errors)
            if broken or (settled is not None and time.monotonic() > settled):
                raise StartError(_why_missing(dag_id, errors, [each["dag_id"] for each in known]))
        if time.monotonic() > deadline:
            log = airflow.supervisor.log("dag-processor")
            raise StartError(f"{dag_id} was not read within {DAG_TIMEOUT:.0f} s; see {shown(log)}")
        time.sleep(0.2)


def _is_new(moment: str | None, since: datetime) -> bool:
    return moment is not None and datetime.fromisoformat(moment) >= since


def _is_file_of(filename: str, dag: Mapping[str, Any] | None, dag_id: str) -> bool:
    """Whether a broken file is where the DAG would come from."""
    folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    if dag is not None:
        return str(dag.get("fileloc", "")).endswith(filename)
    try:
        return dag_id in (folder / filename).read_text()
    except OSError:
        return False


def _why_missing(dag_id: str, errors: Sequence[Mapping[str, Any]], known: Sequence[str]) -> str:
    """The message for a DAG that cannot be run."""
    there = f"there are {', '.join(sorted(known))}" if known else "there is none"
    parts = [f"there is no DAG {dag_id} in {shown(os.environ['AIRFLOW__CORE__DAGS_FOLDER'])}; {there}"]
    parts += [f"{error['filename']} cannot be imported:\n{str(error['stack_trace']).rstrip()}" for error in errors]
    return "\n\n".join(parts)


@contextmanager
def _unpaused(airflow: Airflow, dag_id: str) -> Iterator[None]:
    """Let a DAG run that is paused, and pause it again: its schedule is for the user to begin."""
    dag = airflow.client.dag(dag_id) or {}
    if not dag.get("is_paused"):
        yield
        return
    airflow.home.unpaused.write_text(dag_id)
    airflow.client.pause(dag_id, paused=False)
    try:
        yield
    finally:
        with suppress(httpx.HTTPError, ApiError):  # otherwise the next start does it
            airflow.client.pause(dag_id, paused=True)
            airflow.home.unpaused.unlink(missing_ok=True)


def _follow(airflow: Airflow, run: Run, timeout: float, display: Display) -> tuple[str, list[Task]]:
    """Show the run until it has ended, or for as long as it may take."""
    deadline = time.monotonic() + timeout
    order = TaskOrder(airflow.client, run.dag_id)
    tasks: list[Task] = []
    while True:
        airflow.supervisor.check()
        with suppress(httpx.TransportError):  # the API server is started again if need be
            state = run.state()
            tasks = order.sorted([Task.of(instance) for instance in run.tasks()])
            display.update(tasks)
            if state in ("success", "failed") or time.monotonic() > deadline:
                return state, tasks
        time.sleep(POLL)


class TaskOrder:
    """Tasks in the order in which they run, those of a group together.

    Args:
        client: to ask for the DAG's edges.
        dag_id: the DAG.
    """

    def __init__(self, client: Client, dag_id: str) -> None:
        after = {task["task_id"]: task["downstream_task_ids"] or [] for task in client.tasks(dag_id)}
        self._depth = dict.fromkeys(after, 0)
        for _ in after:  # as many rounds as the longest path at most
            changed = False
            for task, followers in after.items():
                for follower in followers:
                    if self._depth.get(follower, 0) <= self._depth[task]:
                        self._depth[follower] = self._depth[task] + 1
                        changed = True
            if not changed:
                break

    def sorted(self, tasks: Sequence[Task]) -> list[Task]:
        """These tasks in order."""
        first: dict[str, int] = {}
        for task in tasks:
            depth = self._depth.get(task.id, 0)
            first[task.group] = min(depth, first.get(task.group, depth))

        def place(task: Task) -> tuple[int, str, int, str, int]:
            return (first[task.group], task.group, self._depth.get(task.id, 0), task.id, task.map_index)

        return sorted(tasks, key=place)


def _give_up(run: Run) -> None:
    """Leave no run behind that Airflow takes to be running; the next one would wait for it."""
    with signals.held(), suppress(httpx.HTTPError, ApiError):
        run.fail()


def _log(run: Run, task: Task) -> list[dict[str, Any]]:
    try:
        return run.log(task.id, task.try_number, task.map_index)
    except (httpx.HTTPError, ApiError):
        return []


def _report(console: Console, outcome: Outcome, dag_id: str, home: Home, settings: Settings) -> None:
    """Print what came of the run."""
    for task, lines in outcome.failures.items():
        log = log_file(home.logs, dag_id, outcome.run_id, task.id, task.try_number, task.map_index)
        if lines:
            console.print(failure_panel(task.name, lines, log))
        else:
            console.print(f"{task.name} failed too; log: {shown(log)}", soft_wrap=True)
    states = {task.id: task.state for task in outcome.tasks}
    streams = stream_results(outcome.events, states)
    models = model_results(read_artifacts(settings.artifacts / dag_id, outcome.run_id), states)
    for table, rows in ((streams_table(streams), streams), (models_table(models), models)):
        if rows:
            console.print()
            console.print(table)
    query = example_query(models, streams)
    if query and settings.duckdb_path.is_file():
        console.print(f"The warehouse is {shown(settings.duckdb_path)}. Look into it:", soft_wrap=True)
        console.print(f"  make query SQL={shlex.quote(query)}", soft_wrap=True)
        console.print()
