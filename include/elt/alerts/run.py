"""When a run has ended or missed its deadline: find the causes, leave out the silenced ones, send each once.

`report_run` is a DAG's callback for success and failure. Airflow calls it once per end of a run, in the DAG processor,
however the tasks ended: in a worker, in the triggerer, or killed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow.sdk.bases.notifier import BaseNotifier

from include.elt import metrics
from include.elt.alerts.causes import Alert, Ended, causes
from include.elt.alerts.deadlines import span
from include.elt.alerts.silences import Silence, SilenceError, read_silences, silenced
from include.elt.logs import tell
from include.elt.results import KEY, unpacked
from include.elt.settings import load_settings

log = logging.getLogger(__name__)

_PROBLEM = "problem"
_BUILD = "dbt_build"  # include/dbt_watch/group.py, which takes long to import


def report_run(context: Any) -> None:
    """Tell what is wrong with the run that has ended: Airflow's `on_success_callback` and `on_failure_callback`.

    Args:
        context: Airflow's, of a DAG.
    """
    if not load_settings().alert_channels():
        return
    send(causes(_ended(context)))


def send(alerts: Iterable[Alert]) -> int:
    """Send alerts through every channel of the settings.

    A channel that does not work is logged and keeps no other from working. Nothing is raised: an alert that cannot be
    sent must not become a failure of its own.

    Returns:
        How many alerts arrived somewhere.
    """
    sent = 0
    for alert, messages in _to_send(alerts):
        outcomes = []
        for kind, notifier in messages:
            try:
                notifier.notify({})  # ours need no context
            except Exception as error:  # noqa: BLE001  (whatever a channel raises)
                outcomes.append(_outcome(alert, kind, error))
            else:
                outcomes.append(_outcome(alert, kind, None))
        sent += _counted(alert, outcomes)
    return sent


async def send_async(alerts: Iterable[Alert]) -> int:
    """The same in the triggerer, where nothing may block."""
    sent = 0
    for alert, messages in _to_send(alerts):
        outcomes = []
        for kind, notifier in messages:
            try:
                await notifier.async_notify({})
            except Exception as error:  # noqa: BLE001
                outcomes.append(_outcome(alert, kind, error))
            else:
                outcomes.append(_outcome(alert, kind, None))
        sent += _counted(alert, outcomes)
    return sent


def _to_send(alerts: Iterable[Alert]) -> Iterator[tuple[Alert, list[tuple[str, BaseNotifier]]]]:
    """The alerts that are not silenced, with a notifier per channel."""
    from include.elt.alerts.channels import notifiers  # not where DAG files are parsed: it takes time to import

    channels, silences = load_settings().alert_channels(), _silences()
    for alert in alerts:
        silence = silenced(alert, silences)
        if silence is None:
            yield alert, notifiers(alert, channels)
        else:
            log.info("alert silenced until %s (%s): %s", silence.until, silence.reason, alert.title)
            metrics.count("alerts", {"kind": alert.kind, "outcome": "silenced"})


def _silences() -> list[Silence]:
    """The project's silences; an alert too many is better than one too few."""
    try:
        return read_silences()
    except SilenceError as error:
        log.error("no alert is silenced: %s", error)  # noqa: TRY400  (the message says it all)
        return []


def _outcome(alert: Alert, kind: str, error: Exception | None) -> bool:
    """Log what became of a message; the error's own text may hold an address with a secret."""
    outcome = "sent" if error is None else "lost"
    if error is not None:
        log.error("alert not sent through %s (%s): %s", kind, type(error).__name__, alert.title)
    tell(
        "alert",
        dag_id=alert.dag_id,
        run_id=alert.run_id,
        kind=alert.kind,
        subject=alert.subject,
        channel=kind,
        outcome=outcome,
    )
    return error is None


def _counted(alert: Alert, outcomes: list[bool]) -> bool:
    metrics.count("alerts", {"kind": alert.kind, "outcome": "sent" if any(outcomes) else "lost"})
    return any(outcomes)


async def tell_missed_deadline(seconds: float, context: Mapping[str, Any]) -> None:
    """Airflow's callback of a missed deadline, in the triggerer.

    Args:
        seconds: the deadline.
        context: Airflow's: `dag_run` as the API tells it.
    """
    run = context["dag_run"]
    text = f"The run has not ended within {span(seconds)} after it was queued; its state is {run['state']}."
    alert = Alert("missed deadline", run["dag_id"], run["dag_id"], run["dag_run_id"], "data-platform", text)
    await send_async([alert])


