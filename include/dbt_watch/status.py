"""The status of a build on its way from the worker to the triggerer: a few XComs of the build's task.

The two share no disk. `dbt_status` is the head, rewritten a few times a second at most: the build's id, how many parts
there are, whether it is final. Each part `dbt_status_1`, `_2`, … is written once and holds the outcomes that are new
since the part before. So what is written grows with the number of nodes and not with its square, and no value grows
large.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from include.dbt_watch.results import Board, Result, compiled_sql
from include.dbt_watch.verdict import Snapshot

KEY = "dbt_status"
"""XCom of the head; those of the parts are named after it."""

INTERVAL = 0.3
"""Seconds between two writes, at least."""

HEARTBEAT = 2.0
"""Seconds after which an unchanged head is written again, so that a reader can tell a live build from a dead one's."""

_PART = 200
"""Nodes per part, at most."""

_PART_SIZE = 200_000
"""Characters of a part after which the next one begins."""

_PATIENCE = 600.0
"""Seconds for which the last write is tried again while Airflow's API cannot be reached."""

_ABOUT_A_NODE = frozenset(
    {
        *("LogModelResult", "LogTestResult", "LogSnapshotResult", "LogSeedResult", "LogNodeNoOpResult"),
        *("LogStartLine", "LogSkipBecauseError", "SkippingDetails", "LogNodeResult", "LogBatchResult", "LogStartBatch"),
        *("RunResultError", "RunResultWarning", "RunResultFailure", "CheckNodeTestFailure", "JinjaLogInfo"),
    }
)
"""dbt's events whose text belongs into the log of a node."""

log = logging.getLogger(__name__)


def part(number: int) -> str:
    """XCom key of a part."""
    return f"{KEY}_{number}"


class Publisher:
    """Publishes what becomes of each node.

    dbt's threads only put events into a queue; a thread of its own does the rest.

    Args:
        build: id of this try of the build.
        board: takes the results.
        manifest: dbt's, for the compiled SQL.
        push: writes an XCom: key and value.
        last: no other try follows by itself, so that a failure is one.
        chosen: the run's form chose among the nodes.
        changed: called after each write, with the board; for what else is to be kept. May fail.
        live: write while dbt builds, in a thread beside it. Without, everything is written at the end.
    """

    def __init__(
        self,
        build: str,
        board: Board,
        manifest: Any,
        push: Callable[[str, Any], None],
        *,
        last: bool,
        chosen: bool,
        changed: Callable[[Board], None] = lambda _: None,
        live: bool = True,
    ) -> None:
        self.board = board
        self.writes = 0
        self.seconds = 0.0
        self._head: dict[str, Any] = {"build": build, "parts": 0, "beat": 0, "final": False, "last": last}
        self._head["chosen"] = chosen
        self._manifest = manifest
        self._push = push
        self._changed = changed
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._over = threading.Event()
        self._unsent: list[str] = list(board.outcomes)
        self._thread = threading.Thread(target=self._run, name="dbt-status", daemon=True) if live else None

    def __call__(self, event: Any) -> None:
        """A callback for dbt."""
        name = event.info.name
        if name == "NodeFinished" or name in _ABOUT_A_NODE:
            self._events.put(event)

    def __enter__(self) -> Publisher:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what is left. Without an exception the status is final."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._drain()
        if kind is None:
            self._unsent += self.board.close()
        deadline = time.monotonic() + (_PATIENCE if kind is None else 2 * HEARTBEAT)
        while True:
            try:
                self._write(final=kind is None)
            except Exception:
                if time.monotonic() > deadline:
                    if kind is None:
                        raise
                    log.warning("the status of the build could not be written", exc_info=True)
                    return
                log.warning("the status of the build could not be written; trying again", exc_info=True)
                time.sleep(HEARTBEAT)
            else:
                return

    def _run(self) -> None:
        written = 0.0
        while not self._over.wait(INTERVAL):
            if not self._drain() and time.monotonic() - written < HEARTBEAT:
                continue
            try:
                self._write()
            except Exception:
                log.warning("the status of the build could not be written; trying again", exc_info=True)
            written = time.monotonic()

    def _drain(self) -> bool:
        """Take what dbt has said; whether that settled a node."""
        before = len(self._unsent)
        while True:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return len(self._unsent) > before
            unique_id = _about(event)
            if not unique_id:
                continue
            if event.info.name != "NodeFinished":
                self.board.say(unique_id, event.info.msg)
            elif settled := self.board.add(_result(event.data)):
                self._unsent.append(settled)

    def _write(self, *, final: bool = False) -> None:
        """Write the parts that are missing, then the head that tells of them."""
        began = time.monotonic()
        while self._unsent:
            some: dict[str, dict[str, Any]] = {}
            taken = size = 0
            while taken < min(_PART, len(self._unsent)) and size < _PART_SIZE:
                node = self._unsent[taken]
                some[node] = self._document(node)
                size += len(str(some[node]))
                taken += 1
            self._push(part(self._head["parts"] + 1), some)
            self._head["parts"] += 1
            del self._unsent[:taken]
        self._push(KEY, {**self._head, "beat": self._head["beat"] + 1, "final": final})
        self._head["beat"] += 1
        self.writes += 1
        self.seconds += time.monotonic() - began
        try:
            self._changed(self.board)
        except Exception:
            log.warning("what this build has done could not be noted; a killed build would begin anew", exc_info=True)

    def _document(self, node: str) -> dict[str, Any]:
        """A node's outcome as it is published: without what dbt takes for a secret (`DBT_ENV_SECRET_…`)."""
        document = self.board.outcomes[node].document()
        if sql := compiled_sql(self._manifest, node):
            document["sql"] = _without_secrets(sql)
        if why := document.get("why"):
            document["why"] = _without_secrets(why)
        return document


