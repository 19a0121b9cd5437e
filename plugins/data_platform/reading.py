"""The read model: what the metadata database holds, as the streams and models that people know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from include.elt.completeness import GONE, compared_with, unusual, usual
from include.elt.freshness import seconds_of
from plugins.data_platform.answers import (
    Completeness,
    CompletenessOfAll,
    FailedTest,
    Freshness,
    Lineage,
    Load,
    Loads,
    Models,
    Node,
    NodeStatus,
    Overview,
    Problems,
    Run,
    State,
    Stream,
    Streams,
    StreamStatus,
    Verdict,
)
from plugins.data_platform.metadata import (
    HISTORY,
    LIMIT,
    TRENDS,
    Count,
    Event,
    LastRun,
    Metadata,
    Results,
    Sizes,
    Table,
)
from plugins.data_platform.problems import find_problems

_RUNNING = frozenset({"running", "queued", "scheduled", "deferred", "up_for_reschedule", "restarting"})
_BUILT = ("model", "snapshot", "seed")


def streams(metadata: Metadata, now: datetime | None = None) -> Streams:
    """Every stream that the user may see, by raw table.

    Args:
        metadata: the database, and what of it is asked for.
        now: the time at which freshness is judged.
    """
    now = now or datetime.now(UTC)
    tables = metadata.tables()
    rows = metadata.history()
    latest = metadata.latest()
    runs = metadata.last_runs(table.dag_id for table in tables)
    states = metadata.task_states(runs.values())
    problems = metadata.problems(runs.values())
    found = [
        _stream(
            table,
            latest.get(table.asset_id),
            rows.get(table.asset_id, []),
            metadata.counts.get(table.name),
            runs,
            states,
            problems,
            now,
        )
        for table in tables
    ]
    return Streams(now=now, total=len(found), streams=found, runs=[_run(run) for run in runs.values()])


def models(metadata: Metadata, now: datetime | None = None) -> Models:
    """Models, snapshots, seeds and the sources with tests, as dbt left them in the last run that built them."""
    now = now or datetime.now(UTC)
    return _shown_models(nodes(metadata, now), now)


def _shown_models(graph: list[Node], now: datetime) -> Models:
    found = [node for node in graph if node.type in _BUILT or node.tests]
    return Models(now=now, total=len(found), models=found[:LIMIT])


def lineage(metadata: Metadata, focus: str | None, depth: int, now: datetime | None = None) -> Lineage:
    """The graph from sources to exposures, or what lies around one node of it.

    Args:
        metadata: the database.
        focus: id of a node, or the name of a raw table.
        depth: steps that are followed from it, up and down.
        now: the time at which freshness is judged.
    """
    now = now or datetime.now(UTC)
    graph = {node.id: node for node in nodes(metadata, now)}
    total = len(graph)
    if focus is not None:
        start = {each for each, node in graph.items() if focus in (each, node.relation, node.name)}
        graph = {each: graph[each] for each in _around(graph, start, depth)}
    return Lineage(now=now, total=total, nodes=list(graph.values())[:LIMIT])


def problems(metadata: Metadata, now: datetime | None = None) -> Problems:
    """What is wrong, the worst first."""
    now = now or datetime.now(UTC)
    found = state(metadata, now).problems
    return Problems(now=now, total=len(found), problems=found)


def state(metadata: Metadata, now: datetime | None = None) -> State:
    """All that the page shows."""
    now = now or datetime.now(UTC)
    loaded, graph = streams(metadata, now), nodes(metadata, now)[:LIMIT]
    sizes = _sizes(metadata, loaded.streams, graph)
    wrong = find_problems(metadata, loaded, graph, sizes)
    return State(now=now, streams=loaded.streams, nodes=graph, completeness=sizes, runs=loaded.runs, problems=wrong)


def overview(metadata: Metadata, now: datetime | None = None) -> Overview:
    """The figures of the page's head."""
    now = now or datetime.now(UTC)
    of = state(metadata, now)
    built = _shown_models(of.nodes, now)
    tests = [count for node in built.models for count in node.tests.items()]
    return Overview(
        now=now,
        problems=len(of.problems),
        streams=len(of.streams),
        streams_failed=sum(each.status == "failed" for each in of.streams),
        streams_late=sum(each.freshness in ("late", "stale") for each in of.streams),
        rows_rejected=sum(each.rejected or 0 for each in of.streams),
        rows_last_loads=sum(each.rows or 0 for each in of.streams),
        models=sum(each.type in _BUILT for each in built.models),
        models_failed=sum(each.status == "failed" for each in built.models),
        tests=sum(count for _, count in tests),
        tests_failed=sum(count for status, count in tests if status == "failed"),
        runs=of.runs,
    )


