"""Which causes a run that has ended is told by."""

from __future__ import annotations

from typing import Any

from include.elt.alerts.causes import MOST, Alert, Ended, causes

BUILT = {"status": "ok", "type": "model", "depends_on": []}


def ended(**told: Any) -> Ended:
    given: dict[str, Any] = {
        "dag_id": "shop",
        "run_id": "manual__1",
        "failed": True,
        "reason": "task_failure",
        "states": {},
        "owners": {"shop.orders.extract": "sales"},
        "problems": {},
        "loads": {},
        "results": [],
    }
    return Ended(**given | told)


def told(alerts: list[Alert]) -> list[tuple[str, str]]:
    return [(alert.kind, alert.subject) for alert in alerts]


def test_a_run_without_trouble_tells_nothing() -> None:
    loads = {"shop.orders.load": {"stream": "orders", "rows_read": 5, "rows_rejected": 0, "schema_change": ""}}
    run = ended(failed=False, reason="success", states={"shop.orders.load": "success"}, loads=loads)

    assert causes(run) == []


def test_a_failed_extraction_is_told_once_and_its_consequences_are_not() -> None:
    run = ended(
        states={
            "shop.orders.extract": "failed",
            "shop.orders.load": "upstream_failed",
            "dbt.stg_orders.run": "upstream_failed",
            "dbt.producer": "skipped",
        },
        problems={"shop.orders.extract": {"kind": "failed stream", "text": "row 57: '12,5' is not a bigint"}},
    )

    [alert] = causes(run)

    assert (alert.kind, alert.subject, alert.task_id) == ("failed stream", "orders", "shop.orders.extract")
    assert alert.owner == "sales"
    assert "row 57" in alert.text
    assert alert.what_to_do


def test_a_load_that_does_not_reconcile_or_fit_is_called_so() -> None:
    for kind in ("reconciliation", "schema change"):
        run = ended(states={"shop.orders.load": "failed"}, problems={"shop.orders.load": {"kind": kind, "text": "…"}})
        assert told(causes(run)) == [(kind, "orders")]


def test_a_committed_load_with_rejected_rows_and_another_shape_is_told_for_both() -> None:
    load = {"stream": "orders", "table": "raw.orders", "owner": "sales", "rows_read": 10, "rows_rejected": 2}
    changed = {**load, "rows_rejected": 0, "schema_change": "it lacks the column colour string; it is added"}
    run = ended(failed=False, reason="success", loads={"shop.orders.load": load, "shop.paint.load": changed})

    rejected, change = causes(run)

    assert (rejected.kind, rejected.text) == (
        "rejected rows",
        "2 of 10 rows do not fit the contract and were set aside.",
    )
    assert (change.kind, change.owner) == ("schema change", "sales")


def test_a_load_that_was_repeated_is_not_told_again() -> None:
    load = {"stream": "orders", "rows_read": 10, "rows_rejected": 2, "repeated": True}

    assert causes(ended(failed=False, reason="success", loads={"shop.orders.load": load})) == []


def test_a_failing_test_is_told_at_its_model_and_what_was_skipped_is_not() -> None:
    failed = {"name": "not_null_orders_id", "status": "failed", "failures": 3, "message": "Got 3 results"}
    nodes = [
        {"id": "model.j.orders", "name": "orders", **BUILT, "owner": "data", "failed_tests": [failed]},
        {"id": "model.j.customers", "name": "customers", **BUILT, "status": "skipped"},
        {"id": "model.j.broken", "name": "broken", **BUILT, "status": "failed", "message": "Binder Error"},
    ]
    states = {"dbt.orders.test": "failed", "dbt.producer": "failed", "dbt.customers.run": "upstream_failed"}

    alerts = causes(ended(states=states, results=[{"nodes": nodes}]))

    assert told(alerts) == [("failed test", "orders"), ("failed model", "broken")]
    assert alerts[0].owner == "data"
    assert "not_null_orders_id: Got 3 results" in alerts[0].text


def test_a_model_that_was_mended_by_its_own_task_is_not_told() -> None:
    broken = {"id": "model.j.orders", "name": "orders", **BUILT, "status": "failed"}
    mended = {"id": "model.j.orders", "name": "orders", **BUILT}

    assert causes(ended(failed=False, reason="success", results=[{"nodes": [broken]}, {"nodes": [mended]}])) == []


def test_a_failure_that_nothing_explains_is_told_as_the_runs() -> None:
    run = ended(states={"dbt.producer": "failed", "dbt.orders.run": "failed"})

    [alert] = causes(run)

    assert (alert.kind, alert.subject) == ("failed run", "shop")
    assert "dbt.orders.run, dbt.producer" in alert.text


def test_a_run_that_timed_out_is_told_beside_what_failed_in_it() -> None:
    run = ended(reason="timed_out", states={"shop.orders.extract": "failed"})

    assert told(causes(run)) == [("failed stream", "orders"), ("failed run", "shop")]


def test_many_causes_become_a_bounded_number_of_messages() -> None:
    run = ended(states={f"shop.s{number}.extract": "failed" for number in range(100)})

    alerts = causes(run)

    assert len(alerts) == MOST
    assert alerts[-1].text.startswith(f"{100 - MOST + 1} more: failed stream s")
