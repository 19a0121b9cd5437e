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


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    text = (DOCS / "grafana.json").read_text()
    known = {(metrics.PREFIX + name).replace(".", "_") for name in metrics.METRICS}
    used = set(re.findall(r"airflow_(elt_\w+?)(?:_total|_sum|_count)?[\[{( ,]", text))

    assert len(json.loads(text)["panels"]) > 8
    assert used
    assert used <= known


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
        metrics.timing("stream.load_seconds", 1.5, tags)
        metrics.gauge("stream.table_rows", 7, tags)

        assert sent == [
            ("incr", "elt.stream.rows", 5, {"tags": tags}),
            ("timing", "elt.stream.load_seconds", 1500.0, {"tags": tags}),
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
