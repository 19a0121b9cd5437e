"""What a run has done, as two tables: the streams that were loaded and the models that were built.

Streams are told by the asset events of their load tasks, models by the artifacts that dbt leaves; for what failed or
was not reached there is neither, so the states of the tasks fill in.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from include.elt.lake import slug

EXTRACT_TASK, LOAD_TASK = "extract", "load"
"""Names of a stream's two tasks, in a task group that is named like the stream."""

_NODE_TASK = re.compile(r"^dbt\.(?!source_|dbt_build$)(?P<node>\w+)$")
"""The task of a dbt node that is built, as `include/dbt_watch` names it."""

_BUILT = ("model", "snapshot", "seed")
_UNFINISHED = frozenset({None, "scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule"})
_STATUS_STYLE = {"ok": "green", "failed": "bold red", "warn": "yellow", "skipped": "yellow", "not run": "yellow"}
_TASK_STATUS = {"success": "ok", "failed": "failed", "upstream_failed": "not run", "skipped": "skipped"}
_DBT_STATUS = {"success": "ok", "pass": "ok", "error": "failed", "fail": "failed", "runtime error": "failed"}


@dataclass(frozen=True)
class StreamResult:
    """One stream of a run; None is what is not known because it was not loaded."""

    stream: str
    status: str
    table: str | None = None
    mode: str | None = None
    rows: int | None = None
    rejected: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    watermark: str | None = None


@dataclass
class ModelResult:
    """One dbt node of a run and the tests that belong to it."""

    model: str
    status: str
    seconds: float | None = None
    tests: Counter[str] = field(default_factory=Counter)
    relation: str | None = None

    def add_test(self, status: str) -> None:
        """Count a test with dbt's status for it."""
        self.tests[_DBT_STATUS.get(status, status)] += 1


def stream_results(events: Iterable[Mapping[str, Any]], states: Mapping[str, str | None]) -> list[StreamResult]:
    """The streams of a run.

    Args:
        events: asset events of the run as the API tells them; those without `rows_loaded` are no loads.
        states: state per task id.

    Returns:
        Loaded streams in the order of their loads, then the others by name.
    """
    loaded: dict[str, StreamResult] = {}
    for event in events:
        extra = event.get("extra") or {}
        if "rows_loaded" not in extra:
            continue
        stream = str(extra.get("stream") or event.get("name"))
        loaded[stream] = StreamResult(
            stream=stream,
            status="ok",
            table=extra.get("table"),
            mode=extra.get("mode"),
            rows=extra["rows_loaded"],
            rejected=extra.get("rows_rejected"),
            bytes=extra.get("bytes"),
            seconds=extra.get("seconds"),
            watermark=extra.get("watermark"),
        )
    others = []
    for task_id, state in sorted(states.items()):
        group, _, name = task_id.rpartition(".")
        stream = group.rpartition(".")[2]
        if name != LOAD_TASK or stream in loaded or not stream:
            continue
        reached = (states.get(f"{group}.{EXTRACT_TASK}"), state)
        status = "failed" if "failed" in reached else _status(state)
        others.append(StreamResult(stream=stream, status=status))
    return [*loaded.values(), *others]


def _status(state: str | None) -> str:
    """A task's state as the status of what it works on."""
    return "not run" if state in _UNFINISHED else _TASK_STATUS.get(str(state), str(state))


