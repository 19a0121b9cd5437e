"""The daily report: which tables are late, which grew or shrank unusually, which tests failed last.

A first task counts every raw table and mart in the warehouse and writes the completeness history, `ops.completeness`. A
second one makes the report of it, and of what Airflow knows: the asset events of the tables, and the results that dbt's
task told in the run of the last load. Without the first one's figures the report goes by the loads alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset, BaseOperator, Context

from include.dbt_watch.parse import GRAPH
from include.elt import freshness
from include.elt.alerts.causes import Alert
from include.elt.alerts.run import results_of, send
from include.elt.completeness import GONE, KEY, compared_with, unusual, usual
from include.elt.contract import read_contracts
from include.elt.manifest import MANIFEST
from include.elt.results import packed, unpacked
from include.elt.settings import WAREHOUSE_POOL, Settings
from include.elt.tasks import MARGIN, PROBLEM, airflow_errors, look_up, query_tags, raw_asset
from include.elt.warehouse import COMPLETENESS, Completeness, Counted, open_warehouse

log = logging.getLogger(__name__)

LOADS = 20
"""Loads of a table that are compared."""

BEFORE = 6
"""Earlier numbers of rows that stand in the table of the log."""

MEASURE = "measure"
"""Name of the task that counts."""


@dataclass(frozen=True)
class Watched:
    """A table that the report looks at.

    Attributes:
        name: name of its asset, the same in every environment: `raw.raw_orders`, `marts.orders`.
        late_after: seconds after which it is late; None where nobody waits.
        stale_after: seconds after which it is stale.
        node: id of dbt's model, for a mart.
    """

    name: str
    late_after: int | None = None
    stale_after: int | None = None
    node: str | None = None


@dataclass(frozen=True)
class Line:
    """One table in the report.

    Attributes:
        table: the table.
        updated_at: time of its last load or build, ISO 8601; None for one that was never made, whose DAG may not be in
            use.
        rows: its rows; None if nobody knows.
        rows_usual: the median of the rows before.
        before: its rows on the days before, or while there are too few of these after the loads before; the newest
            first.
        findings: what is wrong with it; nothing, if all is well.
    """

    table: str
    updated_at: str | None
    rows: int | None
    rows_usual: int | None
    before: tuple[int, ...]
    findings: tuple[str, ...]


def line(
    table: Watched, loads: Sequence[tuple[datetime, Mapping[str, Any]]], now: datetime, counted: Counted | None = None
) -> Line:
    """What there is to say about a table.

    Args:
        table: the table, with the limits of its freshness.
        loads: time and figures of its last loads or builds, the newest first.
        now: the time of the report.
        counted: its rows in the warehouse; None if they were not counted.
    """
    totals = [int(figures["rows_total"]) for _, figures in loads if figures.get("rows_total") is not None]
    rows = counted.rows if counted else totals[0] if totals else None
    before = tuple(compared_with(counted.earlier if counted else (), totals[1:]))
    findings = []
    if loads:
        age = now - loads[0][0]
        for word, limit in (("stale", table.stale_after), ("late", table.late_after)):
            if limit is not None and age.total_seconds() > limit:
                made = "built" if table.node else "loaded"
                older = f"{made} {_span(age)} ago, has to be younger than {_span(timedelta(seconds=limit))}"
                findings.append(f"{word}: {older}")
                break
    if rows is not None and (found := unusual(rows, before)):
        findings.append(found)
    if counted is not None and counted.rows is None and (loads or counted.earlier):
        findings.append(GONE)
    if loads and (rejected := int(loads[0][1].get("rows_rejected") or 0)):
        findings.append(f"{rejected:,} rows rejected in the last load")
    return Line(table.name, loads[0][0].isoformat() if loads else None, rows, usual(before), before, tuple(findings))


def failed_tests(summaries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Tests that failed, and models that could not be built, by what dbt told last about each."""
    latest: dict[str, Mapping[str, Any]] = {}
    for summary in summaries:
        latest |= {str(node["id"]): node for node in summary.get("nodes", [])}
    found = [f"{node['name']}: not built" for node in latest.values() if node.get("status") == "failed"]
    found += [
        f"{node['name']}: {test['name']}"
        for node in latest.values()
        for test in node.get("failed_tests", [])
        if test.get("status") == "failed"
    ]
    return sorted(found)


def as_text(lines: Sequence[Line], tests: Sequence[str], trouble: str | None = None) -> str:
    """The report as a message; empty when there is nothing to tell.

    Args:
        lines: a line per table.
        tests: tests that failed.
        trouble: why the tables were not counted, if they were not.
    """
    told = [f"{each.table}: {'; '.join(each.findings)}" for each in lines if each.findings]
    told += [f"failed test {test}" for test in tests]
    told += [f"the tables were not counted: {trouble}"] if trouble else []
    return "\n".join(told)


