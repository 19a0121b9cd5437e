"""Log lines for machines: an event and its fields, which a task's log keeps as JSON beside DAG, run, task and try.

A line of Python's own logging loses its `extra` in a log of Airflow 3; those of structlog, which Airflow itself uses,
keep their fields. In a log file it reads `{"event": "loaded", "stream": "raw_orders", "rows": 500, …}`.
"""

from __future__ import annotations

from typing import Any, Literal

import structlog

Event = Literal["extracted", "loaded", "failed", "built", "alert"]
"""What is told: of streams the first three, of models `built`, of messages `alert`."""

FIELDS: dict[Event, tuple[str, ...]] = {
    "extracted": ("dag_id", "run_id", "replication", "stream", "mode", "rows", "rejected", "seconds"),
    "loaded": (
        "dag_id",
        "run_id",
        "replication",
        "stream",
        "table",
        "mode",
        "rows",
        "rejected",
        "rows_total",
        "seconds",
    ),
    "failed": ("dag_id", "run_id", "replication", "stream", "kind", "text"),
    "built": ("dag_id", "run_id", "model", "status", "seconds", "rows", "tests", "failed_tests"),
    "alert": ("dag_id", "run_id", "kind", "subject", "channel", "outcome"),
}
"""The fields of each event; docs/metrics.md is made of it. A value that is not known is null."""

_log = structlog.get_logger("elt")


def tell(event: Event, **fields: Any) -> None:
    """Write one line.

    Args:
        event: what it is about.
        fields: all of the event's fields.

    Raises:
        ValueError: they are others.
    """
    if set(fields) != set(FIELDS[event]):
        raise ValueError(f"{event} has the fields {FIELDS[event]}, not {tuple(fields)}")
    _log.info(event, **fields)
