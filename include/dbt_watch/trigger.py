"""The trigger that ends a node's task. All nodes of a run share one poll loop in the triggerer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import (
    BaseEventTrigger,
    TaskFailedEvent,
    TaskSkippedEvent,
    TaskSuccessEvent,
    TriggerEvent,
)

from include.dbt_watch.results import FAILED, LEFT_OUT, OK
from include.dbt_watch.status import KEY, Reader
from include.dbt_watch.verdict import BUILD_ALONE, Snapshot, Verdict, verdict

ANSWERED = "dbt_build"
"""XCom of a node's task: the build that has answered it."""

OUTCOME = "dbt_outcome"
"""XCom of a node's task: what became of the node, without log and SQL."""

POLL = 0.3
"""Seconds between two looks at the status."""

_KEPT = 64
"""Runs whose status is remembered while none of their tasks waits."""

_readers: OrderedDict[tuple[str, str, str], Reader] = OrderedDict()
_seen: dict[tuple[str, str, str], Snapshot] = {}
"""The last look per run that is looked at: a task that joins late need not wait for a change."""

_last_watched = float("-inf")
"""When a trigger was made, or a poll loop ended, for the last time."""

log = logging.getLogger(__name__)


def reader_of(run: tuple[str, str, str]) -> Reader:
    """The reader of a run's status; the oldest ones are forgotten."""
    reader = _readers.setdefault(run, Reader())
    _readers.move_to_end(run)
    while len(_readers) > _KEPT:
        _readers.popitem(last=False)
    return reader


def seconds_since_watched() -> float:
    """Seconds since a task last waited in this process for what becomes of its node; 0 while one does.

    A task that is answered at once counts as well, though nobody can see it wait: what follows it is about to come.
    """
    return 0.0 if _seen else time.monotonic() - _last_watched


def _watched() -> None:
    global _last_watched
    _last_watched = time.monotonic()


async def look(run: tuple[str, str, str], reader: Reader) -> Snapshot:
    """One look at the build of a run, through the triggerer's own connection to Airflow.

    Args:
        run: DAG id, run id, task id of the build.
        reader: keeps what was read before.
    """
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import GetTaskStates

    dag_id, run_id, build = run
    question = GetTaskStates(dag_id=dag_id, task_ids=[build], run_ids=[run_id])
    # First the state, then the status: so the status of a build that has ended is its last.
    states = getattr(await task_runner.SUPERVISOR_COMMS.asend(question), "task_states", None) or {}
    mine = states.get(run_id, {})

    async def read(key: str) -> Any:
        return await BaseXCom.aget_one(key=key, dag_id=dag_id, task_id=build, run_id=run_id)

    head = await read(KEY)
    if keys := reader.missing(head):
        parts = [await read(key) for key in keys]
        if not reader.take(parts):
            head = None  # cleared while it was read
    return reader.snapshot(mine.get(build), build in mine, head)


