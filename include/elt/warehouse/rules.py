"""Rules of a load that hold for every warehouse: the order of extractions, and counts that have to agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from include.elt.contract import Column
from include.elt.errors import ReconciliationError, RefusedLoadError
from include.elt.lake import Manifest
from include.elt.modes import Window, kind
from include.elt.replication import Meta


@dataclass(frozen=True)
class Loaded:
    """A load in the log.

    Attributes:
        run_id: the run that extracted.
        mode: mode of the load.
        lower: smallest update key that was read.
        upper: largest one.
        closed: whether `upper` itself was read.
        column: the update key; None where everything was read.
    """

    run_id: str
    mode: str
    lower: str | None = None
    upper: str | None = None
    closed: bool = True
    column: str | None = None

    @property
    def window(self) -> Window | None:
        """The range that was read; None for everything."""
        return Window(self.column, self.lower, self.upper, self.closed) if self.column else None


def window_of(manifest: Manifest) -> Window | None:
    """The range that an extraction read; None for everything."""
    return Window(**manifest.window) if manifest.window else None


def files_of(source: dict[str, Any]) -> frozenset[tuple[str, str]]:
    """Name and sha256 of the files that a manifest names as its source."""
    entries = source.get("files")
    return (
        frozenset((str(each["name"]), str(each["sha256"])) for each in entries)
        if isinstance(entries, list)
        else frozenset()
    )


def overlap(one: Window, other: Window, column: Column) -> bool:
    """Whether two ranges of an update key share a value, compared as values of its type."""

    def begins_within(lower: str | None, window: Window) -> bool:
        if lower is None or window.upper is None:
            return True
        first, last = _value(column, lower), _value(column, window.upper)
        return bool(first <= last) if window.closed else bool(first < last)

    return begins_within(one.lower, other) and begins_within(other.lower, one)


def _value(column: Column, text: str) -> Any:
    match kind(column):
        case "time":
            moment = datetime.fromisoformat(text)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        case "number":
            return Decimal(text)
        case "text":
            return text


def check_order(manifest: Manifest, newer: Iterable[Loaded]) -> tuple[Window, ...]:
    """Check that a load brings no old rows back.

    Args:
        manifest: the extraction to be loaded.
        newer: loads into its table whose extractions are newer than this one.

    Returns:
        Ranges whose rows, and those without an update key, are in the table as a newer extraction read them: the load
        has to leave them alone.

    Raises:
        RefusedLoadError: a newer extraction was loaded that may hold the same rows.
    """
    window, known = window_of(manifest), []
    for each in newer:
        if manifest.mode == each.mode == "snapshot" and manifest.run_id != each.run_id:
            continue
        if manifest.mode == each.mode == "backfill" and window and each.window and window.column == each.window.column:
            column = next(Column(*pair) for pair in manifest.columns if pair[0] == window.column)
            if not overlap(window, each.window, column):
                known.append(each.window)
                continue
        raise RefusedLoadError(
            f"{manifest.table}: a newer extraction was loaded already, by run {each.run_id}; clear the extract task"
            " together with this one to load what the source holds now"
        )
    return tuple(known)


def check_counts(manifest: Manifest, policy: Meta, rows: int) -> str | None:
    """Compare the rows of a raw table after the load with those of its source.

    Args:
        manifest: the extraction with the source's count.
        policy: how large a difference may be.
        rows: rows of the raw table that stand for the source: without those marked as deleted, in a snapshot only
            those of this one.

    Returns:
        Both counts in words, for the log; None where nobody compares.

    Raises:
        RefusedLoadError: the difference is too large.
    """
    if manifest.source_rows is None or (tolerated := policy.tolerated(manifest.source_rows)) is None:
        return None
    set_aside = manifest.rows_rejected if manifest.mode in ("full-refresh", "snapshot") else 0
    text = f"{manifest.table}: {rows:,} rows after the load" + (f" and {set_aside:,} rejected" if set_aside else "")
    text += f", {manifest.source_rows:,} in the source"
    difference = abs(rows + set_aside - manifest.source_rows)
    if difference > tolerated:
        last = "" if manifest.mode == "snapshot" else "; if it stays, run the DAG with full_refresh or backfill a range"
        raise ReconciliationError(
            f"{text}: a difference of {difference:,}, and meta.reconcile tolerates {tolerated:,}; the load was rolled"
            f" back. Clear the extract task together with this one{last}"
        )
    return text
