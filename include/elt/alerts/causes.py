"""What is wrong with a run that has ended: its causes, not their consequences. Pure functions on what the run told.

A failed extraction makes its load, its models, their tests and the run fail; the one thing to tell is the extraction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal[
    "failed stream",
    "schema change",
    "reconciliation",
    "rejected rows",
    "failed model",
    "failed test",
    "failed run",
    "missed deadline",
    "report",
]

MOST = 20
"""Alerts of one run; what is more becomes one alert that counts the others."""

_TEXT = 1500

WHAT_TO_DO: dict[str, str] = {
    "failed stream": "The raw table is as before. Read the message; when its reason is mended, clear the stream's"
    " task extract.",
    "schema change": "Compare the contract (sources.yml) with the source; meta.on_schema_change says what a load does"
    " about a difference.",
    "reconciliation": "The load was rolled back. Find out which rows differ; clear the stream's task extract to count"
    " again.",
    "rejected rows": "Look into rejects.jsonl of the extraction; mend the rows at the source or the contract.",
    "failed model": "Mend the model and clear its task; what depends on it was not built.",
    "failed test": "Look at the rows that the test found; what depends on the model was not built.",
    "failed run": "Read the logs of the failed tasks, and clear them when the reason is mended.",
    "report": "Open the page Data platform: what is wrong stands first.",
    "missed deadline": "Look at the run that had to be done: what it waits for, or why it failed. If there is none,"
    " look whether the DAG is paused and the scheduler runs.",
}
"""One or two sentences by kind of alert."""


@dataclass(frozen=True)
class Alert:
    """One message.

    Attributes:
        kind: what it is about.
        subject: the stream, model or DAG.
        dag_id: the DAG.
        run_id: its run.
        owner: who has to look at it.
        text: what happened.
        task_id: the task whose log says more, if there is one.
    """

    kind: Kind
    subject: str
    dag_id: str
    run_id: str
    owner: str
    text: str
    task_id: str | None = None

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.kind}: {self.subject} ({self.dag_id})"

    @property
    def what_to_do(self) -> str:
        """One or two sentences."""
        return WHAT_TO_DO.get(self.kind, "")

    def as_dict(self, link: str) -> dict[str, Any]:
        """The body that the generic webhook gets."""
        return asdict(self) | {"title": self.title, "what_to_do": self.what_to_do, "link": link}


@dataclass(frozen=True)
class Ended:
    """What a run told.

    Attributes:
        dag_id: the DAG.
        run_id: its run.
        failed: whether Airflow takes it as failed.
        reason: Airflow's word for it.
        states: state by task.
        owners: owner by task.
        problems: XCom `problem` by task.
        loads: what load tasks returned, by task.
        results: summaries of dbt (include/elt/results.py), the later ones last.
    """

    dag_id: str
    run_id: str
    failed: bool
    reason: str
    states: Mapping[str, str]
    owners: Mapping[str, str]
    problems: Mapping[str, Mapping[str, str]]
    loads: Mapping[str, Mapping[str, Any]]
    results: Sequence[Mapping[str, Any]]


def causes(run: Ended) -> list[Alert]:
    """The alerts of a run: one for each stream and model that something is wrong with.

    Returns:
        Failed streams, noteworthy loads, failed models and tests; or the run itself where none of them explains it.
    """
    found = [*_streams(run), *_loads(run), *_nodes(run)]
    explained = [
        each for each in found if each.kind not in ("rejected rows", "schema change") or each.task_id in run.problems
    ]
    if run.failed and (not explained or run.reason == "timed_out"):
        failed = sorted(task for task, state in run.states.items() if state == "failed")
        listed = ", ".join(failed[:10]) + (f" and {len(failed) - 10} more" if len(failed) > 10 else "")
        text = f"The run failed ({run.reason or 'no reason given'}). Failed tasks: {listed or 'none'}."
        owner = next((run.owners[task] for task in failed if task in run.owners), _owner(run))
        found.append(
            Alert("failed run", run.dag_id, run.dag_id, run.run_id, owner, text, failed[0] if failed else None)
        )
    if len(found) > MOST:
        left = found[MOST - 1 :]
        text = f"{len(left)} more: " + ", ".join(f"{each.kind} {each.subject}" for each in left)
        found = [*found[: MOST - 1], Alert("failed run", run.dag_id, run.dag_id, run.run_id, _owner(run), text[:_TEXT])]
    return found


def _owner(run: Ended) -> str:
    return next(iter(run.owners.values()), "data-platform")


def _streams(run: Ended) -> Iterable[Alert]:
    """Extract and load tasks that failed; one alert per stream, for the first of its two tasks."""
    told = set()
    for task, state in sorted(run.states.items()):
        group, _, name = task.rpartition(".")
        if state != "failed" or name not in ("extract", "load") or not group or group in told:
            continue
        told.add(group)
        problem = run.problems.get(task, {})
        kind = problem.get("kind")
        text = problem.get("text") or "The task ended without a message of ours: killed, or an error in the code."
        yield Alert(
            kind if kind in ("schema change", "reconciliation") else "failed stream",  # type: ignore[arg-type]
            group.rpartition(".")[2],
            run.dag_id,
            run.run_id,
            run.owners.get(task, _owner(run)),
            text[:_TEXT],
            task,
        )


def _loads(run: Ended) -> Iterable[Alert]:
    """Loads that were committed, and that somebody should know of all the same."""
    for task, told in sorted(run.loads.items()):
        where = (run.dag_id, run.run_id, str(told.get("owner") or run.owners.get(task, _owner(run))))
        stream = str(told.get("stream") or task)
        if told.get("repeated"):
            continue
        if rejected := int(told.get("rows_rejected") or 0):
            text = (
                f"{rejected:,} of {int(told.get('rows_read') or 0):,} rows do not fit the contract and were set aside."
            )
            yield Alert("rejected rows", stream, *where, text, task)
        if change := told.get("schema_change"):
            yield Alert("schema change", stream, *where, f"{told.get('table', stream)}: {change}."[:_TEXT], task)


def _nodes(run: Ended) -> Iterable[Alert]:
    """Models that failed or whose tests did; as the last invocation that had them left them."""
    latest: dict[str, Mapping[str, Any]] = {}
    for summary in run.results:
        latest |= {str(node["id"]): node for node in summary.get("nodes", [])}
    mended = {task.rpartition(".")[2] for task, state in run.states.items() if state == "success"}
    for node in latest.values():
        if node["name"] in mended:  # its own task has built it again since
            continue
        where = (run.dag_id, run.run_id, str(node.get("owner") or _owner(run)))
        task = next((task for task in sorted(run.states) if task.rpartition(".")[2] == node["name"]), None)
        if node.get("status") == "failed":
            text = str(node.get("message") or "dbt could not build it.")
            yield Alert("failed model", str(node["name"]), *where, text, task)
            continue
        failed = [test for test in node.get("failed_tests", []) if test.get("status") == "failed"]
        if failed:
            lines = [f"{test['name']}: {test.get('message') or test.get('failures')}" for test in failed]
            yield Alert("failed test", str(node["name"]), *where, "\n".join(lines)[:_TEXT], task)
