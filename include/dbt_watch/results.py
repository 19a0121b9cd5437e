"""From dbt's results, which come one by one, to one outcome per node that has a task.

A test belongs to the task of one node: that on which it is declared, else to the last one that is built of those it
reads, else to the source it reads. A node is `ok` when dbt has built it and all its tests that are in the build have
passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

BUILT = ("model", "seed", "snapshot")
"""Kinds of nodes that dbt builds and that have a task."""

WATCHED = (*BUILT, "source")
"""Kinds of nodes that have a task."""

OK, FAILED, SKIPPED, LEFT_OUT = "ok", "failed", "skipped", "left out"
"""What may become of a node: built and tested; not; not built because of another node; not wanted by the run's form."""

_FAILED = frozenset({"error", "fail", "runtime error", "partial success"})
_MESSAGE = 2_000
_SQL = 20_000
_LINES = 50


@dataclass(frozen=True)
class Result:
    """What dbt says about one node or test.

    Attributes:
        unique_id: of the node or test.
        status: dbt's word: `success`, `error`, `skipped`, `pass`, `fail`, `warn`, …
        message: dbt's.
        seconds: what it took.
        rows: rows that the statement changed, where the adapter tells.
    """

    unique_id: str
    status: str
    message: str = ""
    seconds: float = 0.0
    rows: int | None = None

    @property
    def failed(self) -> bool:
        """Whether dbt counts it as an error."""
        return self.status in _FAILED

    @property
    def done(self) -> bool:
        """Whether another try need not do it again."""
        return not self.failed and self.status != "skipped"


@dataclass
class Outcome:
    """What became of a node with its tests.

    Attributes:
        outcome: `OK`, `FAILED`, `SKIPPED` or `LEFT_OUT`.
        why: for anything but `OK`.
        seconds: what the node and its tests took.
        rows: rows that its statement changed, where the adapter tells.
        tests: number of its tests by dbt's status.
        lines: what dbt printed about it.
        sql: its compiled SQL.
    """

    outcome: str
    why: str = ""
    seconds: float = 0.0
    rows: int | None = None
    tests: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    sql: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON; what is empty is left away."""
        return {name: value for name, value in asdict(self).items() if value}


def owners(manifest: Any) -> dict[str, str]:
    """The node whose task answers for a test, by the unique id of the test.

    Args:
        manifest: dbt's `Manifest`.
    """
    depths: dict[str, int] = {}

    def depth(unique_id: str) -> int:
        pending = [unique_id]
        while pending:
            at = pending[-1]
            parents = _parents(manifest, at)
            missing = [each for each in parents if each not in depths]
            if missing:
                pending += missing
            else:
                depths[at] = 1 + max((depths[each] for each in parents), default=0)
                pending.pop()
        return depths[unique_id]

    found = {}
    tests = [node for node in manifest.nodes.values() if str(node.resource_type) == "test"]
    for test in [*tests, *manifest.unit_tests.values()]:
        parents = [each for each in test.depends_on.nodes if each.split(".")[0] in WATCHED]
        declared = getattr(test, "attached_node", None) or getattr(test, "tested_node_unique_id", None)
        if parents:
            found[str(test.unique_id)] = str(declared) if declared in parents else max(parents, key=depth)
    return found


def _parents(manifest: Any, unique_id: str) -> list[str]:
    """What a node reads."""
    node = manifest.nodes.get(unique_id)
    return list(node.depends_on.nodes) if node is not None else []


class Board:
    """What is known of a build, and which nodes are settled by it.

    Args:
        owners: node by test, as `owners()` gives it.
        done: what an earlier try of the same build has done: its nodes and tests count as passed.
        selected: nodes and tests that are in the build, if that is known. Tests outside hold no node back.
    """

    def __init__(
        self, owners: Mapping[str, str], done: Iterable[str] = (), selected: Iterable[str] | None = None
    ) -> None:
        self.results: dict[str, Result] = {}
        self.strays: list[Result] = []
        self.outcomes: dict[str, Outcome] = {}
        self._owners = owners
        self._tests: dict[str, list[str]] = {}
        for test, node in owners.items():
            self._tests.setdefault(node, []).append(test)
        known = None if selected is None else set(selected)
        self._open = {
            node: {test for test in tests if known is None or test in known} for node, tests in self._tests.items()
        }
        self._lines: dict[str, list[str]] = {}
        for unique_id in done:
            self.add(Result(unique_id, "success", "built by an earlier try"))

    @property
    def done(self) -> set[str]:
        """Nodes and tests that another try need not do again."""
        return {unique_id for unique_id, result in self.results.items() if result.done}

    def say(self, unique_id: str, line: str) -> None:
        """Keep a line that dbt printed about a node or test."""
        lines = self._lines.setdefault(self._owners.get(unique_id, unique_id), [])
        if len(lines) < _LINES:
            lines.append(line[:_MESSAGE])

    def add(self, result: Result) -> str | None:
        """Take a result; the node that it settles, if it settles one."""
        kind = result.unique_id.split(".")[0]
        self.results[result.unique_id] = result
        node = self._owners.get(result.unique_id) if kind in ("test", "unit_test") else result.unique_id
        if node is None or node.split(".")[0] not in WATCHED:
            if result.failed:
                self.strays.append(result)
            return None
        if kind in ("test", "unit_test"):
            self._open[node].discard(result.unique_id)
        return self._settle(node)

    def leave_out(self, unique_id: str, outcome: str, why: str) -> None:
        """Settle a node without dbt."""
        self.outcomes[unique_id] = Outcome(outcome, why)

    def close(self) -> list[str]:
        """The build is over: tests that were not in it no longer hold their node back. Nodes that this settles."""
        open_nodes = {*self.results, *(self._owners.get(each, each) for each in self.results)} - set(self.outcomes)
        watched = sorted(node for node in open_nodes if node.split(".")[0] in WATCHED)
        return [node for node in watched if self._settle(node, over=True)]

    def _settle(self, node: str, *, over: bool = False) -> str | None:
        own = self.results.get(node)
        tests = [self.results[test] for test in self._tests.get(node, ()) if test in self.results]
        failed = next((test for test in tests if test.failed), None)
        built = own is not None or node.startswith("source.")
        if own is not None and own.failed:
            outcome, why = FAILED, own.message
        elif failed is not None:
            outcome, why = FAILED, f"{failed.unique_id}: {failed.message or failed.status}"
        elif own is not None and own.status == "skipped":
            outcome, why = SKIPPED, own.message or "dbt skipped it"
        elif built and (over or not self._open.get(node)):
            outcome, why = OK, ""
        else:
            return None
        if node in self.outcomes and self.outcomes[node].outcome == outcome:
            return None
        counts: dict[str, int] = {}
        for test in tests:
            counts[test.status] = counts.get(test.status, 0) + 1
        self.outcomes[node] = Outcome(
            outcome,
            why[:_MESSAGE],
            round(sum(each.seconds for each in (*tests, *([own] if own else []))), 3),
            own.rows if own else None,
            counts,
            self._lines.pop(node, []),
        )
        return node


def compiled_sql(manifest: Any, unique_id: str) -> str:
    """The SQL that dbt made of a node; empty for what has none."""
    node = manifest.nodes.get(unique_id)
    return str(getattr(node, "compiled_code", None) or "")[:_SQL]
