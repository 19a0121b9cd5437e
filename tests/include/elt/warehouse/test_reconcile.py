"""Policy `meta.reconcile`: the raw table has as many rows as its source."""

from __future__ import annotations

import logging

import pytest

from include.elt.errors import RefusedLoadError
from include.elt.replication import Meta
from tests.support.loads import Raw

EXACT = Meta(reconcile="exact")


@pytest.mark.parametrize("mode", ["full-refresh", "incremental", "backfill", "snapshot"])
class TestInEveryMode:
    def test_equal_counts_are_told(self, raw: Raw, mode: str, caplog: pytest.LogCaptureFixture) -> None:
        raw.policy = EXACT
        with caplog.at_level(logging.INFO):
            assert raw.load([(1, "x"), (2, "y")], mode=mode, source_rows=2).source_rows == 2
        assert "raw.orders: 2 rows after the load, 2 in the source" in caplog.text

    def test_other_counts_are_refused_and_rolled_back(self, raw: Raw, mode: str) -> None:
        raw.load([(1, "x")], mode=mode)
        before = raw.rows()
        raw.policy = EXACT
        with pytest.raises(RefusedLoadError, match=r"2 rows.*, 7 in the source.*of 5,.*tolerates 0.*Clear the extract"):
            raw.load([(1, "x"), (2, "y")], mode=mode, source_rows=7)
        assert raw.rows() == before
        assert raw.bench.query("SELECT count(*) FROM ops.load_log") == [(1,)]

    def test_a_difference_that_is_tolerated(self, raw: Raw, mode: str) -> None:
        raw.policy = Meta(reconcile="20%")
        raw.load([(n, "x") for n in range(8)], mode=mode, source_rows=10)
        with pytest.raises(RefusedLoadError, match="tolerates 2"):
            raw.load([(n, "x") for n in range(8)], mode=mode, source_rows=11)

    def test_nobody_compares_without_count_or_policy(self, raw: Raw, mode: str) -> None:
        raw.load([(1, "x")], mode=mode, source_rows=7)
        raw.policy = EXACT
        raw.load([(1, "x")], mode=mode)

    def test_a_repeated_load_is_not_compared_again(self, raw: Raw, mode: str) -> None:
        extraction = raw.extract([(1, "x")], mode=mode, source_rows=7)
        raw.take(extraction)
        assert raw.take(extraction, EXACT).repeated


@pytest.mark.parametrize("mode", ["full-refresh", "snapshot"])
def test_rejected_rows_of_a_whole_read_count(raw: Raw, mode: str) -> None:
    raw.policy = EXACT
    raw.load([(1, "x")], mode=mode, source_rows=3, rows_rejected=2)


def test_rejected_rows_of_a_part_do_not_count(raw: Raw) -> None:
    raw.policy = EXACT
    with pytest.raises(RefusedLoadError, match="1 rows after the load, 3 in the source"):
        raw.load([(1, "x")], source_rows=3, rows_rejected=2)


def test_rows_marked_as_deleted_do_not_count(raw: Raw) -> None:
    raw.policy = Meta(deletes="soft", reconcile="exact")
    raw.load([(1, "x"), (2, "y")], mode="full-refresh", source_rows=2)
    raw.load([(1, "x")], mode="full-refresh", source_rows=1)
    raw.load([(3, "z"), (4, "w")], keys=[(3,), (4,)], source_rows=2)
    assert len(raw.rows()) == 4


def test_only_the_snapshot_at_hand_counts(raw: Raw) -> None:
    raw.policy, raw.mode = EXACT, "snapshot"
    raw.load([(1, "x"), (2, "y")], source_rows=2)
    assert raw.load([(1, "x")], source_rows=1).rows_total == 3
