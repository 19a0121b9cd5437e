"""Whether a raw table has about as many rows as it uses to have: what the daily report and the page go by."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

ENOUGH = 5
"""Earlier loads that are needed before one of them can be called unusual."""

SHRUNK, GREW = 0.8, 3.0
"""A table is unusual with less than this part, or more than this many times, of its earlier loads' median of rows."""


def usual(earlier: Sequence[int]) -> int | None:
    """Rows that are usual, by the rows after earlier loads; None without any."""
    return int(median(earlier)) if earlier else None


def unusual(rows: int, earlier: Sequence[int]) -> str | None:
    """What is unusual about the rows of a table; None if nothing is, or there were too few loads to tell.

    Args:
        rows: rows after the last load.
        earlier: rows after the loads before.
    """
    expected = usual(earlier)
    if expected is None or len(earlier) < ENOUGH:
        return None
    if rows < SHRUNK * expected:
        return f"shrank: {rows:,} rows, {expected:,} are usual"
    if rows > GREW * max(1, expected):
        return f"grew: {rows:,} rows, {expected:,} are usual"
    return None
