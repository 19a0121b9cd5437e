"""What is wrong now: each cause once, since when, whose it is, what it holds up, and what to do."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from include.elt.alerts.causes import WHAT_TO_DO, Alert
from include.elt.alerts.deadlines import span
from include.elt.alerts.silences import Silence, SilenceError, read_silences, silenced
from plugins.data_platform.answers import Completeness, Node, Problem, Stream, Streams

if TYPE_CHECKING:
    from plugins.data_platform.metadata import Metadata

_NAMES = 20
"""Names of what a problem holds up that are told."""

_BUILT = ("model", "snapshot", "seed")
Severity = Literal["failed", "warning"]

_DIFFERS = "Find out which rows differ; a full refresh brings the table in line with its source."
_UNUSUAL = "Find out whether the source has really changed that much; its raw table is what the source had."
_MART = "Look at the raw tables that it reads, and at the last change of the model."
_APPROVE = "Answer the question under Required actions of the run; until then the load waits."


def find_problems(
    metadata: Metadata, loaded: Streams, graph: Iterable[Node], sizes: Iterable[Completeness] = ()
) -> list[Problem]:
    """The problems of streams and nodes that were read, the worst first.

    Args:
        metadata: asked when the runs began in which a stream failed.
        loaded: the streams.
        graph: the nodes of dbt.
        sizes: rows of the tables; those of marts are looked at here, a stream knows its own.
    """
    nodes = list(graph)
    after = _Downstream(nodes)
    begun = _failing_since(metadata, loaded.streams)
    found = [problem for stream in loaded.streams for problem in _of_stream(stream, begun.get(stream.table), after)]
    found += [problem for node in nodes for problem in _of_node(node, after)]
    tables = {stream.table for stream in loaded.streams}
    found += [_of_mart(each, after) for each in sizes if each.unusual and each.table not in tables]
    explained = {problem.dag_id for problem in found if problem.severity == "failed"}
    for run in loaded.runs:
        if run.state == "failed" and run.dag_id not in explained:
            why = "The last run failed, and no stream or model is the reason."
            more: dict[str, Any] = {"run_id": run.run_id, "since": run.ended_at}
            found.append(_problem("failed", "failed run", run.dag_id, run.dag_id, why, **more))
    silences = _silences()
    for problem in found if silences else ():
        silence = silenced(_alert(problem), silences)
        problem.silenced_until = silence.until if silence else None
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(found, key=lambda each: (each.severity != "failed", -each.held_up, each.since or never, each.subject))


def _problem(severity: Severity, kind: str, subject: str, dag_id: str, text: str, **more: Any) -> Problem:
    what = {"what_to_do": WHAT_TO_DO.get(kind, "")} | more
    return Problem(severity=severity, kind=kind, subject=subject, dag_id=dag_id, text=text, **what)


def _of_stream(stream: Stream, begun: datetime | None, after: _Downstream) -> Iterator[Problem]:
    """What is wrong with a stream."""
    name, dag_id = stream.stream, stream.dag_id
    of: dict[str, Any] = {"target": stream.table, "owner": stream.owner, "run_id": stream.run_id, "since": begun}
    ill = stream.status in ("failed", "needs approval") or stream.freshness in ("late", "stale")
    held = after.of(stream.table) if ill else {}
    if stream.status == "failed":
        kind = stream.problem_kind if stream.problem_kind in WHAT_TO_DO else "failed stream"
        text = stream.problem or "The task ended without a message of ours: killed, or an error in the code."
        yield _problem("failed", str(kind), name, dag_id, text, **of | held, task_id=stream.failed_task)
    if stream.status == "retrying":
        text = stream.problem or "A task failed and is tried again."
        yield _problem("warning", "failed stream", name, dag_id, text, **of, task_id=stream.load_task)
    if stream.status == "needs approval":
        text = "The source has other columns than the raw table; somebody has to say whether it may get them."
        more = of | held | {"task_id": stream.load_task, "what_to_do": _APPROVE}
        yield _problem("warning", "needs approval", name, dag_id, text, **more)
    if stream.freshness in ("late", "stale") and stream.loaded_at is not None:
        limit = timedelta(seconds=stream.late_after or stream.stale_after or 0)
        severity: Severity = "failed" if stream.freshness == "stale" else "warning"
        more = of | held | {"since": stream.loaded_at + limit, "task_id": stream.load_task}
        yield _problem(severity, "missed deadline", name, dag_id, _late("Loaded", stream.loaded_at, limit), **more)
    of |= {"run_id": stream.loaded_by, "since": stream.loaded_at, "task_id": stream.load_task}
    if stream.rejected:
        text = f"{stream.rejected:,} of {stream.rows_read or 0:,} rows do not fit the contract and were set aside."
        yield _problem("warning", "rejected rows", name, dag_id, text, **of)
    if stream.schema_change:
        yield _problem("warning", "schema change", name, dag_id, f"{stream.table}: {stream.schema_change}.", **of)
    if stream.unusual:
        more = of | {"what_to_do": _UNUSUAL}
        yield _problem("warning", "unusual size", name, dag_id, f"{stream.table} {stream.unusual}.", **more)
    if stream.verdict == "differs":
        text = f"Source and raw table differ by {stream.difference:,} rows."
        more = of | {"what_to_do": _DIFFERS}
        yield _problem("warning", "reconciliation", name, dag_id, text, **more)


def _of_mart(mart: Completeness, after: _Downstream) -> Problem:
    """That a mart grew or shrank unusually, or is gone."""
    of: dict[str, Any] = {"target": mart.target, "owner": mart.owner, "since": mart.counted_at, "what_to_do": _MART}
    text = f"{mart.table} {mart.unusual}."
    return _problem("warning", "unusual size", mart.table, mart.dag_id, text, **of | after.of(mart.target))


def _of_node(node: Node, after: _Downstream) -> Iterator[Problem]:
    """What is wrong with a node of dbt."""
    of: dict[str, Any] = {"target": node.id, "owner": node.owner, "run_id": node.run_id, "since": node.built_at}
    of["task_id"] = node.task_id
    ill = node.status == "failed" or node.failed_tests
    failing = of | (after.of(node.id) if ill else {}) | {"since": node.failing_since or node.built_at}
    if node.status == "failed" and node.type in _BUILT:
        text = node.message or "dbt could not build it."
        yield _problem("failed", "failed model", node.name, node.dag_id, text, **failing)
    lines: dict[str, list[str]] = {}
    for test in node.failed_tests:
        lines.setdefault(test.status, []).append(f"{test.name}: {test.message or test.failures}")
    if told := lines.get("failed"):
        yield _problem("failed", "failed test", node.name, node.dag_id, "\n".join(told), **failing)
    if told := lines.get("warn"):
        yield _problem("warning", "failed test", node.name, node.dag_id, "\n".join(told), **of)
    if node.freshness == "late" and node.built_at is not None and node.late_after:
        limit = timedelta(seconds=node.late_after)
        more = of | {"since": node.built_at + limit}
        text = _late("Built", node.built_at, limit)
        yield _problem("warning", "missed deadline", node.name, node.dag_id, text, **more)


def _late(word: str, at: datetime, limit: timedelta) -> str:
    return f"{word} last at {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC; it may be {span(limit.total_seconds())} old."


def _failing_since(metadata: Metadata, streams: Iterable[Stream]) -> dict[str, datetime]:
    """Begin of the first run after the last good load, by raw table of streams that are not well."""
    ill = {
        each.table: (each.dag_id, each.loaded_at)
        for each in streams
        if each.loaded_at is not None and each.status in ("failed", "retrying", "needs approval")
    }
    if not ill:
        return {}
    starts = metadata.starts({dag_id for dag_id, _ in ill.values()}, min(at for _, at in ill.values()))
    by_dag: dict[str, list[datetime]] = {}
    for dag_id, at in starts:
        by_dag.setdefault(dag_id, []).append(at)
    found: dict[str, datetime] = {}
    for table, (dag_id, loaded_at) in ill.items():
        begun = by_dag.get(dag_id, [])
        place = bisect_right(begun, loaded_at)
        if place < len(begun):
            found[table] = begun[place]
    return found


class _Downstream:
    """What comes after a node or raw table: models that wait for it, and who looks at them."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = {node.id: node for node in nodes}
        self._children: dict[str, list[str]] = {}
        self._by_table: dict[str, str] = {}
        for node in self._nodes.values():
            for parent in node.depends_on:
                self._children.setdefault(parent, []).append(node.id)
            if node.type == "source" and node.relation:
                self._by_table[node.relation] = node.id

    def of(self, target: str) -> dict[str, Any]:
        """Names and number of what comes after a raw table or node."""
        edge, seen = [self._by_table.get(target, target)], set()
        while edge:
            edge = [child for each in edge for child in self._children.get(each, ()) if child not in seen]
            seen.update(edge)
        found = sorted((self._nodes[each] for each in seen), key=lambda node: (node.type != "exposure", node.name))
        return {"held_up": len(found), "holds_up": [node.name for node in found[:_NAMES]]}


def _alert(problem: Problem) -> Alert:
    """The alert that tells of it, for the silences."""
    names = (problem.subject, problem.dag_id, problem.run_id or "", problem.owner or "")
    return Alert(problem.kind, *names, problem.text)  # type: ignore[arg-type]


def _silences() -> list[Silence]:
    try:
        return read_silences()
    except SilenceError:  # `make check` tells it, and so does the sender of alerts
        return []