def completeness(metadata: Metadata, now: datetime | None = None) -> CompletenessOfAll:
    """How many rows the raw tables and marts have, beside what is usual."""
    now = now or datetime.now(UTC)
    found = _sizes(metadata, streams(metadata, now).streams, nodes(metadata, now)[:LIMIT])
    return CompletenessOfAll(now=now, total=len(found), tables=found)


def _sizes(metadata: Metadata, loaded: Iterable[Stream], graph: Iterable[Node]) -> list[Completeness]:
    """Rows of each raw table that was ever loaded, and of each mart that was counted."""
    found = []
    for stream in loaded:
        count = metadata.counts.get(stream.table)
        size = _size(count, stream.loaded_at, stream.totals)
        if stream.loaded_at is not None or (count is not None and count.rows is not None):
            what = {"table": stream.table, "target": stream.table, "dag_id": stream.dag_id, "owner": stream.owner}
            updated_at = stream.loaded_at or (count.updated_at if count else None)
            found.append(Completeness(**what, **size, updated_at=updated_at))
    for node in graph:
        count = metadata.counts.get(f"marts.{node.name}") if node.type == "model" and "mart" in node.tags else None
        if count is not None and (count.rows is not None or count.before):
            what = {"table": f"marts.{node.name}", "target": node.id, "dag_id": node.dag_id, "owner": node.owner}
            found.append(Completeness(**what, **_size(count, None, []), updated_at=count.updated_at))
    return found


def _size(count: Count | None, loaded_at: datetime | None, totals: Sequence[int | None]) -> dict[str, Any]:
    """Rows of a table, and what they are compared with.

    Args:
        count: what was counted of it.
        loaded_at: its last load.
        totals: its rows after its last loads, the newest first.
    """
    rows = totals[0] if totals else None
    days: Sequence[int] = ()
    gone = False
    if count is not None:
        days = count.before
        if loaded_at is None or count.at >= loaded_at:
            rows, gone = count.rows, count.rows is None and bool(totals or days)
        elif count.rows is not None:
            days = (count.rows, *days)
    before = list(compared_with(days, [total for total in totals[1:HISTORY] if total is not None]))
    return {
        "rows": rows,
        "rows_usual": usual(before),
        "unusual": GONE if gone else unusual(rows, before) if rows is not None else None,
        "before": before,
        "counted_at": count.at if count else None,
    }


def freshness(at: datetime | None, late_after: int | None, stale_after: int | None, now: datetime) -> Freshness:
    """How fresh something is that was renewed at a time, by two limits in seconds."""
    if late_after is None and stale_after is None:
        return "unknown"
    if at is None:
        return "unknown"
    age = (now - at).total_seconds()
    if stale_after is not None and age > stale_after:
        return "stale"
    return "late" if late_after is not None and age > late_after else "fresh"