def as_table(lines: Sequence[Line]) -> str:
    """The report as a table, for the log."""
    rows: list[tuple[str, ...]] = [("table", "updated at (UTC)", "rows", "usual", "change", "rows before", "findings")]
    for each in lines:
        numbers = ("" if number is None else f"{number:,}" for number in (each.rows, each.rows_usual))
        change = f"{each.rows / each.rows_usual - 1:+.0%}" if each.rows is not None and each.rows_usual else ""
        before = " ".join(f"{number:,}" for number in each.before[:BEFORE])
        known = each.updated_at or each.rows is not None
        found = "; ".join(each.findings) or ("ok" if known else "")
        rows.append((each.table, (each.updated_at or "never")[:19], *numbers, change, before, found))
    wide = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, wide, strict=True)).rstrip() for row in rows
    )


class _OnTables(BaseOperator):
    """A task that looks at every raw table with a contract and at every mart."""

    def __init__(self, **kwargs: Any) -> None:
        watched = [
            Watched(contract.table, contract.late_after, contract.stale_after)
            for contract in read_contracts().values()
            if contract.table.startswith("raw.")
        ]
        self.watched: dict[Asset, Watched] = {raw_asset(each.name): each for each in (*watched, *_marts())}
        super().__init__(inlets=list(self.watched), **kwargs)

    def _loads(self, context: Context, asset: Asset) -> list[Any]:
        """The last events of a table, the newest first; of a raw table those that tell of a load."""
        events = context["inlet_events"][asset].ascending(False).limit(LOADS)
        made = self.watched[asset].node is not None
        return [event for event in events if made or "rows_loaded" in (event.extra or {})]

    def _line(self, context: Context, asset: Asset, now: datetime, counted: Counted | None) -> Line:
        loads = [(event.timestamp, event.extra or {}) for event in self._loads(context, asset)]
        return line(self.watched[asset], loads, now, counted)


class MeasureOperator(_OnTables):
    """Count the rows of every raw table and mart, and write them into the completeness history of the day.

    A second time on the same day takes the place of the first. A table that was never made has no row.

    Args:
        settings: settings of the deployment.
        kwargs: Airflow's own.
    """

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(
            pool=WAREHOUSE_POOL,
            execution_timeout=timedelta(seconds=settings.load_timeout + settings.wait_timeout) + MARGIN,
            **kwargs,
        )
        self.settings = settings

    def execute(self, context: Context) -> int:
        """Count; returns how many tables there are."""
        now = datetime.now(UTC)
        nodes = json.loads(MANIFEST.read_bytes())["nodes"]
        tables = {
            each.name: "{schema}.{alias}".format(**nodes[each.node]) if each.node else each.name
            for each in self.watched.values()
        }
        with airflow_errors(context):
            warehouse = open_warehouse(self.settings, look_up, query_tags(context))
            counted = warehouse.count_all(tables, now.date())
            lines = [self._line(context, asset, now, counted[watched.name]) for asset, watched in self.watched.items()]
            found = [_row(each) for each in lines if each.rows is not None or each.findings]
            warehouse.write_completeness(now.date(), context["run_id"], found)
        log.info("%s of %s: %d tables", COMPLETENESS, now.date(), len(found))
        context["ti"].xcom_push(key=KEY, value=packed({"lines": [asdict(each) for each in lines]}))
        return len(found)


class HealthReportOperator(_OnTables):
    """Report on every table; returns the lines and the failed tests, and sends what is wrong.

    Args:
        kwargs: Airflow's own.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(execution_timeout=timedelta(minutes=20), **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Make the report."""
        ti, now, runs = context["ti"], datetime.now(UTC), {}
        told = unpacked(ti.xcom_pull(task_ids=MEASURE, key=KEY))
        trouble = None
        if told is not None:
            lines = [Line(**{**each, "before": tuple(each["before"])}) for each in told["lines"]]
        else:
            lines = [self._line(context, asset, now, None) for asset in self.watched]
            problem = ti.xcom_pull(task_ids=MEASURE, key=PROBLEM)
            trouble = problem["text"] if problem else f"the log of the task {MEASURE} says why"
        for asset, watched in self.watched.items():
            events = [] if watched.node else self._loads(context, asset)
            if events and events[0].source_dag_id and events[0].source_run_id:
                runs[events[0].source_dag_id] = events[0].source_run_id
        summaries = [summary for dag_id, run_id in sorted(runs.items()) for summary in results_of(dag_id, run_id)]
        tests = failed_tests(summaries)
        log.info("health of %d tables:\n%s", len(lines), as_table(lines))
        if text := as_text(lines, tests, trouble):
            log.warning("%s", text)
            send([Alert("report", "health", ti.dag_id, context["run_id"], self.owner, text[:4000], ti.task_id)])
        return {"tables": [asdict(each) for each in lines], "failed_tests": tests}


def _marts() -> list[Watched]:
    """The marts of the dbt project, as it was parsed ahead of time."""
    nodes = json.loads(MANIFEST.with_name(GRAPH).read_bytes())["nodes"]
    return [
        Watched(f"marts.{node['name']}", freshness.seconds_of(freshness.of_model(node)), None, unique_id)
        for unique_id, node in nodes.items()
        if node["resource_type"] == "model" and "mart" in node["tags"]
    ]


def _row(each: Line) -> Completeness:
    updated_at = datetime.fromisoformat(each.updated_at) if each.updated_at else None
    return Completeness(each.table, each.rows, each.rows_usual, updated_at, each.findings)


def _span(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"
