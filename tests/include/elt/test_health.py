"""What the daily report says of a raw table and of dbt's tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.elt.completeness import GONE
from include.elt.health import Line, Watched, as_table, as_text, failed_tests, line
from include.elt.warehouse import Counted

NOW = datetime(2026, 3, 1, 7, tzinfo=UTC)
ORDERS = Watched("raw.orders", 36 * 3600, 5 * 24 * 3600)


def loads(*rows: int, hours: float = 2, **last: Any) -> list[tuple[datetime, dict[str, Any]]]:
    """The newest first, half a day apart."""
    first = NOW - timedelta(hours=hours)
    found: list[tuple[datetime, dict[str, Any]]] = [
        (first - timedelta(hours=12 * place), {"rows_total": number}) for place, number in enumerate(rows)
    ]
    found[0][1].update(last)
    return found


@pytest.mark.parametrize(
    ("history", "findings"),
    [
        (loads(100, 100, 100, 100, 100, 100), ()),
        (loads(100, hours=35), ()),
        (loads(100, hours=37), ("late: loaded 37 h ago, has to be younger than 36 h",)),
        (loads(100, hours=121), ("stale: loaded 5 days ago, has to be younger than 5 days",)),
        (loads(79, 100, 100, 100, 100, 100), ("shrank: 79 rows, 100 are usual",)),
        (loads(0, 100, 100, 100, 100, 100), ("shrank: 0 rows, 100 are usual",)),
        (loads(301, 100, 100, 100, 100, 100), ("grew: 301 rows, 100 are usual",)),
        (loads(0, 100, 100, 100, 100), ()),
        (loads(5, 0, 0, 0, 0, 0), ("grew: 5 rows, 0 are usual",)),
        (loads(100, rows_rejected=3), ("3 rows rejected in the last load",)),
        ([], ()),
    ],
    ids=[
        *("as ever", "in time", "late", "stale", "a fifth less", "empty", "three times as many"),
        *("too few loads to tell", "from nothing", "rejected", "never"),
    ],
)
def test_what_is_said_of_a_table(history: Any, findings: tuple[str, ...]) -> None:
    assert line(ORDERS, history, NOW).findings == findings


def test_a_table_without_a_deadline_is_never_late() -> None:
    endless = Watched("raw.orders")

    assert line(endless, loads(100, hours=9999), NOW).findings == ()
    assert line(endless, [], NOW).findings == ()


@pytest.mark.parametrize(
    ("counted", "findings", "before"),
    [
        (Counted(100, (100, 100, 100, 100, 100)), (), (100, 100, 100, 100, 100)),
        (Counted(79, (100, 100, 100, 100, 100)), ("shrank: 79 rows, 100 are usual",), (100, 100, 100, 100, 100)),
        (Counted(100, (90, 90)), (), (50, 50, 50, 50, 50)),
        (Counted(100, ()), (), (50, 50, 50, 50, 50)),
        (Counted(151, (40, 40)), ("grew: 151 rows, 50 are usual",), (50, 50, 50, 50, 50)),
        (Counted(None, (100,)), (GONE,), (50, 50, 50, 50, 50)),
        (Counted(None, ()), (GONE,), (50, 50, 50, 50, 50)),
    ],
    ids=["as ever", "shrank", "two days are too few", "no days", "grew by its loads", "gone", "gone before a count"],
)
def test_what_was_counted_goes_before_what_the_loads_told(
    counted: Counted, findings: tuple[str, ...], before: tuple[int, ...]
) -> None:
    found = line(ORDERS, loads(100, 50, 50, 50, 50, 50), NOW, counted)

    assert (found.rows, found.findings, found.before) == (counted.rows, findings, before)


def test_a_mart_is_late_by_when_it_was_built() -> None:
    mart = Watched("marts.orders", 36 * 3600, None, "model.jdbt.orders")
    built: list[Any] = [(NOW - timedelta(hours=40), {}), (NOW - timedelta(hours=64), {})]

    found = line(mart, built, NOW, Counted(7, ()))

    assert (found.rows, found.rows_usual) == (7, None)
    assert found.findings == ("late: built 40 h ago, has to be younger than 36 h",)


def test_a_table_that_was_never_made_has_nothing_wrong_with_it() -> None:
    found = line(ORDERS, [], NOW, Counted(None, ()))

    assert found == Line("raw.orders", None, None, None, (), ())
    assert line(ORDERS, [], NOW, Counted(None, (5,))).findings == (GONE,), "it was counted before"
    assert line(ORDERS, [], NOW, Counted(5, ())).findings == (), "nobody knows when it was loaded"


def test_failed_tests_are_those_of_the_last_word_about_a_node() -> None:
    failed = {"name": "unique_orders_id", "status": "failed"}
    first = {
        "nodes": [{"id": "a", "name": "orders", "failed_tests": [failed]}, {"id": "b", "name": "x", "status": "failed"}]
    }
    second = {"nodes": [{"id": "b", "name": "x", "status": "ok"}]}

    assert failed_tests([first]) == ["orders: unique_orders_id", "x: not built"]
    assert failed_tests([first, second]) == ["orders: unique_orders_id"]


def test_the_message_names_what_is_wrong_and_the_table_everything() -> None:
    good, bad = (
        Line("raw.a", None, None, None, (), ()),
        Line("raw.b", "2026-03-01T05:00:00+00:00", 1000, 20, (20, 19), ("grew",)),
    )

    assert as_text([good, bad], ["orders: unique"]) == "raw.b: grew\nfailed test orders: unique"
    assert as_text([good], []) == ""
    assert as_text([good], [], "the file is held") == "the tables were not counted: the file is held"
    assert [row.split()[0] for row in as_table([good, bad]).splitlines()] == ["table", "raw.a", "raw.b"]
    told = as_table([good, bad]).splitlines()
    assert told[1].split() == ["raw.a", "never"]
    assert told[2].split() == ["raw.b", "2026-03-01T05:00:00", "1,000", "20", "+4900%", "20", "19", "grew"]
