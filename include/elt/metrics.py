"""The platform's own metrics, beside Airflow's and through Airflow's: StatsD or OpenTelemetry, as `[metrics]` says.

`METRICS` holds every name with its kind and meaning; docs/metrics.md is made of it, and nothing else can be sent.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

log = logging.getLogger(__name__)

Kind = Literal["counter", "gauge", "timer"]


class Metric(NamedTuple):
    """One metric: what it is, in which unit, with which tags."""

    kind: Kind
    unit: str
    tags: tuple[str, ...]
    meaning: str


_STREAM = ("dag_id", "replication", "stream")
_MODEL = ("dag_id", "model")

METRICS: dict[str, Metric] = {
    "stream.loads": Metric("counter", "loads", _STREAM, "Committed loads"),
    "stream.rows": Metric("counter", "rows", _STREAM, "Rows that came into the raw table"),
    "stream.rejected": Metric("counter", "rows", _STREAM, "Rows that were set aside"),
    "stream.bytes": Metric("counter", "bytes", _STREAM, "Size of the Parquet files that were loaded"),
    "stream.extract_time": Metric("timer", "ms", _STREAM, "Time of the extraction"),
    "stream.load_time": Metric("timer", "ms", _STREAM, "Time of the load"),
    "stream.table_rows": Metric("gauge", "rows", _STREAM, "Rows of the raw table after the load"),
    "stream.failures": Metric(
        "counter", "tries", _STREAM, "Tries of an extraction or load that failed with a known error"
    ),
    "model.builds": Metric(
        "counter", "builds", (*_MODEL, "status"), "Models, snapshots and seeds that dbt built, by outcome"
    ),
    "model.time": Metric("timer", "ms", _MODEL, "Time that dbt took for a model"),
    "model.tests": Metric("counter", "tests", (*_MODEL, "status"), "Tests of a model, by outcome"),
    "alerts": Metric("counter", "alerts", ("kind", "outcome"), "Alerts that were sent, silenced or could not be sent"),
    "usage.registrations": Metric("counter", "calls", (), "Installations that registered"),
    "usage.features": Metric("counter", "calls", ("feature",), "Features whose use was told"),
}
"""Every metric, without the prefix `elt.` (and without Airflow's own, `[metrics] statsd_prefix`)."""

PREFIX = "elt."

_UNFIT = re.compile(r"[^A-Za-z0-9_.\-/]")
"""What no tag's value may hold: Airflow's StatsD client drops a metric with such a tag."""


def count(name: str, tags: Mapping[str, Any] | None = None, by: int = 1) -> None:
    """Add to a counter.

    Args:
        name: one of `METRICS`.
        tags: values of the metric's tags.
        by: how much; nothing is sent for 0.
    """
    if by:
        _send("counter", name, by, tags)


def gauge(name: str, value: float, tags: Mapping[str, Any] | None = None) -> None:
    """Tell a value that goes up and down."""
    _send("gauge", name, value, tags)


def timing(name: str, seconds: float, tags: Mapping[str, Any] | None = None) -> None:
    """Tell how long something took, in seconds; it is sent in milliseconds, as StatsD wants it."""
    _send("timer", name, seconds * 1000, tags)


def _send(kind: Kind, name: str, value: float, tags: Mapping[str, Any] | None) -> None:
    """Hand a value to Airflow. A metric that cannot be sent is no reason for anything else to fail."""
    known = METRICS[name]
    given = {tag: _UNFIT.sub("_", str(text)) for tag, text in (tags or {}).items()}
    if known.kind != kind or set(given) != set(known.tags):
        raise ValueError(f"{name} is a {known.kind} with the tags {known.tags}, not a {kind} with {tuple(given)}")
    try:
        from airflow.sdk.observability import stats

        match kind:
            case "counter":
                stats.incr(PREFIX + name, int(value), tags=given)
            case "gauge":
                stats.gauge(PREFIX + name, value, tags=given)
            case "timer":
                stats.timing(PREFIX + name, value, tags=given)
    except Exception as error:  # noqa: BLE001  (whatever is wrong with a metrics client)
        log.debug("metric %s was not sent: %s", name, error)