def _stream(
    table: Table,
    event: Event | None,
    history: list[Sizes],
    count: Count | None,
    runs: Mapping[str, LastRun],
    states: Mapping[tuple[str, str], str | None],
    problems: Mapping[tuple[str, str], tuple[str, str]],
    now: datetime,
) -> Stream:
    extra = event.extra if event else {}
    run = runs.get(table.dag_id)
    extract, load = (table.dag_id, table.extract_task), (table.dag_id, table.task_id)
    status, task = _stream_status(states.get(extract), states.get(load), event, run)
    failed = extract if task == "extract" else load
    rows, seconds = _number(extra, "rows_loaded"), extra.get("seconds")
    late, stale = _number(extra, "late_after"), _number(extra, "stale_after")
    source, total = _number(extra, "source_rows"), _number(extra, "rows_total")
    whole = extra.get("mode") == "full-refresh"
    if source is None and whole:
        source = _number(extra, "rows_read")
    aside = (_number(extra, "rows_rejected") or 0) if whole else 0
    difference = total + aside - source if source is not None and total is not None else None
    size = _size(count, event.at if event else None, [load.total for load in history])
    kind, why = problems.get(failed, ("", "")) if task else ("", "")
    return Stream(
        table=table.name,
        stream=str(extra.get("stream") or table.name.partition(".")[2] or table.name),
        replication=extra.get("replication"),
        owner=extra.get("owner") or table.owners,
        dag_id=table.dag_id,
        load_task=table.task_id,
        extract_task=table.extract_task,
        run_id=run.run_id if run else None,
        status=status,
        problem=why or None,
        problem_kind=kind or None,
        failed_task=failed[1] if status == "failed" else None,
        loaded_at=event.at if event else None,
        loaded_by=event.run_id if event else None,
        mode=extra.get("mode"),
        rows=rows,
        rows_read=_number(extra, "rows_read"),
        rows_total=total,
        rows_inserted=_number(extra, "rows_inserted"),
        rows_updated=_number(extra, "rows_updated"),
        rows_deleted=_number(extra, "rows_deleted"),
        rows_duplicate=_number(extra, "rows_duplicate"),
        rejected=_number(extra, "rows_rejected"),
        bytes=_number(extra, "bytes"),
        seconds=seconds,
        rows_per_second=round(rows / seconds, 1) if rows is not None and seconds else None,
        watermark=extra.get("watermark"),
        schema_hash=extra.get("schema_hash"),
        schema_change=extra.get("schema_change") or None,
        source_rows=source,
        tolerated=_number(extra, "tolerated"),
        difference=difference,
        verdict=_verdict(difference, _number(extra, "tolerated"), whole=whole),
        late_after=late,
        stale_after=stale,
        freshness=freshness(event.at if event else None, late, stale, now),
        history=[load.loaded for load in history[:HISTORY]],
        totals=[load.total for load in history[:HISTORY]],
        rows_usual=size["rows_usual"],
        unusual=size["unusual"],
    )


def _verdict(difference: int | None, tolerated: int | None, *, whole: bool) -> Verdict:
    """What a difference between source and raw table means; without a limit, none is allowed."""
    if difference is None:
        return "not counted"
    if difference == 0:
        return "match"
    if not whole and tolerated is None:
        return "differs"
    return "within tolerance" if abs(difference) <= (tolerated or 0) else "differs"


def _stream_status(
    extract: str | None, load: str | None, event: Event | None, run: LastRun | None
) -> tuple[StreamStatus, str | None]:
    """What a stream's two tasks of the last run, or else its last load, say; and which of the two tasks failed."""
    for state, task in ((extract, "extract"), (load, "load")):
        if state == "failed":
            return "failed", task
        if state == "up_for_retry":
            return "retrying", task
        if state == "awaiting_input":
            return "needs approval", None
    if load == "upstream_failed":
        return "failed", None
    if run is not None and run.state in ("running", "queued") and load != "success":
        waiting = load in _RUNNING or extract in _RUNNING or load is None
        if waiting and "skipped" not in (extract, load):
            return "running", None
    if event is None:
        return ("skipped" if "skipped" in (extract, load) else "not run" if load else "never loaded"), None
    return ("rejected" if (_number(event.extra, "rows_rejected") or 0) > 0 else "ok"), None


def _number(extra: Mapping[str, Any], name: str) -> int | None:
    value = extra.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def loads(metadata: Metadata, table: str) -> Loads:
    """The last loads of one raw table."""
    found = [
        Load(
            at=event.at,
            run_id=event.run_id,
            rows=_number(event.extra, "rows_loaded"),
            rejected=_number(event.extra, "rows_rejected"),
            bytes=_number(event.extra, "bytes"),
            seconds=event.extra.get("seconds"),
        )
        for event in metadata.loads(table)
    ]
    return Loads(now=datetime.now(UTC), total=len(found), loads=found)


def _run(run: LastRun) -> Run:
    return Run(dag_id=run.dag_id, run_id=run.run_id, state=run.state, started_at=run.started_at, ended_at=run.ended_at)