def read_artifacts(folder: Path, run_id: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Dbt's run results and manifest of a run, or None when it left none that can be read.

    Args:
        folder: the DAG's folder in that of the setting `artifacts`.
        run_id: id of the Airflow run.
    """
    place = folder / slug(run_id)
    try:
        results, manifest = (json.loads((place / f"{name}.json").read_bytes()) for name in ("run_results", "manifest"))
    except (OSError, ValueError):
        return None
    return results, manifest


def model_results(
    artifacts: tuple[Mapping[str, Any], Mapping[str, Any]] | None, states: Mapping[str, str | None]
) -> list[ModelResult]:
    """The dbt nodes of a run with the outcome of their tests.

    Args:
        artifacts: run results and manifest, if there are any.
        states: state per task id, for the nodes that the run results do not have.

    Returns:
        Built nodes in dbt's order, then those that were not, then sources with tests.
    """
    built: dict[str, ModelResult] = {}
    sources: dict[str, ModelResult] = {}
    if artifacts is not None:
        results, manifest = artifacts
        nodes = manifest.get("nodes", {})
        for result in results.get("results", []):
            identity = result["unique_id"]
            if identity.split(".")[0] in _BUILT:
                node = nodes.get(identity, {})
                built[identity] = ModelResult(
                    node.get("name") or identity.split(".")[-1],
                    _DBT_STATUS.get(result["status"], result["status"]),
                    result.get("execution_time"),
                    relation=_relation(node),
                )
        for result in results.get("results", []):
            identity = result["unique_id"]
            if identity.split(".")[0] not in ("test", "unit_test"):
                continue
            target = _tested_node(identity, manifest, list(built))
            if target is None:
                continue
            if target.startswith("source."):
                name = ".".join(target.split(".")[-2:])
                tested = sources.setdefault(target, ModelResult(f"{name} (source)", ""))
            else:
                tested = built.setdefault(target, ModelResult(target.split(".")[-1], ""))
            tested.add_test(result["status"])
    names = {each.model for each in built.values()}
    others = [
        ModelResult(match["node"], _status(state))
        for task_id, state in sorted(states.items())
        if (match := _NODE_TASK.match(task_id)) and match["node"] not in names
    ]
    return [*built.values(), *others, *sources.values()]


def _relation(node: Mapping[str, Any]) -> str | None:
    """A node's table as one writes it in SQL."""
    return f"{node['schema']}.{node['alias']}" if node.get("schema") and node.get("alias") else None


def _tested_node(identity: str, manifest: Mapping[str, Any], built: Sequence[str]) -> str | None:
    """The node that a test says something about: the one it is declared on, else the last built of those it reads."""
    test = manifest.get("nodes", {}).get(identity) or manifest.get("unit_tests", {}).get(identity) or {}
    declared = test.get("attached_node") or test.get("tested_node_unique_id")
    read = test.get("depends_on", {}).get("nodes", [])
    return declared or max(read, key=lambda node: built.index(node) if node in built else -1, default=None)


def streams_table(results: Sequence[StreamResult]) -> Table:
    """The streams as a table with a sum."""
    table = _table("stream", "status", "mode", "rows>", "rejected>", "bytes>", "seconds>", "watermark")
    for each in results:
        table.add_row(
            each.stream,
            _styled(each.status),
            each.mode or "",
            _count(each.rows),
            Text(_count(each.rejected), style="yellow" if each.rejected else ""),
            _count(each.bytes),
            _seconds(each.seconds),
            "" if each.watermark is None else str(each.watermark),
        )
    if len(results) > 1:
        table.add_section()
        rows, rejected, size = (
            _count(sum(getattr(each, name) or 0 for each in results)) for name in ("rows", "rejected", "bytes")
        )
        table.add_row(f"{len(results)} streams", "", "", rows, rejected, size, "", "")
    return table


def models_table(results: Sequence[ModelResult]) -> Table:
    """The models as a table."""
    table = _table("model", "status", "seconds>", "tests")
    for each in results:
        table.add_row(each.model, _styled(each.status), _seconds(each.seconds), _tests(each.tests))
    return table


def example_query(models: Sequence[ModelResult], streams: Sequence[StreamResult]) -> str | None:
    """A query that shows something: the last model that was built, else the last table that was loaded."""
    relations = [each.relation for each in models if each.relation and each.status == "ok"]
    tables = [each.table for each in streams if each.table]
    found = next(iter([*reversed(relations), *reversed(tables)]), None)
    return None if found is None else f"select * from {found} limit 5"  # noqa: S608  (it is printed)


def _table(*columns: str) -> Table:
    """An empty table; a column that ends in > is aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        name = column.rstrip(">")
        table.add_column(
            name, justify="right" if column != name else "left", no_wrap=name not in ("watermark", "tests")
        )
    return table


def _styled(status: str) -> Text:
    return Text(status, style=_STATUS_STYLE.get(status, ""))


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _seconds(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _tests(tests: Counter[str]) -> Text:
    """Counts per outcome, the good ones first."""
    text = Text()
    words = {"ok": "passed", "warn": "warn", "failed": "failed"}
    for status in sorted(tests, key=lambda each: [*words, each].index(each)):
        text.append(f"{', ' if text else ''}{tests[status]} {words.get(status, status)}", _STATUS_STYLE.get(status, ""))
    return text
