"""The generated documents, and what they and others say about metrics and routes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from include.elt import metrics
from include.elt.paths import ROOT
from include.elt.settings import Settings
from tests.support.otlp import collecting
from tests.support.statsd import listening

SEND_ALL = """
from include.elt import metrics
send = {
    "counter": lambda name, tags: metrics.count(name, tags, by=3),
    "gauge": lambda name, tags: metrics.gauge(name, 7, tags),
    "timer": lambda name, tags: metrics.timing(name, 1.5, tags),
}
for name, each in metrics.METRICS.items():
    send[each.kind](name, {tag: f"{tag} of: x,y=z" for tag in each.tags})
"""
"""Sends every metric once, with tags that no client could send as they are."""

DOCS = ROOT / "docs"


def test_the_generated_documents_are_what_the_code_says(migrated_home: Path) -> None:
    ours = {name.upper() for name in Settings.model_fields}
    environment = {
        name: value for name, value in os.environ.items() if name not in ours and not name.startswith("AIRFLOW")
    }
    result = subprocess.run(
        [sys.executable, "-m", "include.elt.documentation", "--check"],
        cwd=ROOT,
        env=environment | {"AIRFLOW_HOME": str(migrated_home)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


def send_all(settings: dict[str, str], home: Path) -> None:
    """Send every metric once, in a process with settings of Airflow."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    result = subprocess.run(
        [sys.executable, "-c", SEND_ALL],
        cwd=ROOT,
        env=environment | settings | {"AIRFLOW_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]


def test_every_metric_reaches_statsd_with_its_tags(tmp_path: Path) -> None:
    with listening() as server:
        send_all(server.environment(), tmp_path)

    kinds = {"counter": ("c", 3), "gauge": ("g", 7), "timer": ("ms", 1500)}
    assert {name: [tuple(each) for each in server.sent(name)] for name in metrics.METRICS} == {
        name: [(kinds[each.kind][0], {tag: f"{tag}_of__x_y_z" for tag in each.tags}, kinds[each.kind][1])]
        for name, each in metrics.METRICS.items()
    }


def test_without_tags_every_metric_still_reaches_statsd(tmp_path: Path) -> None:
    with listening() as server:
        send_all(server.environment(tags=False), tmp_path)

    assert {name: [each.tags for each in server.sent(name)] for name in metrics.METRICS} == {
        name: [{}] for name in metrics.METRICS
    }


def test_the_dashboard_asks_for_metrics_that_there_are_by_the_names_that_prometheus_has(tmp_path: Path) -> None:
    """Every metric is sent to a stand-in for a collector; the queries have its names, kinds and attributes."""
    with collecting() as collector:
        send_all(collector.environment(), tmp_path)
    endings = {"sum": ("_total",), "gauge": ("",), "histogram": ("", "_sum", "_count")}
    known: dict[str, set[str]] = {}
    for name, points in collector.metrics.items():
        if ".elt." in name:
            for ending in endings[points[0].kind]:
                known[name.replace(".", "_") + ending] = set(points[0].attributes)

    queries = [
        target["expr"]
        for panel in json.loads((DOCS / "grafana.json").read_text())["panels"]
        for target in panel.get("targets", [])
    ]
    assert len(collector.metrics) >= len(metrics.METRICS)
    assert len(queries) > 8
    for query in queries:
        for name, chosen in re.findall(r"(airflow_\w+)(?:\{(.*?)\})?", query):
            assert name in known, query
            assert set(re.findall(r"(\w+)=", chosen)) <= known[name], query
        grouped = {label for labels in re.findall(r"by \((.*?)\)", query) for label in labels.split(", ")}
        assert all(grouped <= known[name] for name in re.findall(r"airflow_\w+", query)), query


class TestMetrics:
    """What is handed to Airflow's metrics client."""

    @pytest.fixture
    def sent(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        from airflow.sdk.observability import stats

        calls: list[Any] = []
        for kind in ("incr", "gauge", "timing"):
            monkeypatch.setattr(stats, kind, lambda *given, kind=kind, **more: calls.append((kind, *given, more)))
        return calls

    def test_names_units_and_tags(self, sent: list[Any]) -> None:
        tags = {"dag_id": "shop", "replication": "shop_files", "stream": "orders"}

        metrics.count("stream.rows", tags, by=5)
        metrics.count("stream.rejected", tags, by=0)
        metrics.timing("stream.load_time", 1.5, tags)
        metrics.gauge("stream.table_rows", 7, tags)

        assert sent == [
            ("incr", "elt.stream.rows", 5, {"tags": tags}),
            ("timing", "elt.stream.load_time", 1500.0, {"tags": tags}),
            ("gauge", "elt.stream.table_rows", 7, {"tags": tags}),
        ]

    def test_what_is_not_documented_cannot_be_sent(self, sent: list[Any]) -> None:
        with pytest.raises(KeyError):
            metrics.count("stream.colours", {})
        with pytest.raises(ValueError, match=r"stream\.rows is a counter"):
            metrics.gauge("stream.rows", 1, {"dag_id": "a", "replication": "b", "stream": "c"})
        with pytest.raises(ValueError, match="with the tags"):
            metrics.count("stream.rows", {"dag_id": "a", "password": "b", "stream": "c"})
        assert sent == []

    def test_a_client_that_fails_stops_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow.sdk.observability import stats

        def fail(*_: Any, **__: Any) -> None:
            raise OSError("no such host")

        monkeypatch.setattr(stats, "incr", fail)

        metrics.count("usage.registrations")
