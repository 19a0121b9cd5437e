"""Four changes to the triggerer of Airflow 3.3 that make a thousand watched nodes cheap.

Nothing depends on them but speed.

1. *No DAG for a node.* For a task that starts from its trigger the triggerer reads the whole serialised DAG from the
   database, takes it apart and sends it to the process of the triggers, which takes it apart again: once per task, so
   the cost is the square of their number (`triggerer_job_runner.py`, `_create_workload` and `create_runtime_ti`, in
   3.3.2). It serves templates, and a node's trigger has none. A thousand models: 12 CPU seconds instead of 200.
2. *No callback that nobody hears.* Each task that a trigger ends well has the DAG processor parse the DAG file for a
   success callback, which it then drops, for it runs callbacks of failures only (`processor.py`,
   `_execute_task_callbacks`). Failures keep theirs.
3. *No second of sleep between two layers.* Two loops wait a second each, whatever there is to do. While nodes are
   watched, and for a while after, the loop that runs the triggers looks five times a second, which wakes the other one
   as well.
4. *A connection that is ready.* The triggerer serves its triggers through an API server within itself, which it makes
   when it is first asked: six CPU seconds in which nothing else happens. Here it is made when the triggerer starts.

The first two could be mended in Airflow: a workload without the DAG when the task has no template fields, and no
request for callbacks that are not of failures. The third could be an option, as `[scheduler]
scheduler_idle_sleep_time` is one. `FAST_TRIGGERER=false` leaves Airflow as it is; so does a release of Airflow in
which these functions are others.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from typing import Any

from include.dbt_watch.trigger import DbtNodeTrigger, seconds_since_watched

LOOK_EVERY = 0.2
"""Seconds between two rounds of the triggers' loop while nodes are watched."""

LINGER = 10.0
"""Seconds for which it goes on after the last node has ended: the next layer is about to come."""

_CLASSPATH = f"{DbtNodeTrigger.__module__}.{DbtNodeTrigger.__qualname__}"

_KNOWN = {
    "_create_workload": ["self", "trigger", "dag_bag", "render_log_fname", "session"],
    "cancel_triggers": ["self"],
    "run": ["self"],
    "send": ["self", "callback", "session"],
}
"""The parameters of the functions that are wrapped; with others they are left alone."""

log = logging.getLogger(__name__)


class _NoDags:
    """Stands in for the database's DAGs: there is none, so the workload goes without."""

    def get_serialized_dag_model_for_run(self, *_: Any, **__: Any) -> None:
        """None."""

    def get_serialized_dag_model(self, *_: Any, **__: Any) -> None:
        """None."""


def wanted() -> bool:
    """Whether the setting FAST_TRIGGERER asks for the changes."""
    return os.environ.get("FAST_TRIGGERER", "true").strip().lower() not in ("false", "0", "no", "off")


def apply() -> bool:
    """Make the changes in this process, once; whether they are made."""
    from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
    from airflow.jobs.triggerer_job_runner import TriggerRunner, TriggerRunnerSupervisor

    found: list[tuple[Any, str]] = [
        (TriggerRunnerSupervisor, "_create_workload"),
        (TriggerRunnerSupervisor, "run"),
        (TriggerRunner, "cancel_triggers"),
        (DatabaseCallbackSink, "send"),
    ]
    if getattr(TriggerRunner.cancel_triggers, "of_dbt_watch", False):
        return True
    for owner, name in found:
        there = list(inspect.signature(inspect.unwrap(getattr(owner, name))).parameters)
        if there != _KNOWN[name]:
            log.warning("the triggerer stays as it is: %s.%s has other parameters: %s", owner.__name__, name, there)
            return False
    _without_the_dag(TriggerRunnerSupervisor)
    _with_its_api_ready(TriggerRunnerSupervisor)
    _without_success_callbacks(DatabaseCallbackSink)
    _without_a_second_of_sleep(TriggerRunner)
    return True


def _without_the_dag(supervisor: Any) -> None:
    make = supervisor._create_workload  # noqa: SLF001  (there is no public one)

    def create_workload(self: Any, trigger: Any, dag_bag: Any, render_log_fname: Any, session: Any) -> Any:
        dags = _NoDags() if trigger.classpath == _CLASSPATH else dag_bag
        return make(self, trigger=trigger, dag_bag=dags, render_log_fname=render_log_fname, session=session)

    supervisor._create_workload = create_workload  # noqa: SLF001


def _with_its_api_ready(supervisor: Any) -> None:
    run = supervisor.run

    def run_when_ready(self: Any) -> None:
        try:
            self.client.get("health")
        except Exception:
            log.warning("the triggerer's own API was not made ready", exc_info=True)
        run(self)

    supervisor.run = run_when_ready


def _without_success_callbacks(sink: Any) -> None:
    send = sink.send

    def send_if_heard(self: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        from airflow.utils.state import TaskInstanceState

        if getattr(callback, "task_callback_type", None) is TaskInstanceState.SUCCESS:
            return None
        return send(self, callback, *args, **kwargs)

    sink.send = send_if_heard


def _without_a_second_of_sleep(runner: Any) -> None:
    cancel = runner.cancel_triggers

    async def cancel_triggers(self: Any) -> None:
        """The last step of a round; goes on with further rounds while nodes are watched."""
        await cancel(self)
        while not self.stop and not self.comms_decoder._reader_task.done() and seconds_since_watched() <= LINGER:  # noqa: SLF001
            await asyncio.sleep(LOOK_EVERY)
            finished = await self.cleanup_finished_triggers()
            await self.sync_state_to_supervisor(finished)
            await self.create_triggers()
            await cancel(self)

    cancel_triggers.of_dbt_watch = True  # type: ignore[attr-defined]
    runner.cancel_triggers = cancel_triggers
