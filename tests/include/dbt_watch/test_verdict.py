"""What a node's task makes of the status of a build, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from include.dbt_watch.results import FAILED, LEFT_OUT, OK, SKIPPED
from include.dbt_watch.verdict import BUILD_ALONE, Snapshot, verdict

NODE = "model.p.orders"


def seen(outcome: str | None = None, state: str | None = "running", alive: bool = True, **head: Any) -> Snapshot:
    document = {"build": "one", "final": False, "last": False, "chosen": False, **head}
    nodes = {NODE: {"outcome": outcome, "why": "because"}} if outcome else {}
    return Snapshot(state, True, document, alive, nodes)


def said(answered: str | None, snapshot: Snapshot) -> str | None:
    found = verdict(NODE, answered, snapshot)
    return found.what if found else None


@pytest.mark.parametrize("state", [None, "scheduled", "queued", "running", "up_for_retry", "restarting"])
def test_without_a_status_it_waits_as_long_as_one_may_come(state: str | None) -> None:
    assert said(None, Snapshot(state, True, None, False, {})) is None


@pytest.mark.parametrize(
    ("outcome", "last", "expected"),
    [
        (OK, False, OK),
        (LEFT_OUT, False, LEFT_OUT),
        (FAILED, False, None),  # the next try may mend it
        (FAILED, True, FAILED),
        (SKIPPED, True, None),
        (None, True, None),
    ],
)
def test_while_the_build_runs(outcome: str | None, last: bool, expected: str | None) -> None:
    assert said(None, seen(outcome, last=last)) == expected


@pytest.mark.parametrize("outcome", [OK, FAILED, LEFT_OUT])
def test_a_status_that_nobody_saw_change_may_be_that_of_a_dead_build(outcome: str) -> None:
    assert said(None, seen(outcome, last=True, alive=False)) is None


@pytest.mark.parametrize("outcome", [OK, FAILED, LEFT_OUT])
def test_a_task_is_not_answered_twice_by_one_build(outcome: str) -> None:
    assert said("one", seen(outcome, last=True)) is None
    assert said("another", seen(outcome, last=True)) == outcome


@pytest.mark.parametrize(
    ("outcome", "expected"), [(OK, OK), (FAILED, FAILED), (SKIPPED, BUILD_ALONE), (LEFT_OUT, LEFT_OUT), (None, FAILED)]
)
def test_when_the_build_is_over(outcome: str | None, expected: str) -> None:
    assert said(None, seen(outcome, "success", alive=False, final=True, last=True)) == expected


def test_a_node_that_the_form_did_not_choose_is_skipped_and_one_that_dbt_forgot_is_red() -> None:
    assert said(None, seen(None, "success", final=True, chosen=True)) == LEFT_OUT
    found = verdict(NODE, None, seen(None, "success", final=True))
    assert found is not None
    assert found.what == FAILED
    assert "manifest older than the project" in found.why


def test_a_cleared_task_builds_its_node_when_the_build_that_answered_it_is_over() -> None:
    for outcome in (OK, FAILED, SKIPPED, None):
        assert said("one", seen(outcome, "success", final=True)) == BUILD_ALONE


@pytest.mark.parametrize("state", ["failed", "upstream_failed", "removed"])
def test_a_build_that_ended_without_a_result_fails_the_node_until_it_is_cleared(state: str) -> None:
    assert said(None, Snapshot(state, True, None, False, {})) == FAILED
    assert said("none", Snapshot(state, True, None, False, {})) == BUILD_ALONE
    assert said(None, seen(None, state, alive=False)) == FAILED
    assert said(None, seen(OK, state, alive=False)) == OK


def test_a_build_that_was_skipped_skips_its_nodes() -> None:
    assert said(None, Snapshot("skipped", True, None, False, {})) == LEFT_OUT


def test_without_a_build_in_the_run_the_node_builds_itself() -> None:
    assert said(None, Snapshot(None, False, None, False, {})) == BUILD_ALONE
