"""What a run reads of a stream."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.elt.contract import Column, Contract
from include.elt.errors import SettingsError
from include.elt.modes import Reading, Span, Window, plan
from include.elt.replication import Stream
from include.elt.warehouse import TableState

DAY = (datetime(2026, 1, 1, 5, tzinfo=UTC), datetime(2026, 1, 2, 5, tzinfo=UTC))
WATERMARKS = {
    "timestamp": "2026-01-05 10:00:00.123456+00",
    "timestamp_ntz": "2026-01-05 10:00:00",
    "date": "2026-01-05",
    "bigint": "100",
    "decimal(10,2)": "100.50",
    "string": "abc",
}


def stream(mode: str = "incremental", name: str = "web.users", **meta: Any) -> Stream:
    keys: dict[str, Any] = {"mode": mode, "object": "raw.users", "primary_key": ["id"], "update_key": "upd"}
    return Stream(name=name, meta=meta, **keys)


def contract(data_type: str = "timestamp") -> Contract:
    return Contract("raw.users", "web.users", (Column("id", "bigint"), Column("upd", data_type)), Path("sources.yml"))


NO_SPAN = Span()


def reading(
    data_type: str = "timestamp",
    span: Span = NO_SPAN,
    watermark: str | None = None,
    mode: str = "incremental",
    **meta: Any,
) -> Reading:
    def state() -> TableState | None:
        return None if watermark is None else TableState(1, watermark, frozenset())

    return plan(stream(mode, **meta), contract(data_type), span, state)


def window(**what: Any) -> Window:
    found = reading(**what).window
    assert found is not None
    return found


class TestModes:
    @pytest.mark.parametrize("mode", ["full-refresh", "snapshot"])
    def test_everything_is_read_whatever_the_run_asks(self, mode: str) -> None:
        span = Span(range=("2026-01-01", "2026-01-02"), interval=DAY, is_backfill=True)
        assert reading(mode=mode, span=span, watermark="x") == Reading(mode)  # type: ignore[arg-type]

    def test_a_first_incremental_read_has_no_lower_limit(self) -> None:
        assert reading() == Reading("incremental", Window("upd"))

    @pytest.mark.parametrize("mode", ["incremental", "backfill"])
    def test_a_full_refresh_forgets_the_mode(self, mode: str) -> None:
        assert reading(mode=mode, span=Span(full_refresh=True), watermark="2026-01-01") == Reading("full-refresh")

    def test_files_that_were_loaded_are_known(self) -> None:
        files = frozenset({("a.csv", "0" * 64)})
        found = plan(stream(name="file:///a/*.csv"), contract(), Span(), lambda: TableState(5, "2026-01-01", files))
        assert found == Reading("incremental", known_files=files)

    def test_a_backfill_without_a_range_says_what_is_missing(self) -> None:
        nothing = (DAY[0], DAY[0])
        for span in (Span(), Span(interval=nothing), Span(interval=nothing, is_backfill=True)):
            with pytest.raises(SettingsError, match="stream users: a backfill needs a range"):
                reading(mode="backfill", span=span)


class TestLookback:
    @pytest.mark.parametrize("data_type", WATERMARKS)
    def test_without_one_the_watermark_is_the_lower_limit(self, data_type: str) -> None:
        found = window(data_type=data_type, watermark=WATERMARKS[data_type])
        assert found == Window("upd", WATERMARKS[data_type], None)

    @pytest.mark.parametrize(
        ("data_type", "lookback", "lower"),
        [
            ("timestamp", "3 days", "2026-01-02 10:00:00.123456+00:00"),
            ("timestamp_ntz", "90 minutes", "2026-01-05 08:30:00"),
            ("date", "1 day", "2026-01-04"),
            ("date", "1 hour", "2026-01-04"),
            ("bigint", 30, "70"),
            ("decimal(10,2)", 1, "99.50"),
        ],
    )
    def test_it_is_taken_off_the_watermark(self, data_type: str, lookback: int | str, lower: str) -> None:
        assert window(data_type=data_type, watermark=WATERMARKS[data_type], lookback=lookback).lower == lower

    def test_it_stops_at_the_start_of_the_calendar(self) -> None:
        assert window(data_type="date", watermark="0001-01-02", lookback="3 days").lower == "0001-01-01"


class TestRanges:
    @pytest.mark.parametrize(
        ("data_type", "expected"),
        [
            ("timestamp", Window("upd", "2026-01-01 05:00:00+00:00", "2026-01-02 05:00:00+00:00", closed=False)),
            ("timestamp_ntz", Window("upd", "2026-01-01 05:00:00", "2026-01-02 05:00:00", closed=False)),
            ("date", Window("upd", "2026-01-02", "2026-01-03", closed=False)),
        ],
    )
    def test_an_interval_has_an_open_end(self, data_type: str, expected: Window) -> None:
        assert reading(data_type=data_type, mode="backfill", span=Span(interval=DAY)) == Reading("backfill", expected)
        backfill = Span(interval=DAY, is_backfill=True)
        assert reading(data_type=data_type, span=backfill, watermark="2026-05-05") == Reading("backfill", expected)

    def test_an_interval_that_is_no_backfill_does_not_matter_for_incremental(self) -> None:
        assert reading(span=Span(interval=DAY)) == Reading("incremental", Window("upd"))

    def test_an_interval_needs_a_time(self) -> None:
        with pytest.raises(SettingsError, match="column upd is a bigint; a data interval needs"):
            reading(data_type="bigint", mode="backfill", span=Span(interval=DAY))

    @pytest.mark.parametrize(
        ("data_type", "given", "expected"),
        [
            (
                "timestamp",
                ("2026-01-01", "2026-01-31"),
                ("2026-01-01 00:00:00+00:00", "2026-02-01 00:00:00+00:00", False),
            ),
            (
                "timestamp",
                ("2026-01-01", "2026-01-31T12:00:00+02:00"),
                ("2026-01-01 00:00:00+00:00", "2026-01-31 10:00:00+00:00", True),
            ),
            (
                "timestamp_ntz",
                ("2026-01-01 01:00", "2026-01-01 02:00"),
                ("2026-01-01 01:00:00", "2026-01-01 02:00:00", True),
            ),
            ("date", ("2026-01-01", "2026-01-31"), ("2026-01-01", "2026-01-31", True)),
            ("bigint", ("-5", "10"), ("-5", "10", True)),
            ("string", ("a", "b"), ("a", "b", True)),
        ],
    )
    def test_a_range_of_the_form_has_both_ends_in_it(
        self, data_type: str, given: tuple[str, str], expected: tuple[str, str, bool]
    ) -> None:
        assert reading(data_type=data_type, span=Span(range=given)) == Reading("backfill", Window("upd", *expected))

    @pytest.mark.parametrize(("data_type", "given"), [("timestamp", ("x", "y")), ("bigint", ("1", "one"))])
    def test_a_range_of_another_type_is_refused(self, data_type: str, given: tuple[str, str]) -> None:
        with pytest.raises(SettingsError, match="does not fit the update key upd"):
            reading(data_type=data_type, span=Span(range=given))
