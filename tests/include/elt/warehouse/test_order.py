"""An extraction that is older than what was loaded never brings old rows back."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from include.elt.contract import Column
from include.elt.errors import RefusedLoadError
from include.elt.modes import Window
from include.elt.warehouse.rules import overlap
from tests.support.loads import Raw, changes

REFUSED = r"raw\.orders: a newer extraction was loaded already, by run newer; clear the extract task together"


def window(lower: str | None, upper: str | None, closed: bool = True, column: str = "day") -> dict[str, Any]:
    return {"column": column, "lower": lower, "upper": upper, "closed": closed}


MODES = ("full-refresh", "incremental", "backfill", "snapshot")


@pytest.mark.parametrize(("older", "newer"), [pair for pair in product(MODES, MODES) if set(pair) != {"snapshot"}])
def test_an_older_one_is_refused(raw: Raw, older: str, newer: str) -> None:
    late = raw.extract([(1, "old")], at=1, mode=older, run_id="older")
    raw.load([(1, "new")], at=2, mode=newer, run_id="newer")
    with pytest.raises(RefusedLoadError, match=REFUSED):
        raw.take(late)
    assert raw.rows("id, a") == [(1, "new")]


def test_one_of_the_same_moment_is_loaded(raw: Raw) -> None:
    raw.load([(1, "x")], at=1)
    assert raw.load([(1, "X")], at=1).rows_updated == 1


def test_what_was_loaded_into_another_table_does_not_matter(raw: Raw) -> None:
    raw.load([(1, "x")], at=2, table="raw.other")
    assert raw.load([(1, "x")], at=1).rows_total == 1


def test_after_the_table_was_dropped_the_order_begins_anew(raw: Raw) -> None:
    raw.load([(1, "new")], at=2)
    raw.bench.query("DROP TABLE raw.orders")
    raw.load([(1, "old")], at=1)
    assert raw.rows() == [(1, "old")]


class TestBackfills:
    @pytest.fixture
    def raw(self, raw: Raw) -> Raw:
        raw.columns, raw.update_key, raw.mode = {"id": "bigint", "day": "date", "a": "string"}, "day", "backfill"
        raw.load([], at=0)
        return raw

    JANUARY = window("2026-01-01", "2026-02-01", closed=False)
    FEBRUARY = window("2026-02-01", "2026-02-28")

    def test_of_ranges_apart_come_in_any_order(self, raw: Raw) -> None:
        raw.load([(2, "2026-02-01", "y")], at=2, window=self.FEBRUARY)
        assert changes(raw.load([(1, "2026-01-01", "x")], at=1, window=self.JANUARY)) == (1, 0, 0)

    def test_of_ranges_that_touch_are_refused(self, raw: Raw) -> None:
        raw.load([(2, "2026-02-01", "y")], at=2, window=self.FEBRUARY, run_id="newer")
        with pytest.raises(RefusedLoadError, match=REFUSED):
            raw.load([(1, "2026-01-01", "x")], at=1, window=window("2026-01-01", "2026-02-01"))

    def test_of_no_range_are_refused(self, raw: Raw) -> None:
        raw.load([(2, "2026-02-01", "y")], at=2, window=self.FEBRUARY, run_id="newer")
        with pytest.raises(RefusedLoadError, match=REFUSED):
            raw.load([], at=1, window=None)

    def test_of_another_update_key_are_refused(self, raw: Raw) -> None:
        raw.load([(2, "2026-02-01", "y")], at=2, window=window("1", "2", column="id"), run_id="newer")
        with pytest.raises(RefusedLoadError, match=REFUSED):
            raw.load([], at=1, window=self.JANUARY)

    def test_a_row_that_moved_into_the_newer_range_stays_there(self, raw: Raw) -> None:
        raw.load([(1, "2026-01-05", "oldest"), (2, "2026-01-05", "oldest")], at=1, window=self.JANUARY)
        older = raw.extract([(1, "2026-01-06", "old"), (2, "2026-01-06", "old")], at=2, window=self.JANUARY)
        raw.load([(1, "2026-02-03", "new")], at=3, window=self.FEBRUARY)
        assert changes(raw.take(older)) == (0, 1, 0)
        assert raw.rows("id, a") == [(1, "new"), (2, "old")]

    def test_a_row_without_update_key_is_that_of_the_newer_one(self, raw: Raw) -> None:
        older = raw.extract([(1, None, "old"), (2, None, "only here")], at=1, window=self.JANUARY)
        raw.load([(1, None, "new")], at=2, window=self.FEBRUARY)
        assert changes(raw.take(older)) == (1, 0, 0)
        assert raw.rows("id, a") == [(1, "new"), (2, "only here")]


@pytest.mark.parametrize(
    ("data_type", "one", "other", "shared"),
    [
        ("bigint", ("1", "9"), ("10", "20"), False),
        ("bigint", ("1", "10"), ("10", "20"), True),
        ("bigint", ("2", "9"), ("1", "30"), True),
        ("string", ("a", "b"), ("b1", "c"), False),
        ("string", ("1", "9"), ("10", "20"), True),
        ("decimal(9,2)", ("1.00", "2.50"), ("2.5", "3"), True),
        ("double", ("1e2", "2e2"), ("20", "30"), False),
        ("date", ("2026-01-01", "2026-01-31"), ("2026-02-01", "2026-02-28"), False),
        (
            "timestamp",
            ("2026-01-01 00:00:00+00:00", "2026-01-02 00:00:00+00:00"),
            ("2026-01-02 01:00:00+02:00", None),
            True,
        ),
        ("timestamp_ntz", ("2026-01-01", "2026-01-02 00:00:00"), ("2026-01-02 00:00:00.000001", None), False),
        ("timestamp", (None, "2026-01-02 00:00:00+00:00"), ("2026-01-01 00:00:00+00:00", None), True),
    ],
)
def test_ranges_share_values_of_the_type(data_type: str, one: Any, other: Any, shared: bool) -> None:
    column = Column("k", data_type)
    for first, second in ((one, other), (other, one)):
        assert overlap(Window("k", *first), Window("k", *second), column) == shared


def test_a_range_without_its_end_does_not_share_it() -> None:
    column = Column("k", "int")
    before, after = Window("k", "1", "5", closed=False), Window("k", "5", "9", closed=False)
    assert not overlap(before, after, column)
    assert not overlap(after, before, column)
    assert overlap(Window("k", "1", "5"), after, column)
