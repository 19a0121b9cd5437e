"""What counts as a problem, since when, and what it holds up: on streams and nodes made up for it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from include.elt.alerts.silences import Silence
from plugins.data_platform import problems
from plugins.data_platform.answers import FailedTest, Node, Problem, Run, Stream, Streams

NOW = datetime(2026, 3, 1, 7, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Runs:
    """When runs began, as the metadata database would tell."""

    def __init__(self, *starts: datetime) -> None:
        self.asked = 0
        self._starts = starts

    def starts(self, dag_ids: set[str], after: datetime) -> list[tuple[str, datetime]]:
        self.asked += 1
        return [(dag_id, at) for at in self._starts if at > after for dag_id in sorted(dag_ids)]


def stream(name: str = "orders", **told: Any) -> Stream:
    given: dict[str, Any] = {
        "table": f"raw.{name}",
        "stream": name,
        "owner": "sales",
        "dag_id": "shop",
        "load_task": f"shop.{name}.load",
        "extract_task": f"shop.{name}.extract",
        "run_id": "manual__2",
        "loaded_by": "manual__1",
        "status": "ok",
        "loaded_at": NOW - 10 * HOUR,
        "freshness": "fresh",
        "history": [],
        "totals": [],
    }
    return Stream(**given | told)


def node(name: str, *parents: str, **told: Any) -> Node:
    given: dict[str, Any] = {
        "id": f"model.j.{name}",
        "type": "model",
        "name": name,
        "dag_id": "shop",
        "run_id": "manual__2",
        "built_at": NOW - HOUR,
        "status": "ok",
        "depends_on": list(parents),
        "owner": "data",
    }
    return Node(**given | told)


GRAPH = [
    node("shop.orders", id="source.j.shop.orders", type="source", relation="raw.orders", status="unknown"),
    node("stg_orders", "source.j.shop.orders"),
    node("orders", "model.j.stg_orders"),
    node("Shop overview", "model.j.orders", id="exposure.j.overview", type="exposure"),
]


def found(*streams: Stream, graph: list[Node] | None = None, starts: Any = (), state: str = "success") -> list[Problem]:
    run = Run(dag_id="shop", run_id="manual__2", state=state, ended_at=NOW)
    loaded = Streams(now=NOW, total=len(streams), streams=list(streams), runs=[run])
    metadata: Any = Runs(*starts)
    return problems.find_problems(metadata, loaded, GRAPH if graph is None else graph)


def test_nothing_is_wrong_when_all_is_well() -> None:
    assert found(stream()) == []


def test_a_failed_stream_is_wrong_since_the_run_after_its_last_load_and_holds_up_what_reads_it() -> None:
    failed = stream(status="failed", problem="row 57", problem_kind="failed stream", failed_task="shop.orders.extract")

    [problem] = found(failed, starts=(NOW - 11 * HOUR, NOW - 8 * HOUR, NOW - 2 * HOUR), state="failed")

    assert (problem.severity, problem.kind, problem.subject, problem.owner) == (
        "failed",
        "failed stream",
        "orders",
        "sales",
    )
    assert problem.since == NOW - 8 * HOUR
    assert problem.holds_up == ["Shop overview", "orders", "stg_orders"]
    assert problem.task_id == "shop.orders.extract"


def test_a_stream_that_was_never_right_has_no_since() -> None:
    [problem] = found(stream("new", status="failed", loaded_at=None, freshness="unknown"))

    assert problem.since is None
    assert problem.text.startswith("The task ended without a message of ours")


@pytest.mark.parametrize(
    ("told", "severity", "kind", "says"),
    [
        ({"freshness": "late", "late_after": 9 * 3600}, "warning", "missed deadline", "it may be 9 hours old"),
        ({"freshness": "stale", "late_after": 9 * 3600}, "failed", "missed deadline", "2026-02-28 21:00 UTC"),
        ({"status": "retrying", "problem": "no answer"}, "warning", "failed stream", "no answer"),
        ({"status": "needs approval"}, "warning", "needs approval", "somebody has to say"),
        ({"rejected": 2, "rows_read": 1000}, "warning", "rejected rows", "2 of 1,000 rows"),
        ({"schema_change": "the column a is new"}, "warning", "schema change", "raw.orders: the column a is new."),
        ({"verdict": "differs", "difference": -3}, "warning", "reconciliation", "differ by -3 rows"),
        ({"unusual": "shrank: 1 rows, 9 are usual"}, "warning", "unusual size", "raw.orders shrank"),
    ],
)
def test_what_else_is_wrong_with_a_stream(told: dict[str, Any], severity: str, kind: str, says: str) -> None:
    [problem] = found(stream(**told))

    assert (problem.severity, problem.kind) == (severity, kind)
    assert says in problem.text
    assert problem.what_to_do
    if kind == "missed deadline":
        assert problem.since == NOW - HOUR, "since the deadline, not since the load"


def test_models_tell_their_failures_and_tests() -> None:
    tests = [FailedTest(name="unique_id", status="failed", failures=3), FailedTest(name="recent", status="warn")]
    graph = [
        *GRAPH[:2],
        node("orders", "model.j.stg_orders", failed_tests=tests, failing_since=NOW - 30 * HOUR),
        node("broken", status="failed", message="Binder Error"),
        node("old", freshness="late", late_after=1800),
    ]

    told = {(each.severity, each.kind, each.subject): each for each in found(stream(), graph=graph)}

    assert set(told) == {
        ("failed", "failed test", "orders"),
        ("warning", "failed test", "orders"),
        ("failed", "failed model", "broken"),
        ("warning", "missed deadline", "old"),
    }
    assert told["failed", "failed test", "orders"].since == NOW - 30 * HOUR
    assert told["failed", "failed test", "orders"].text == "unique_id: 3"
    assert told["failed", "failed model", "broken"].text == "Binder Error"


def test_a_failed_run_that_nothing_explains_is_a_problem_itself() -> None:
    assert [(each.kind, each.subject) for each in found(stream(), state="failed")] == [("failed run", "shop")]
    assert [each.kind for each in found(stream(status="failed"), state="failed")] == ["failed stream"]


def test_what_holds_up_most_stands_first_and_warnings_last() -> None:
    order = found(stream("other", rejected=1), stream("lonely", status="failed"), stream(status="failed"))

    assert [each.subject for each in order] == ["orders", "lonely", "other"]


def test_a_silenced_problem_says_until_when(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = Silence(until=date(9999, 12, 31), reason="of a test", kind="rejected *", subject="orders")
    monkeypatch.setattr(problems, "read_silences", lambda: [silence])

    first, second = found(stream(rejected=1), stream("other", rejected=1))

    assert (first.silenced_until, second.silenced_until) == (date(9999, 12, 31), None)
