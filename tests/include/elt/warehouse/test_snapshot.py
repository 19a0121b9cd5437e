"""Mode `snapshot`: everything is appended with the time of reading, once per run."""

from __future__ import annotations

import pytest

from include.elt.errors import RefusedLoadError
from include.elt.replication import Meta
from tests.support.loads import Raw, changes


@pytest.fixture
def raw(raw: Raw) -> Raw:
    raw.mode = "snapshot"
    return raw


def test_each_run_appends(raw: Raw) -> None:
    raw.load([(1, "x"), (2, "y")], at=1, added=("_loaded_at",))
    result = raw.load([(1, "x"), (2, "Y")], at=2, added=("_loaded_at",))
    assert (changes(result), result.rows_total) == ((2, 0, 0), 4)
    assert raw.rows() == [(1, "x", 1), (1, "x", 2), (2, "Y", 2), (2, "y", 1)]
    assert list(raw.types()) == ["id", "a", "_loaded_at"]


def test_another_one_of_the_same_run_takes_the_place_of_the_first(raw: Raw) -> None:
    raw.load([(0, "w")], at=1)
    first = raw.extract([(1, "x"), (2, "y")], at=2, run_id="r")
    raw.take(first)
    result = raw.load([(1, "X")], at=3, run_id="r")
    assert (changes(result), result.rows_total) == ((1, 0, 0), 2)
    assert raw.load([(1, "XX")], at=4, run_id="r").rows_total == 2
    assert raw.take(first).repeated
    assert raw.rows() == [(0, "w", 1), (1, "XX", 4)]


def test_of_another_stream_or_replication_with_the_same_run_id_stays(raw: Raw) -> None:
    raw.load([(1, "x")], run_id="r")
    raw.load([(2, "y")], run_id="r", replication="other")
    raw.load([(3, "z")], run_id="r", stream="other")
    assert raw.rows("id") == [(1,), (2,), (3,)]


def test_an_older_one_of_another_run_is_fine(raw: Raw) -> None:
    raw.load([(1, "new")], at=5)
    raw.load([(1, "old")], at=4)
    assert raw.rows() == [(1, "new", 5), (1, "old", 4)]


def test_an_older_one_of_the_same_run_is_refused(raw: Raw) -> None:
    raw.load([(1, "new")], at=5, run_id="r")
    with pytest.raises(RefusedLoadError, match="a newer extraction was loaded already, by run r"):
        raw.load([(1, "old")], at=4, run_id="r")


def test_an_empty_one_is_fine_but_replaces_no_rows(raw: Raw) -> None:
    assert raw.load([], at=1).rows_total == 0
    raw.load([(1, "x")], at=2, run_id="r")
    empty = raw.extract([], at=3, run_id="r")
    with pytest.raises(RefusedLoadError, match=r"1 rows; an empty snapshot.*meta\.allow_empty"):
        raw.take(empty)
    assert raw.take(empty, Meta(allow_empty=True)).rows_total == 0


def test_a_table_that_was_full_refreshed_before_gets_the_column(raw: Raw) -> None:
    raw.load([(1, "x")], mode="full-refresh", at=1)
    raw.load([(1, "x")], at=2)
    assert raw.rows() == [(1, "x", 2), (1, "x", None)]


def test_a_key_may_be_new_in_the_table(raw: Raw) -> None:
    raw.load([("x",)], columns={"a": "string"}, at=1)
    raw.policy = Meta(on_schema_change="add")
    raw.load([(1, "x")], at=2)
    assert raw.rows("id, a, _loaded_at") == [(1, "x", 2), (None, "x", 1)]
