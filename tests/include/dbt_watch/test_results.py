"""From results that come one by one to the outcome of each node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from include.dbt_watch.results import FAILED, OK, SKIPPED, Board, Result, owners

A, B = "model.p.a", "model.p.b"
OWNERS = {
    "test.p.unique_a": A,
    "test.p.null_a": A,
    "test.p.both": B,
    "unit_test.p.b.logic": B,
    "test.p.raw": "source.p.x",
}


def node(kind: str, *parents: str, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(resource_type=kind, depends_on=SimpleNamespace(nodes=list(parents)), **more)


def test_a_test_belongs_to_the_node_it_is_declared_on_else_to_the_last_it_reads() -> None:
    nodes = {
        A: node("model", "source.p.x"),
        B: node("model", A),
        "test.p.declared": node("test", A, B, attached_node=A, unique_id="test.p.declared"),
        "test.p.singular": node("test", B, A, attached_node=None, unique_id="test.p.singular"),
        "test.p.source": node("test", "source.p.x", attached_node=None, unique_id="test.p.source"),
        "test.p.nothing": node("test", attached_node=None, unique_id="test.p.nothing"),
    }
    unit = {"unit_test.p.b.logic": node("unit_test", B, unique_id="unit_test.p.b.logic", tested_node_unique_id=B)}

    assert owners(SimpleNamespace(nodes=nodes, unit_tests=unit)) == {
        "test.p.declared": A,
        "test.p.singular": B,
        "test.p.source": "source.p.x",
        "unit_test.p.b.logic": B,
    }


def test_a_node_is_ok_when_it_and_all_its_tests_are() -> None:
    board = Board(OWNERS)

    assert board.add(Result(A, "success", seconds=1.5, rows=7)) is None
    assert board.add(Result("test.p.unique_a", "pass", seconds=0.25)) is None
    assert board.add(Result("test.p.null_a", "warn")) == A
    assert board.outcomes[A].document() == {
        "outcome": OK,
        "seconds": 1.75,
        "rows": 7,
        "tests": {"pass": 1, "warn": 1},
    }


@pytest.mark.parametrize("status", ["error", "fail", "runtime error", "partial success"])
def test_a_node_fails_with_the_first_of_its_tests(status: str) -> None:
    board = Board(OWNERS)
    board.add(Result(A, "success"))

    assert board.add(Result("test.p.null_a", status, "Got 3 results")) == A
    assert board.outcomes[A].outcome == FAILED
    assert board.outcomes[A].why == "test.p.null_a: Got 3 results"
    assert board.add(Result("test.p.unique_a", "pass")) is None, "it stays failed"


def test_a_failed_unit_test_is_the_reason_and_not_that_dbt_skipped_its_model() -> None:
    board = Board(OWNERS)
    board.add(Result("unit_test.p.b.logic", "fail", "actual differs"))
    board.add(Result(B, "skipped"))

    assert board.outcomes[B].outcome == FAILED
    assert "actual differs" in board.outcomes[B].why


def test_tests_outside_the_build_hold_nothing_back() -> None:
    known = Board(OWNERS, selected={A, "test.p.null_a"})
    known.add(Result(A, "success"))
    assert known.add(Result("test.p.null_a", "pass")) == A

    unknown = Board(OWNERS)
    unknown.add(Result(A, "success"))
    assert not unknown.outcomes
    assert unknown.close() == [A]
    assert unknown.outcomes[A].outcome == OK


def test_what_an_earlier_try_has_done_counts() -> None:
    board = Board(OWNERS, done={A, "test.p.null_a"}, selected={A, "test.p.null_a", "test.p.unique_a", B})
    assert not board.outcomes, "one of its tests is left"

    assert board.add(Result("test.p.unique_a", "pass")) == A
    assert board.done == {A, "test.p.null_a", "test.p.unique_a"}


def test_a_source_is_what_its_tests_say() -> None:
    board = Board(OWNERS)

    assert board.add(Result("test.p.raw", "fail", "Got 1 result")) == "source.p.x"
    assert board.outcomes["source.p.x"].outcome == FAILED


def test_what_failed_without_a_task_is_kept_apart() -> None:
    board = Board(OWNERS)
    board.add(Result("operation.p.on-run-end-0", "error", "no such table"))
    board.add(Result("operation.p.on-run-start-0", "success"))

    assert [each.unique_id for each in board.strays] == ["operation.p.on-run-end-0"]
    assert board.close() == []


def test_a_skipped_node_is_not_done() -> None:
    board = Board(OWNERS)

    assert board.add(Result(B, "skipped")) == B
    assert board.outcomes[B].outcome == SKIPPED
    assert board.done == set()