async def tell_late_tables(tables: Mapping[str, list[str]], seconds: float, context: Mapping[str, Any]) -> None:
    """Airflow's callback when tables have become too old, in the triggerer: one alert for all that were not made.

    Args:
        tables: task and owner by table.
        seconds: how old the tables may be.
        context: Airflow's: `dag_run` as the API tells it, and `deadline`.
    """
    run = context["dag_run"]
    dag_id, run_id = str(run["dag_id"]), str(run["dag_run_id"])
    states = await _states_async(dag_id, run_id, [task for task, _ in tables.values()])
    late = {table: told for table, told in tables.items() if states.get(told[0]) != "success"}
    alerts = [Alert("missed deadline", table, dag_id, run_id, owner, "", task) for table, (task, owner) in late.items()]
    told = [alert for alert in alerts if silenced(alert, _silences()) is None]
    if not told:
        log.info("no table to tell of: made in the meantime, or silenced")
        return
    names = [alert.subject for alert in told]
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    text = (
        f"No new data since more than {span(seconds)}, which is how old it may be: {listed}."
        f" The run of {dag_id} that had to make it is {run['state']}."
    )
    one = told[0] if len(told) == 1 else None
    subject = one.subject if one else f"{len(told)} tables"
    owners = ", ".join(sorted({alert.owner for alert in told}))
    await send_async([Alert("missed deadline", subject, dag_id, run_id, owners, text, one.task_id if one else None)])


async def _states_async(dag_id: str, run_id: str, tasks: list[str]) -> dict[str, str]:
    """States of tasks of a run, asked from the triggerer."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import GetTaskStates

    question = GetTaskStates(dag_id=dag_id, task_ids=tasks, run_ids=[run_id])
    answer = getattr(await task_runner.SUPERVISOR_COMMS.asend(question), "task_states", None) or {}
    return {task: str(state) for task, state in answer.get(run_id, {}).items()}


def _ended(context: Any) -> Ended:
    """What a run told, asked from Airflow."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from airflow.sdk.execution_time.xcom import XCom

    dag, run_id = context["dag"], str(context["run_id"])
    states = RuntimeTaskInstance.get_task_states(dag_id=dag.dag_id, run_ids=[run_id]).get(run_id, {})
    states = {task: str(state) for task, state in states.items()}

    def told(task: str, key: str) -> Any:
        return XCom.get_one(key=key, dag_id=dag.dag_id, task_id=task, run_id=run_id)

    problems, loads = {}, {}
    for task, state in states.items():
        name = task.rpartition(".")[2]
        if name in ("extract", "load"):
            if state == "failed" and isinstance(problem := told(task, _PROBLEM), dict):
                problems[task] = problem
            if name == "load" and state == "success" and isinstance(loaded := told(task, "return_value"), dict):
                loads[task] = loaded
    reason = str(context.get("reason") or "")
    return Ended(
        dag_id=dag.dag_id,
        run_id=run_id,
        failed=reason not in ("", "success"),
        reason=reason,
        states=states,
        owners={task.task_id: task.owner for task in dag.tasks},
        problems=problems,
        loads=loads,
        results=results_of(dag.dag_id, run_id, states),
    )


def results_of(dag_id: str, run_id: str, states: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """What dbt did in a run, the later invocations last.

    Args:
        dag_id: the DAG.
        run_id: its run.
        states: state by task, if they are known already. One task builds the project; another that failed may have
            built its node by itself.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from airflow.sdk.execution_time.xcom import XCom

    if states is None:
        states = RuntimeTaskInstance.get_task_states(dag_id=dag_id, run_ids=[run_id]).get(run_id, {})
    found = []
    for task, state in (states or {}).items():
        name = task.rpartition(".")[2]
        if name in ("extract", "load") or not (str(state) == "failed" or name == _BUILD):
            continue
        summary = unpacked(XCom.get_one(key=KEY, dag_id=dag_id, task_id=task, run_id=run_id))
        if summary is not None:
            found.append(summary)
    return sorted(found, key=lambda summary: str(summary.get("generated_at")))
