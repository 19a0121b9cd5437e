"""What is told of a dbt invocation: its results and the part of the graph they belong to."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import CapturingLogger

from include.elt import logs
from include.elt.results import KEY, TREND, node_of_test, packed, publish, summary, trend, unpacked

MANIFEST: dict[str, Any] = {
    "nodes": {
        "model.jdbt.stg_orders": {
            "name": "stg_orders",
            "schema": "staging",
            "alias": "stg_orders",
            "fqn": ["jdbt", "staging", "shop", "stg_orders"],
            "config": {"materialized": "view", "meta": {"owner": "sales", "freshness": "26 hours"}},
            "depends_on": {"nodes": ["source.jdbt.shop.raw_orders"]},
            "description": "Orders.",
        },
        "model.jdbt.orders": {
            "name": "orders",
            "fqn": ["jdbt", "marts", "orders"],
            "config": {},
            "depends_on": {"nodes": ["model.jdbt.stg_orders"]},
        },
        "test.jdbt.not_null_orders_id.1": {"name": "not_null_orders_id", "attached_node": "model.jdbt.orders"},
        "test.jdbt.both.2": {
            "name": "both",
            "depends_on": {"nodes": ["model.jdbt.orders", "model.jdbt.stg_orders"]},
        },
        "test.jdbt.of_source.3": {"name": "of_source", "depends_on": {"nodes": ["source.jdbt.shop.raw_orders"]}},
    },
    "sources": {
        "source.jdbt.shop.raw_orders": {
            "name": "raw_orders",
            "source_name": "shop",
            "schema": "raw",
            "identifier": "raw_orders",
        }
    },
    "exposures": {
        "exposure.jdbt.overview": {
            "label": "Overview",
            "owner": {"name": "Data team"},
            "depends_on": {"nodes": ["model.jdbt.orders"]},
        },
        "exposure.jdbt.other": {"label": "Other", "owner": {}, "depends_on": {"nodes": ["model.jdbt.users"]}},
    },
}

RESULTS: dict[str, Any] = {
    "metadata": {"generated_at": "2026-01-01T00:00:00Z"},
    "elapsed_time": 3.14159,
    "results": [
        {"unique_id": "model.jdbt.stg_orders", "status": "success", "execution_time": 0.25, "message": "OK"},
        {
            "unique_id": "model.jdbt.orders",
            "status": "error",
            "execution_time": 0.5,
            "message": "\x1b[31mBinder Error\x1b[0m: no such column",
            "adapter_response": {"rows_affected": -1},
        },
        {"unique_id": "test.jdbt.not_null_orders_id.1", "status": "fail", "failures": 3, "message": "Got 3 results"},
        {"unique_id": "test.jdbt.both.2", "status": "warn", "failures": 1},
        {"unique_id": "test.jdbt.of_source.3", "status": "pass"},
    ],
}


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Any]]:
    return {node["id"]: node for node in summary(RESULTS, MANIFEST)["nodes"]}


def test_a_model_is_told_with_its_outcome_and_place(told: dict[str, dict[str, Any]]) -> None:
    assert told["model.jdbt.stg_orders"] == {
        "id": "model.jdbt.stg_orders",
        "type": "model",
        "name": "stg_orders",
        "depends_on": ["source.jdbt.shop.raw_orders"],
        "owner": "sales",
        "description": "Orders.",
        "relation": "staging.stg_orders",
        "layer": "staging",
        "materialized": "view",
        "freshness": "26 hours",
        "status": "ok",
        "seconds": 0.25,
    }


def test_a_failure_is_told_with_its_message_and_tests(told: dict[str, dict[str, Any]]) -> None:
    orders = told["model.jdbt.orders"]

    assert (orders["status"], orders["message"]) == ("failed", "Binder Error: no such column")
    assert orders["tests"] == {"failed": 1, "warn": 1}
    assert [test["name"] for test in orders["failed_tests"]] == ["not_null_orders_id", "both"]
    assert "rows" not in orders


def test_sources_and_exposures_of_what_was_built_are_told_and_no_others(told: dict[str, dict[str, Any]]) -> None:
    assert told["source.jdbt.shop.raw_orders"]["tests"] == {"ok": 1}
    assert told["source.jdbt.shop.raw_orders"]["relation"] == "raw.raw_orders"
    assert told["exposure.jdbt.overview"]["owner"] == "Data team"
    assert "exposure.jdbt.other" not in told


def test_a_test_belongs_to_what_it_is_declared_on_or_to_the_last_that_was_built() -> None:
    built = ["model.jdbt.stg_orders", "model.jdbt.orders"]

    assert node_of_test("test.jdbt.not_null_orders_id.1", MANIFEST, built) == "model.jdbt.orders"
    assert node_of_test("test.jdbt.both.2", MANIFEST, built) == "model.jdbt.orders"
    assert node_of_test("test.jdbt.both.2", MANIFEST, built[::-1]) == "model.jdbt.stg_orders"
    assert node_of_test("test.jdbt.unknown", MANIFEST, built) is None


def test_what_is_packed_comes_out_again_and_anything_else_is_refused() -> None:
    told = summary(RESULTS, MANIFEST)

    assert unpacked(packed(told)) == told
    for other in (None, 5, "", "no base64!", "aGVsbG8=", {"nodes": []}):
        assert unpacked(other) is None


def test_two_thousand_models_are_small() -> None:
    node = {"type": "model", "depends_on": ["model.jdbt.a", "model.jdbt.b"], "description": "One row per thing."}
    nodes = [{"id": f"model.jdbt.model_{n}", "name": f"model_{n}", "seconds": n / 7, **node} for n in range(2000)]

    assert len(packed({"nodes": nodes})) < 100_000
    assert len(packed(trend({"nodes": nodes}))) < 60_000


def test_both_xcoms_and_the_log_lines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Instance:
        dag_id = "shop"
        pushed: dict[str, str] = {}  # noqa: RUF012

        def xcom_push(self, key: str, value: str) -> None:
            self.pushed[key] = value

    written = CapturingLogger()
    monkeypatch.setattr(logs, "_log", written)
    publish({"ti": Instance(), "run_id": "manual__1"}, RESULTS, MANIFEST)

    built = {call.kwargs["model"]: call.kwargs for call in written.calls}
    assert set(built["orders"]) == set(logs.FIELDS["built"])
    assert (built["orders"]["run_id"], built["orders"]["status"]) == ("manual__1", "failed")
    told = unpacked(Instance.pushed[TREND])
    assert told is not None
    assert told["seconds"] == {"model.jdbt.stg_orders": 0.25, "model.jdbt.orders": 0.5}
    assert unpacked(Instance.pushed[KEY]) == summary(RESULTS, MANIFEST)


def test_what_is_built_again_is_told_beside_the_rest_of_the_run_but_counted_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pushed: dict[str, str] = {}

    class Instance:
        dag_id = "shop"

        def xcom_push(self, key: str, value: str) -> None:
            pushed[key] = value

    written = CapturingLogger()
    monkeypatch.setattr(logs, "_log", written)
    again = RESULTS | {"results": [each for each in RESULTS["results"] if each["unique_id"] == "model.jdbt.orders"]}
    publish({"ti": Instance(), "run_id": "manual__1"}, again, MANIFEST, RESULTS)

    assert {call.kwargs["model"] for call in written.calls} == {"orders"}
    assert unpacked(pushed[KEY]) == summary(RESULTS, MANIFEST)


def test_a_log_line_has_the_fields_of_its_event_and_no_others() -> None:
    with pytest.raises(ValueError, match="alert has the fields"):
        logs.tell("alert", dag_id="shop")