def _without_secrets(text: str) -> str:
    from dbt_common.exceptions.base import env_secrets, scrub_secrets

    return str(scrub_secrets(text, env_secrets()))


def _about(event: Any) -> str:
    """The node that an event is about; empty if it is about none."""
    info = getattr(event.data, "node_info", None)
    return str(info.unique_id) if info is not None else ""


def _result(data: Any) -> Result:
    """A node's result from the event of its end."""
    result = data.run_result
    rows = None
    for name, value in result.adapter_response.fields.items() if result.HasField("adapter_response") else ():
        if name == "rows_affected" and value.HasField("number_value") and value.number_value >= 0:
            rows = int(value.number_value)
    message = str(result.message)
    return Result(str(data.node_info.unique_id), str(result.status), message, float(result.execution_time), rows)


@dataclass
class Reader:
    """Reads a build's status, again and again, only what is new.

    Attributes:
        nodes: outcome per node of the build that was read last.
    """

    nodes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _build: str | None = None
    _parts: int = 0
    _first: tuple[str, int] | None = None
    _watching: bool = False
    _alive: bool = False
    _paused: float = 0.0

    def missing(self, head: Mapping[str, Any] | None) -> list[str]:
        """Keys of the parts that have to be read for this head."""
        if head is None:
            return []
        if head["build"] != self._build:
            self._build, self._parts, self.nodes = head["build"], 0, {}
        return [part(number) for number in range(self._parts + 1, head["parts"] + 1)]

    def take(self, parts: list[Mapping[str, Mapping[str, Any]] | None]) -> bool:
        """Take the parts that `missing` named; whether all of them were there."""
        for each in parts:
            if each is None:
                return False
            self.nodes.update(each)
            self._parts += 1
        return True

    def snapshot(self, state: str | None, exists: bool, head: Mapping[str, Any] | None) -> Snapshot:
        """What is known now. A head is alive when it changed while this reader looked and the build's task ran."""
        mark = (str(head["build"]), int(head["beat"])) if head else None
        if not self._watching or state != "running":
            self._watching, self._first, self._alive = True, mark, False
        elif mark != self._first:
            self._alive = True
        return Snapshot(state, exists, head, self._alive, self.nodes)

    def pause(self) -> None:
        """Nobody looks for the time being."""
        self._paused = time.monotonic()

    def resume(self) -> None:
        """Somebody looks again. After a moment only, what was alive still is; a build ends and begins less quickly."""
        if time.monotonic() - self._paused > HEARTBEAT:
            self._watching = False