def nodes(metadata: Metadata, now: datetime) -> list[Node]:
    """The nodes of dbt that the last runs told of.

    A node shows what became of it in the last run that had it; `not run` says that its DAG's last run left it out, as
    after a failed stream. Of one run, what was told later counts: by a task that built a single node again.

    Args:
        metadata: the database.
        now: the time at which freshness is judged.
    """
    newest: dict[str, str] = {}
    runs: dict[str, dict[str, datetime]] = {}
    seconds: dict[tuple[str, str], dict[str, float]] = {}
    failed: dict[tuple[str, str], set[str]] = {}
    wanted: dict[int, None] = {}
    for each in metadata.trends():
        newest.setdefault(each.dag_id, each.run_id)
        runs.setdefault(each.dag_id, {})[each.run_id] = each.at
        if each.run_id == newest[each.dag_id]:
            wanted[each.dag_run_id] = None
        for identity in each.content.get("failed", ()):
            failed.setdefault((each.dag_id, str(identity)), set()).add(each.run_id)
        for identity, duration in each.content.get("seconds", {}).items():
            times = seconds.setdefault((each.dag_id, identity), {})
            if not times:  # the last run that built it has its results
                wanted[each.dag_run_id] = None
            times.setdefault(each.run_id, duration)
    entries: dict[tuple[str, str], tuple[Results, dict[str, Any]]] = {}
    for each in metadata.results(list(wanted)):
        for entry in each.content.get("nodes", []):
            key = (each.dag_id, str(entry["id"]))
            known = entries.get(key)
            if known is not None and known[0].run_id == each.run_id:
                entries[key] = (known[0], entry | known[1])
            entries.setdefault(key, (each, entry))
    shown: dict[str, tuple[datetime, Node]] = {}
    for (dag_id, identity), (each, node) in entries.items():
        built = node["type"] in _BUILT
        status: NodeStatus = node.get("status", "unknown")
        if status not in ("ok", "warn", "failed", "skipped"):
            status = "unknown"
        if built and each.run_id != newest[dag_id]:
            status = "not run"
        tests = {str(word): int(count) for word, count in node.get("tests", {}).items()}
        if not built and tests:
            status = "failed" if tests.get("failed") else "warn" if tests.get("warn") else "ok"
        times = seconds.get((dag_id, identity), {})
        built_at: datetime | None = each.at
        if status == "skipped":  # what there is of it is older
            built_at = next((runs[dag_id][run] for run in times), None)
        late = seconds_of(node.get("freshness"))
        found = Node(
            id=identity,
            type=node["type"],
            name=node["name"],
            dag_id=dag_id,
            run_id=each.run_id,
            task_id=_task_of(each.task_id, node["type"], node["name"]),
            built_at=built_at,
            status=status,
            seconds=node.get("seconds"),
            rows=node.get("rows"),
            message=node.get("message"),
            tests=tests,
            failed_tests=[FailedTest(**test) for test in node.get("failed_tests", [])],
            failing_since=_since(runs[dag_id], failed.get((dag_id, identity), set()), each.run_id),
            trend=[times.get(run) for run in list(runs[dag_id])[:TRENDS]] if built else [],
            depends_on=node.get("depends_on", []),
            owner=node.get("owner"),
            description=node.get("description"),
            relation=node.get("relation"),
            layer=node.get("layer"),
            materialized=node.get("materialized"),
            tags=node.get("tags", []),
            late_after=late,
            freshness=freshness(each.at if status == "ok" else None, late, None, now) if built else "unknown",
            url=node.get("url"),
        )
        other = shown.get(identity)
        if other is None or each.at > other[0]:
            shown[identity] = (each.at, found)
    return sorted((node for _, node in shown.values()), key=lambda node: (node.type, node.name))


def _task_of(told_by: str, kind: str, name: str) -> str | None:
    """The task of a node, in the group of the task that called dbt (include/dbt_watch/group.py names them)."""
    group = told_by.rpartition(".")[0]
    if kind == "exposure" or not group:
        return None
    return f"{group}.{'source_' if kind == 'source' else ''}{name.replace('.', '_')}"


def _since(runs: Mapping[str, datetime], failed: set[str], last: str) -> datetime | None:
    """Time of the first of the runs in which something has failed ever since; runs in which it was not built count not.

    Args:
        runs: time by run, the newest first.
        failed: the runs in which it failed.
        last: the run in which it was built last.
    """
    since = None
    order = list(runs)
    for run in order[order.index(last) :] if last in runs else []:
        if run not in failed:
            break
        since = runs[run]
    return since


def _around(graph: Mapping[str, Node], start: Iterable[str], depth: int) -> list[str]:
    """Nodes within some steps of others, against the edges and along them."""
    children: dict[str, list[str]] = {}
    for node in graph.values():
        for parent in node.depends_on:
            children.setdefault(parent, []).append(node.id)
    parents = {node.id: node.depends_on for node in graph.values()}
    begin = list(start)
    found = dict.fromkeys(begin)
    for follow in (parents, children):
        edge, seen = set(begin), set(begin)
        for _ in range(depth):
            edge = {other for each in edge for other in follow.get(each, []) if other in graph} - seen
            seen |= edge
        found = found | dict.fromkeys(sorted(seen))
    return list(found)
