import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from include.elt.lake import slug
from include.elt.report import (
    ModelResult,
    StreamResult,
    example_query,
    model_results,
    models_table,
    read_artifacts,
    stream_results,
    streams_table,
)


def rendered(table: RenderableType) -> list[list[str]]:
    output = io.StringIO()
    Console(file=output, width=160).print(table)
    return [line.split() for line in output.getvalue().splitlines() if line.strip() and "─" not in line]


def event(stream: str, **extra: Any) -> dict[str, Any]:
    facts = {
        "stream": stream, "table": f"raw.{stream}", "mode": "incremental", "rows_read": 5, "rows_loaded": 1234,
        "rows_rejected": 2, "bytes": 99999, "seconds": 1.5, "watermark": "2026-01-02",
    }  # fmt: skip
    return {"name": f"raw.{stream}", "extra": facts | extra}


MANIFEST = {
    "nodes": {
        "model.p.orders": {"name": "orders", "schema": "marts", "alias": "orders"},
        "model.p.stg_orders": {"name": "stg_orders", "schema": "staging", "alias": "stg_orders"},
        "snapshot.p.history": {"name": "history", "schema": "snapshots", "alias": "history"},
        "test.p.unique_orders": {"attached_node": "model.p.orders", "depends_on": {"nodes": ["model.p.orders"]}},
        "test.p.relationship": {
            "attached_node": "model.p.stg_orders",
            "depends_on": {"nodes": ["model.p.orders", "model.p.stg_orders"]},
        },
        "test.p.singular": {"depends_on": {"nodes": ["model.p.orders", "model.p.stg_orders"]}},
        "test.p.source_test": {"depends_on": {"nodes": ["source.p.shop.raw_orders"]}},
    },
    "unit_tests": {"unit_test.p.orders.adds_up": {"depends_on": {"nodes": ["model.p.orders"]}}},
}


def result(identity: str, status: str, seconds: float = 0.5) -> dict[str, Any]:
    return {"unique_id": identity, "status": status, "execution_time": seconds}


RESULTS = {
    "results": [
        result("test.p.source_test", "pass"),
        result("model.p.stg_orders", "success"),
        result("unit_test.p.orders.adds_up", "pass"),
        result("model.p.orders", "success", 1.25),
        result("test.p.unique_orders", "fail"),
        result("test.p.singular", "pass"),
        result("test.p.relationship", "warn"),
        result("snapshot.p.history", "error"),
        result("exposure.p.overview", "no-op"),
    ]
}


def test_loaded_streams_are_told_by_their_events() -> None:
    events = [event("orders"), {"name": "marts.orders", "extra": {}}, {"name": "x", "extra": None}]
    (orders,) = stream_results(events, {"shop.orders.load": "success"})
    assert orders == StreamResult("orders", "ok", "raw.orders", "incremental", 1234, 2, 99999, 1.5, "2026-01-02")


@pytest.mark.parametrize(
    ("extract", "load", "status"),
    [
        ("failed", "upstream_failed", "failed"),
        ("success", "failed", "failed"),
        ("skipped", "skipped", "skipped"),
        ("upstream_failed", "upstream_failed", "not run"),
        ("running", None, "not run"),
        ("success", "queued", "not run"),
    ],
)
def test_streams_that_were_not_loaded_have_a_row_too(extract: str, load: str | None, status: str) -> None:
    states = {"shop.orders.extract": extract, "shop.orders.load": load, "dbt.orders": "success", "load": "failed"}
    assert stream_results([], states) == [StreamResult("orders", status)]


def test_a_table_of_streams() -> None:
    rows = rendered(
        streams_table([*stream_results([event("orders", watermark=None)], {}), StreamResult("x", "failed")])
    )
    assert rows == [
        ["stream", "status", "mode", "rows", "rejected", "bytes", "seconds", "watermark"],
        ["orders", "ok", "incremental", "1,234", "2", "99,999", "1.50"],
        ["x", "failed"],
        ["2", "streams", "1,234", "2", "99,999"],
    ]


def test_tests_belong_to_their_models() -> None:
    states = {"dbt.orders": "success", "dbt.not_reached": "upstream_failed", "dbt.left_out": "skipped"}
    models = {each.model: each for each in model_results((RESULTS, MANIFEST), states)}
    assert list(models) == ["stg_orders", "orders", "history", "left_out", "not_reached", "shop.raw_orders (source)"]
    assert models["orders"].tests == Counter(ok=2, failed=1), "its own, the unit test and the one that reads both"
    assert models["stg_orders"].tests == Counter(warn=1)
    assert models["shop.raw_orders (source)"].tests == Counter(ok=1)
    statuses = {name: each.status for name, each in models.items()}
    assert statuses["history"] == "failed"
    assert (statuses["left_out"], statuses["not_reached"]) == ("skipped", "not run")
    assert models["orders"].seconds == 1.25


def test_a_table_of_models() -> None:
    rows = rendered(models_table(model_results((RESULTS, MANIFEST), {})))
    assert rows == [
        ["model", "status", "seconds", "tests"],
        ["stg_orders", "ok", "0.50", "1", "warn"],
        ["orders", "ok", "1.25", "2", "passed,", "1", "failed"],
        ["history", "failed", "0.50"],
        ["shop.raw_orders", "(source)", "1", "passed"],
    ]


def test_without_artifacts_the_tasks_tell() -> None:
    states = {
        "dbt.orders": "failed",
        "dbt.history": "success",
        "dbt.stg": "deferred",
        "dbt.countries": "success",
        "dbt.source_shop_raw_orders": "success",
        "dbt.dbt_build": "failed",
        "shop.orders.load": "success",
    }
    found = [(each.model, each.status) for each in model_results(None, states)]
    assert found == [("countries", "ok"), ("history", "ok"), ("orders", "failed"), ("stg", "not run")]


def test_artifacts_are_found_by_run(tmp_path: Path) -> None:
    run_id = "manual__2026-01-01T00:00:00+00:00"
    assert read_artifacts(tmp_path, run_id) is None
    folder = tmp_path / slug(run_id)
    folder.mkdir()
    (folder / "run_results.json").write_text(json.dumps(RESULTS))
    assert read_artifacts(tmp_path, run_id) is None, "one of two is not enough"
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    assert read_artifacts(tmp_path, run_id) == (RESULTS, MANIFEST)
    (folder / "manifest.json").write_text("{")
    assert read_artifacts(tmp_path, run_id) is None


def test_the_example_shows_the_last_model_or_table() -> None:
    models = [ModelResult("a", "ok", relation="s.a"), ModelResult("b", "failed", relation="s.b")]
    streams = [StreamResult("x", "ok", table="raw.x"), StreamResult("y", "failed")]
    assert example_query(models, streams) == "select * from s.a limit 5"
    assert example_query([], streams) == "select * from raw.x limit 5"
    assert example_query([], []) is None
