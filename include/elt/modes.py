"""Modes: what one run reads of a stream, and how it is loaded.

| mode | what is read | how it is loaded |
|---|---|---|
| `full-refresh` | everything | takes the place of the raw table |
| `incremental` | from the raw table's watermark minus `meta.lookback`; of files those not loaded yet | merged |
| `backfill` | a range of the update key: the run's form, or its data interval | merged |
| `snapshot` | everything | appended, with the time of reading |

The lower bound of an incremental read is closed, because rows may share their update key, and so is the upper one: the
largest update key that the source held at the start. What is written later waits for the next run, even where several
processes read at different moments. Rows without an update key belong to every range. Merging makes it harmless to read
a row twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Literal

from include.elt.contract import Column, Contract
from include.elt.errors import ReplicationError, SettingsError
from include.elt.replication import Mode, Stream
from include.elt.warehouse import TableState

Kind = Literal["time", "number", "text"]


@dataclass(frozen=True)
class Window:
    """A range of the update key; NULL is in every range.

    Attributes:
        column: the update key.
        lower: smallest value, as text of the column's contract type; None for no limit.
        upper: largest value, likewise; None for no limit yet.
        closed: whether `upper` itself is in the range.
    """

    column: str
    lower: str | None = None
    upper: str | None = None
    closed: bool = True


@dataclass(frozen=True)
class Reading:
    """What a run reads of a stream.

    Attributes:
        mode: how the rows are loaded; that of the stream, or what the run makes of it.
        window: the rows that are read; None for all. One without an upper limit is closed by the source at the largest
            update key it holds.
        known_files: name and sha256 of files that were loaded already and are left out.
    """

    mode: Mode = "full-refresh"
    window: Window | None = None
    known_files: frozenset[tuple[str, str]] = frozenset()

    @property
    def merges(self) -> bool:
        """Whether rows replace those of the same primary key, so that of duplicates only the latest counts."""
        return self.mode in ("incremental", "backfill")


@dataclass(frozen=True)
class Span:
    """What a run asks for.

    Attributes:
        range: first and last value of the update key, from the run's form; None for no range.
        interval: the run's data interval, start (in it) and end (not in it); None if it has none.
        is_backfill: whether Airflow made the run for a backfill, so that its interval is meant.
        full_refresh: whether everything is to be read again.
    """

    range: tuple[str, str] | None = None
    interval: tuple[datetime, datetime] | None = None
    is_backfill: bool = False
    full_refresh: bool = False


def plan(stream: Stream, contract: Contract, span: Span, state: Callable[[], TableState | None]) -> Reading:
    """What a run reads of a stream.

    Args:
        stream: the stream.
        contract: the type of its update key.
        span: what the run asks for.
        state: asks the warehouse where the raw table stands; called only where that matters.

    Raises:
        SettingsError: the range does not fit the update key, or a backfill has neither range nor interval.
    """
    if stream.mode in ("full-refresh", "snapshot"):
        return Reading(stream.mode)
    if span.full_refresh:
        return Reading("full-refresh")
    key = contract.column(stream.update_key) if stream.update_key else None
    if stream.is_file or key is None:
        now = state()
        return Reading("incremental", known_files=now.files if now else frozenset())
    if span.range is not None:
        return Reading("backfill", _range(key, *span.range))
    if span.is_backfill or stream.mode == "backfill":
        if span.interval is None or span.interval[0] >= span.interval[1]:
            raise SettingsError(
                f"stream {stream.id}: a backfill needs a range: give the run's form one, or the DAG a timetable with a"
                " data interval, like CronDataIntervalTimetable"
            )
        return Reading("backfill", _interval(key, *span.interval))
    now = state()
    watermark = now.watermark if now else None
    lower = None if watermark is None else _less(key, watermark, stream.meta.lookback)
    return Reading("incremental", Window(key.name, lower))


def kind(column: Column) -> Kind:
    """How values of an update key are counted."""
    if column.data_type.startswith(("timestamp", "date")):
        return "time"
    return "text" if column.is_text or column.data_type == "boolean" else "number"


def check_lookback(column: Column, lookback: int | str) -> None:
    """Check that a look-back fits its update key.

    Raises:
        ReplicationError: it is a duration where numbers are counted, or the other way round.
    """
    match kind(column):
        case "time":
            duration(lookback)
        case "number":
            if not isinstance(lookback, int):
                raise ReplicationError(f"got {lookback!r}; {column.name} is a {column.data_type}: a number is needed")
        case "text":
            raise ReplicationError(f"{column.name} is a {column.data_type}; a look-back needs a date, time or number")


def duration(text: int | str) -> timedelta:
    """A time span like `3 days`, `12 hours` or `90 minutes`.

    Raises:
        ReplicationError: it is not one.
    """
    match = re.fullmatch(r"(\d+) (day|hour|minute|second)s?", str(text))
    if not match:
        raise ReplicationError(f"got {text!r}; a time span like `3 days`, `12 hours` or `90 minutes` is needed")
    return timedelta(**{f"{match[2]}s": int(match[1])})


def _less(key: Column, watermark: str, lookback: int | str | None) -> str:
    """The watermark minus the look-back; one that would leave the calendar stops at its start."""
    if not lookback:
        return watermark
    if kind(key) == "number":
        return str(Decimal(watermark) - Decimal(lookback))
    span = duration(lookback)
    moment = _moment(watermark)
    first = datetime.min.replace(tzinfo=UTC)
    earlier = moment - span if moment - first > span else first
    if key.data_type == "date":
        return earlier.date().isoformat()
    return _as_text(key, earlier)


def _moment(text: str) -> datetime:
    """An ISO date or time; without an offset it is UTC."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _as_text(key: Column, moment: datetime) -> str:
    """A moment as text of the column's type: with its offset for an instant, without for a wall-clock time."""
    utc = moment.astimezone(UTC)
    return (utc if key.data_type == "timestamp" else utc.replace(tzinfo=None)).isoformat(" ")


def _interval(key: Column, start: datetime, end: datetime) -> Window:
    """A data interval. Intervals that follow each other share nothing; a date counts as its midnight."""
    if kind(key) != "time":
        raise SettingsError(
            f"column {key.name} is a {key.data_type}; a data interval needs a date or a timestamp as the update key"
        )
    if key.data_type != "date":
        return Window(key.name, _as_text(key, start), _as_text(key, end), closed=False)
    first, last = (_midnight_from(each).isoformat() for each in (start, end))
    return Window(key.name, first, last, closed=False)


def _midnight_from(moment: datetime) -> date:
    """The first date whose midnight is not before the moment."""
    utc = moment.astimezone(UTC)
    return utc.date() + timedelta(days=utc.time() > time())


def _range(key: Column, first: str, last: str) -> Window:
    """A range from the run's form, both ends in it; a day without a time as its end is in it as a whole."""
    try:
        match kind(key):
            case "text":
                return Window(key.name, first, last)
            case "number":
                return Window(key.name, str(Decimal(first)), str(Decimal(last)))
            case "time":
                lower, upper = _moment(first), _moment(last)
    except (ValueError, InvalidOperation):
        raise SettingsError(
            f"the range {first!r} to {last!r} does not fit the update key {key.name}, a {key.data_type}"
        ) from None
    if key.data_type == "date":
        return Window(key.name, lower.date().isoformat(), upper.date().isoformat())
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", last):
        return Window(key.name, _as_text(key, lower), _as_text(key, upper + timedelta(days=1)), closed=False)
    return Window(key.name, _as_text(key, lower), _as_text(key, upper))
