"""`make docs`: docs/DAGS.md, docs/DATA.md and docs/metrics.md, from DAGs, contracts, models and metrics.

`--check` changes nothing and ends with 1 where a file is not what the code says; `make check` and a test call it.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from include.elt.alerts.deadlines import PROCESS_CONTEXT, RunQueued, TablesLoaded, span
from include.elt.errors import EltError
from include.elt.logs import FIELDS
from include.elt.manifest import MANIFEST, build_manifest
from include.elt.metrics import METRICS, PREFIX
from include.elt.paths import ROOT, shown
from include.elt.results import node_of_test
from include.elt.settings import Settings, load_settings

DOCS = ROOT / "docs"

_MADE = "<!-- Made by `make docs`; edit the code instead. -->"
_ABOUT_METRICS = """\
Sent through Airflow's own client beside Airflow's metrics, when `[metrics] statsd_on` or `otel_on` is set; Airflow puts
its prefix (`airflow.`) in front. [grafana.json](grafana.json) is a dashboard on them, for Prometheus behind an
OpenTelemetry collector: there `airflow.elt.stream.rows` is `airflow_elt_stream_rows_total`.

StatsD has no tags of its own. With `[metrics] statsd_influxdb_enabled`, which the Helm values set,
Airflow writes them behind the name (`airflow.elt.stream.rows,dag_id=jaffle_shop,…:500|c`), as Telegraf and Prometheus'
StatsD exporter read them; without it the figures of all streams and models are one. The exporter leaves `_total` away
and has timers in seconds. In the value of a tag, whatever is no letter, digit or one of `_.-/` becomes `_`, as in
`failed_test`."""
_ABOUT_LOGS = """\
Beside what people read, a task writes these lines, as JSON in its log like all of Airflow's, with `task_id` and
`try_number`: to be searched in whatever collects the logs (remote logging, or the containers' output)."""

_LAYERS = ("staging", "intermediate", "marts")


def _cell(text: object) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(str(text or "").split()).replace("|", "\\|")


def _table(*header: str, rows: Iterator[tuple[object, ...]]) -> str:
    lines = [" | ".join(header), "|".join("---" for _ in header)]
    lines += [" | ".join(_cell(each) for each in row) for row in rows]
    return "\n".join(f"| {line} |" if place != 1 else f"|{line}|" for place, line in enumerate(lines))


def dags() -> dict[str, Any]:
    """File and DAG of every DAG of the project by id."""
    os.environ[PROCESS_CONTEXT] = "client"  # with what the DAG processor sees
    with redirect_stdout(io.StringIO()):  # Cosmos logs there
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(str(ROOT / "dags"))
    if bag.import_errors:
        raise EltError("\n".join(f"{shown(Path(file))}: {text}" for file, text in bag.import_errors.items()))
    return {dag_id: (Path(dag.fileloc), dag) for dag_id, dag in sorted(bag.dags.items())}


def _span(delta: Any) -> str:
    """A time span as people say it."""
    seconds = int(delta.total_seconds()) if delta else 0
    for size, word in ((24 * 3600, "days"), (3600, "hours"), (60, "minutes")):
        if seconds and seconds % size == 0:
            return f"{seconds // size} {word}"
    return f"{seconds} seconds" if seconds else "none"


def _deadline(alert: Any) -> str:
    """What is told when."""
    match alert.reference:
        case RunQueued():
            return f"told {span(alert.interval.total_seconds())} after it was queued"
        case TablesLoaded(tables, seconds):
            return f"told when one is older than {span(seconds)}: " + ", ".join(f"`{table}`" for table in tables)
        case other:
            return f"told {span(alert.interval.total_seconds())} after {other.reference_name}"


def _schedule(dag: Any) -> str:
    timetable = dag.timetable
    text = getattr(timetable, "_expression", None) or getattr(timetable, "expression", None) or dag.schedule
    return "by hand only" if text is None else f"`{text}`"


def dags_page(found: Mapping[str, Any]) -> str:
    """docs/DAGS.md."""
    parts = ["# DAGs", _MADE, "What each DAG does, when, and what its form asks."]
    for dag_id, (file, dag) in found.items():
        deadlines = dag.deadline if isinstance(dag.deadline, list) else [dag.deadline] if dag.deadline else []
        outlets = sorted({asset.name for task in dag.tasks for asset in task.outlets})
        groups = sorted({task.task_id.split(".")[0] for task in dag.tasks if "." in task.task_id})
        facts = [
            ("file", f"[{shown(file)}](../{shown(file)})"),
            ("schedule", _schedule(dag)),
            ("owners", ", ".join(sorted({task.owner for task in dag.tasks}))),
            ("tags", ", ".join(sorted(dag.tags))),
            ("at most", f"{dag.max_active_runs} run at a time, {_span(dag.dagrun_timeout)} each"),
            ("deadlines", "; ".join(_deadline(each) for each in deadlines) or "none"),
            ("task groups", ", ".join(f"`{group}`" for group in groups) or "none"),
            ("assets", ", ".join(f"`{name}`" for name in outlets) or "none"),
        ]
        parts += [f"## {dag_id}", (dag.doc_md or "").strip(), _table("", "", rows=iter(facts))]
        if dag.params:
            rows = (
                (f"`{name}`", _default(param.value), param.schema.get("title", ""), param.description)
                for name, param in ((name, dag.params.get_param(name)) for name in dag.params)
            )
            parts += ["Parameters of its form:", _table("parameter", "default", "title", "what it does", rows=rows)]
    return "\n\n".join(parts) + "\n"


def _default(value: Any) -> str:
    return "" if value is None else f"`{json.dumps(value)}`"


def data_page(manifest: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """docs/DATA.md."""
    nodes = manifest["nodes"]
    tests: dict[str, list[str]] = {}
    for test in nodes.values():
        target = node_of_test(test["unique_id"], manifest, ()) if test["resource_type"] == "test" else None
        if target is not None:
            name = test["test_metadata"]["name"] if test.get("test_metadata") else test["name"]
            where = f" ({test['column_name']})" if test.get("column_name") else ""
            tests.setdefault(target, []).append(f"{name}{where}")
    streams = {
        task.stream.table: (dag_id, task.replication, task.stream)
        for dag_id, (_, dag) in found.items()
        for task in dag.tasks
        if hasattr(task, "stream") and task.task_id.endswith(".load")
    }
    parts = ["# Data", _MADE, "Every table: the raw ones by their contracts, the models by theirs.", "## Raw tables"]
    for source in sorted(manifest["sources"].values(), key=lambda each: (each["source_name"], each["name"])):
        table = f"{source['source_name']}: {source['name']}"
        dag_id, replication, stream = streams.get(f"raw.{source['identifier']}", (None, None, None))
        loaded = (
            f"Loaded by the DAG `{dag_id}`, stream `{stream.id}` of {shown(replication.file)}: {stream.mode},"
            f" primary key {', '.join(stream.primary_key)}."
            if stream is not None and replication is not None
            else ""
        )
        parts += [f"### {table}", _sentences(source["description"], _freshness(source), loaded)]
        parts += list(_columns(source, tests))
    built = [node for node in nodes.values() if node["resource_type"] in ("model", "snapshot", "seed")]
    order = {layer: place for place, layer in enumerate(_LAYERS)}
    layers: dict[str, list[Any]] = {}
    for node in sorted(built, key=lambda each: each["name"]):
        layer = (
            node["fqn"][1] if node["resource_type"] == "model" and len(node["fqn"]) > 2 else node["resource_type"] + "s"
        )
        layers.setdefault(layer, []).append(node)
    for layer in sorted(layers, key=lambda each: (order.get(each, len(order)), each)):
        parts.append(f"## {layer.capitalize()}")
        for node in layers[layer]:
            reads = ", ".join(f"`{each.split('.', 2)[2]}`" for each in node["depends_on"]["nodes"])
            owner = (node["config"].get("meta") or {}).get("owner")
            parts += [
                f"### {node['name']}",
                _sentences(
                    node["description"], f"Owner: {owner}." if owner else "", f"Reads {reads}." if reads else ""
                ),
                *_columns(node, tests),
            ]
    exposures = sorted(manifest["exposures"].values(), key=lambda each: each["name"])
    if exposures:
        parts.append("## Exposures")
        for each in exposures:
            reads = ", ".join(f"`{node.split('.', 2)[2]}`" for node in each["depends_on"]["nodes"])
            owner = each["owner"].get("name") or each["owner"].get("email")
            parts += [
                f"### {each['label'] or each['name']}",
                _sentences(each["description"], f"Owner: {owner}.", f"Reads {reads}."),
            ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sentences(*texts: object) -> str:
    return " ".join(" ".join(str(text).split()) for text in texts if text)


def _freshness(source: Mapping[str, Any]) -> str:
    limits = {
        word: f"{limit['count']} {limit['period']}s"
        for word, key in (("late", "warn_after"), ("stale", "error_after"))
        if (limit := (source.get("freshness") or {}).get(key) or {}).get("count")
    }
    return "It is " + " and ".join(f"{word} after {span}" for word, span in limits.items()) + "." if limits else ""


def _columns(node: Mapping[str, Any], tests: Mapping[str, list[str]]) -> Iterator[str]:
    """The columns of a table, and the tests of the whole table."""
    of_node = sorted(tests.get(node["unique_id"], []))
    columns = node["columns"].values()
    if columns:
        yield _table(
            "column",
            "type",
            "tests",
            "what it is",
            rows=(
                (
                    f"`{column['name']}`",
                    column.get("data_type") or "",
                    ", ".join(test.split(" (")[0] for test in of_node if test.endswith(f"({column['name']})")),
                    column["description"],
                )
                for column in columns
            ),
        )
    whole = [test for test in of_node if not test.endswith(")")]
    if whole:
        yield f"Tests of the table: {', '.join(whole)}."


def metrics_page() -> str:
    """docs/metrics.md."""
    rows = (
        (f"`{PREFIX}{name}`", each.kind, each.unit, ", ".join(each.tags), each.meaning)
        for name, each in METRICS.items()
    )
    parts = [
        "# Metrics",
        _MADE,
        _ABOUT_METRICS,
        _table("metric", "kind", "unit", "tags", "what it is", rows=rows),
        "## Log lines",
        _ABOUT_LOGS,
        _table("event", "fields", rows=((f"`{event}`", ", ".join(names)) for event, names in FIELDS.items())),
    ]
    return "\n\n".join(parts) + "\n"


def pages() -> dict[Path, str]:
    """Every generated file with its content."""
    for name in Settings.model_fields:  # what is documented is the project, not somebody's deployment
        os.environ.pop(name.upper(), None)
    build_manifest(load_settings())
    found = dags()
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return {
        DOCS / "DAGS.md": dags_page(found),
        DOCS / "DATA.md": data_page(manifest, found),
        DOCS / "metrics.md": metrics_page(),
    }


def main() -> int:
    """Write the files, or check them; returns the exit code."""
    check, wrong = "--check" in sys.argv[1:], 0
    for file, text in pages().items():
        there = file.read_text(encoding="utf-8") if file.is_file() else ""
        if there == text:
            continue
        if check:
            wrong = 1
            lines = difflib.unified_diff(there.splitlines(), text.splitlines(), shown(file), "made", lineterm="", n=1)
            print(
                "\n".join([*list(lines)[:40], f"{shown(file)} is not what the code says: `make docs` writes it again"])
            )
        else:
            file.write_text(text, encoding="utf-8")
            print(f"{shown(file)} written")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
