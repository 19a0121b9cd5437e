"""What a node's task makes of the status of a build. Plain functions of plain values: no Airflow, no dbt.

Several builds may have run for one DAG run: the build was tried again, or somebody cleared it. A status is worth
something only if it is the one of the last of them, and a task that was cleared must not be answered twice by one
build:

- A status belongs to the build of its `build` id, which is new for each try of the build's task.
- While the build's task has not ended, a status counts only when it was seen to change ("alive"): another could have
  been left behind by a try that was killed or cleared. No clock is compared with another.
- Each task notes by which build it was answered; by that build it is not answered again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from include.dbt_watch.results import FAILED, LEFT_OUT, OK, SKIPPED

ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States of the build's task after which it does nothing more."""

BUILD_ALONE = "build alone"
"""The verdict that the task builds its node itself, in a worker."""

NO_BUILD = "none"
"""The build id of a build that never began."""


@dataclass(frozen=True)
class Snapshot:
    """What is known of the build of a run at a time.

    Attributes:
        state: state of the build's task, as Airflow tells it; None before it is scheduled.
        exists: whether the run has such a task.
        head: the status document, if there is one: `build`, `final`, `last`, `chosen`.
        alive: the document was seen to change while somebody looked.
        nodes: outcome per node, as documents.
    """

    state: str | None
    exists: bool
    head: Mapping[str, Any] | None
    alive: bool
    nodes: Mapping[str, Mapping[str, Any]]

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come."""
        return not self.exists or self.state in ENDED

    @property
    def build(self) -> str:
        """Id of the build that the document is of."""
        return str(self.head["build"]) if self.head else NO_BUILD


@dataclass(frozen=True)
class Verdict:
    """What a task does now.

    Attributes:
        what: `OK`, `FAILED`, `LEFT_OUT` (the task is skipped) or `BUILD_ALONE`.
        why: a sentence for the task's log.
        build: id of the build that the verdict is of.
    """

    what: str
    why: str
    build: str


def verdict(node: str, answered: str | None, seen: Snapshot) -> Verdict | None:
    """The verdict on a node's task, or None while it has to wait.

    Args:
        node: unique id of the node.
        answered: id of the build that has answered this task before it was cleared, if any has.
        seen: the build.
    """
    again = answered is not None and answered == seen.build
    if seen.head is not None and not again and (seen.ended or seen.alive):
        found = seen.nodes.get(node)
        outcome = found["outcome"] if found else None
        why = str(found.get("why", "")) if found else ""
        if outcome in (OK, LEFT_OUT):
            return Verdict(outcome, why, seen.build)
        # Otherwise the build's next try may mend it; and a skipped node is another try's, or its own task's.
        if outcome == FAILED and (seen.ended or seen.head["last"]):
            return Verdict(FAILED, why, seen.build)
        if outcome == SKIPPED and seen.ended:
            why = f"dbt skipped it ({why or 'a node before it failed'}), and what it depends on is fine by now"
            return Verdict(BUILD_ALONE, why, seen.build)
    if not seen.ended:
        return None
    return _without_a_result(again, seen)


def _without_a_result(again: bool, seen: Snapshot) -> Verdict:
    """The verdict when the build is over and has none for the node."""
    if not seen.exists:
        return Verdict(BUILD_ALONE, "there is no build in this run", seen.build)
    if seen.state == "skipped":
        return Verdict(LEFT_OUT, "the build was skipped; its log says why", seen.build)
    if again:
        return Verdict(BUILD_ALONE, "the task was cleared, and the build is over", seen.build)
    if seen.head is not None and seen.head["final"]:
        if seen.head["chosen"]:
            return Verdict(LEFT_OUT, "the form of this run chose other nodes", seen.build)
        why = "dbt's selection does not give it, though the DAG has it: is the manifest older than the project?"
        return Verdict(FAILED, why, seen.build)
    why = f"the build ended ({seen.state}) before this node had a result; see the log of the build"
    return Verdict(FAILED, why, seen.build)