class DbtNodeTrigger(BaseEventTrigger):
    """Waits for what becomes of one node, and ends its task.

    Only a `BaseEventTrigger` may share a stream, which is why this is one.

    Args:
        node: unique id of the dbt node.
        build: task id of the build.
        dag_id: set by `serialize`, for the stream; a task's trigger has it from its task instance.
        run_id: likewise.
    """

    def __init__(self, node: str, build: str, dag_id: str | None = None, run_id: str | None = None) -> None:  # noqa: ARG002
        super().__init__()  # type: ignore[no-untyped-call]
        self.node = node
        self.build = build
        _watched()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """For Airflow; the stream is opened with these."""
        dag_id, run_id, build = self._run
        kwargs = {"node": self.node, "build": build, "dag_id": dag_id, "run_id": run_id}
        return (f"{type(self).__module__}.{type(self).__qualname__}", kwargs)

    @property
    def _run(self) -> tuple[str, str, str]:
        ti: Any = self.task_instance
        return (str(ti.dag_id), str(ti.run_id), self.build)

    def shared_stream_key(self) -> tuple[str, ...]:
        """The nodes of one run share one poll loop."""
        return ("dbt_watch", *self._run)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Snapshot]:
        """The poll loop: yields when something changed."""
        run = (kwargs["dag_id"], kwargs["run_id"], kwargs["build"])
        reader = reader_of(run)
        reader.resume()
        errors = 0
        last: tuple[Any, ...] | None = None
        try:
            while True:
                try:
                    seen = await look(run, reader)
                    errors = 0
                except Exception:
                    errors += 1
                    log.warning("the status of %s cannot be read (%s times)", run, errors, exc_info=errors == 1)
                    await asyncio.sleep(min(10.0, POLL * 2 ** min(errors, 6)))
                    continue
                _seen[run] = seen
                mark = (seen.state, seen.exists, seen.alive, seen.build, len(seen.nodes), *_flags(seen))
                if mark != last:
                    last = mark
                    yield seen
                await asyncio.sleep(POLL)
        finally:
            reader.pause()
            _seen.pop(run, None)
            _watched()

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Snapshot]) -> AsyncIterator[TriggerEvent]:
        """This node's end, from what all the run's nodes see."""
        answered = await self._answered()
        if (seen := _seen.get(self._run)) and (event := self._event(answered, seen)):
            yield event
            return
        async for seen in shared_stream:
            if event := self._event(answered, seen):
                yield event
                return

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The same with a poll loop of its own; Airflow takes the shared one."""
        answered, reader = await self._answered(), Reader()
        while not (event := self._event(answered, await look(self._run, reader))):
            await asyncio.sleep(POLL)
        yield event

    async def _answered(self) -> str | None:
        """The build that has answered this task before it was cleared; on its first try there is none to ask for."""
        ti: Any = self.task_instance
        if ti.try_number <= 1:
            return None
        from airflow.sdk.bases.xcom import BaseXCom

        found = await BaseXCom.aget_one(key=ANSWERED, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id)
        # What a trigger leaves with its task's end is encoded twice in Airflow 3.3: the id comes with its quotes.
        return None if found is None else str(found).strip('"')

    def _event(self, answered: str | None, seen: Snapshot) -> TriggerEvent | None:
        found = verdict(self.node, answered, seen)
        if found is None:
            return None
        outcome = dict(seen.nodes.get(self.node, {}))
        self._tell(found, outcome)
        if found.what == BUILD_ALONE:
            return TriggerEvent({"why": found.why, "build": found.build})  # type: ignore[no-untyped-call]
        short = {name: value for name, value in outcome.items() if name not in ("lines", "sql")}
        xcoms: dict[str, Any] = {ANSWERED: found.build, **({OUTCOME: short} if short else {})}
        ends = {OK: TaskSuccessEvent, FAILED: TaskFailedEvent, LEFT_OUT: TaskSkippedEvent}
        return ends[found.what](xcoms=xcoms)

    def _tell(self, found: Verdict, outcome: dict[str, Any]) -> None:
        """Into the log of the node's task: what dbt printed, what it ran, what became of it."""
        for line in excerpt(self.node, found, outcome):
            (self.log.error if found.what == FAILED else self.log.info)("%s", line)


def _flags(seen: Snapshot) -> tuple[Any, ...]:
    return (seen.head["final"], seen.head["last"]) if seen.head else ()


def excerpt(node: str, found: Verdict, outcome: dict[str, Any]) -> list[str]:
    """The log of a node's task, as a few entries.

    Args:
        node: unique id.
        found: the verdict.
        outcome: the node's outcome as a document; empty if there is none.
    """
    entries = ["\n".join(outcome["lines"])] if outcome.get("lines") else []
    if sql := outcome.get("sql"):
        entries.append(f"compiled SQL:\n{sql}")
    tests = ", ".join(f"{count} {status}" for status, count in sorted(outcome.get("tests", {}).items()))
    facts = [found.what, f"{outcome.get('seconds', 0.0):.2f} s in dbt"] if outcome else [found.what]
    if outcome.get("rows") is not None:
        facts.append(f"{outcome['rows']:,} rows")
    if tests:
        facts.append(f"tests: {tests}")
    entries.append(f"{node}: {', '.join(facts)}" + (f"\n{found.why}" if found.why else ""))
    return entries
