"""The daily report: which raw tables are late, which grew or shrank unusually, which tests failed last.

Everything comes from Airflow: the loads from the asset events of the raw tables, the tests from the results that dbt's
task told in the run of the last load. No warehouse is asked, so the report is the same for every one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseOperator, Context

from include.elt.alerts.causes import Alert
from include.elt.alerts.run import results_of, send
from include.elt.completeness import unusual, usual
from include.elt.contract import Contract, read_contracts
from include.elt.tasks import raw_asset

log = logging.getLogger(__name__)

LOADS = 20
"""Loads of a table that are compared."""

HISTORY = 7
"""Loads whose rows stand in the table."""


@dataclass(frozen=True)
class Line:
    """One raw table in the report.

    Attributes:
        table: the raw table.
        loaded_at: time of its last load, ISO 8601; None for one that was never loaded, whose DAG may not be in use.
        rows: rows of the table after it.
        median_rows: the median of the loads before, which is what is usual.
        history: rows after each of its last loads, the newest first.
        findings: what is wrong with it; nothing, if all is well.
    """

    table: str
    loaded_at: str | None
    rows: int | None
    median_rows: int | None
    history: tuple[int, ...]
    findings: tuple[str, ...]


def line(contract: Contract, loads: Sequence[tuple[datetime, Mapping[str, Any]]], now: datetime) -> Line:
    """What there is to say about a raw table.

    Args:
        contract: its contract, with the limits of its freshness.
        loads: time and figures of its last loads, the newest first.
        now: the time of the report.
    """
    if not loads:
        return Line(contract.table, None, None, None, (), ())
    at, last = loads[0]
    findings = []
    age = now - at
    for word, limit in (("stale", contract.stale_after), ("late", contract.late_after)):
        if limit is not None and age.total_seconds() > limit:
            findings.append(
                f"{word}: loaded {_span(age)} ago, has to be younger than {_span(timedelta(seconds=limit))}"
            )
            break
    rows = int(last.get("rows_total") or 0)
    earlier = [int(figures.get("rows_total") or 0) for _, figures in loads[1:]]
    if found := unusual(rows, earlier):
        findings.append(found)
    if rejected := int(last.get("rows_rejected") or 0):
        findings.append(f"{rejected:,} rows rejected in the last load")
    history = [rows, *earlier][:HISTORY]
    return Line(contract.table, at.isoformat(), rows, usual(earlier), tuple(history), tuple(findings))


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


def as_text(lines: Sequence[Line], tests: Sequence[str]) -> str:
    """The report as a message; empty when there is nothing to tell."""
    told = [f"{each.table}: {'; '.join(each.findings)}" for each in lines if each.findings]
    told += [f"failed test {test}" for test in tests]
    return "\n".join(told)


def as_table(lines: Sequence[Line]) -> str:
    """The report as a table, for the log."""
    rows: list[tuple[str, ...]] = [("table", "loaded at (UTC)", "rows", "usual", "change", "loads before", "findings")]
    for each in lines:
        numbers = ("" if number is None else f"{number:,}" for number in (each.rows, each.median_rows))
        change = f"{each.rows / each.median_rows - 1:+.0%}" if each.rows is not None and each.median_rows else ""
        before = " ".join(f"{number:,}" for number in each.history[1:])
        found = "; ".join(each.findings) or ("ok" if each.loaded_at else "")
        rows.append((each.table, (each.loaded_at or "never")[:19], *numbers, change, before, found))
    wide = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, wide, strict=True)).rstrip() for row in rows
    )


class HealthReportOperator(BaseOperator):
    """Report on every raw table with a contract; returns the lines and the failed tests, and sends what is wrong.

    Args:
        kwargs: Airflow's own.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.contracts = {
            raw_asset(contract.table): contract
            for contract in read_contracts().values()
            if contract.table.startswith("raw.")
        }
        super().__init__(inlets=list(self.contracts), execution_timeout=timedelta(minutes=20), **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Make the report."""
        now, lines, runs = datetime.now(UTC), [], {}
        for asset, contract in self.contracts.items():
            events = list(context["inlet_events"][asset].ascending(False).limit(LOADS))
            loads = [(event.timestamp, event.extra or {}) for event in events if "rows_loaded" in (event.extra or {})]
            lines.append(line(contract, loads, now))
            if events and events[0].source_dag_id and events[0].source_run_id:
                runs[events[0].source_dag_id] = events[0].source_run_id
        summaries = [summary for dag_id, run_id in sorted(runs.items()) for summary in results_of(dag_id, run_id)]
        tests = failed_tests(summaries)
        log.info("health of %d raw tables:\n%s", len(lines), as_table(lines))
        if text := as_text(lines, tests):
            log.warning("%s", text)
            ti = context["ti"]
            send([Alert("report", "health", ti.dag_id, context["run_id"], self.owner, text[:4000], ti.task_id)])
        return {"tables": [asdict(each) for each in lines], "failed_tests": tests}


def _span(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"
