"""Whether a table has about as many rows as it uses to have: what the daily report and the page go by.

A raw table or mart is compared with the days before, as the daily report counted them (`ops.completeness`); a raw table
without enough of these with its loads before.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

ENOUGH = 5
"""Earlier days or loads that are needed before a number of rows can be called unusual."""

SHRUNK, GREW = 0.8, 3.0
"""A table is unusual with less than this part, or more than this many times, of the median of its rows before."""

KEY = "completeness"
"""XCom of the task that counts: what it found, packed as include/elt/results.py packs what dbt did."""

GONE = "disappeared: it is not in the warehouse, or cannot be read"
"""What is said of a table that was there before."""


def usual(earlier: Sequence[int]) -> int | None:
    """Rows that are usual, by the rows of earlier days or loads; None without any."""
    return int(median(earlier)) if earlier else None


def unusual(rows: int, earlier: Sequence[int]) -> str | None:
    """What is unusual about the rows of a table; None if nothing is, or there is too little to tell by.

    Args:
        rows: its rows.
        earlier: its rows on the days, or after the loads, before.
    """
    expected = usual(earlier)
    if expected is None or len(earlier) < ENOUGH:
        return None
    many = f"{rows:,} row{'' if rows == 1 else 's'}"
    if rows < SHRUNK * expected:
        return f"shrank: {many}, {expected:,} are usual"
    if rows > GREW * max(1, expected):
        return f"grew: {many}, {expected:,} are usual"
    return None


def compared_with(days: Sequence[int], loads: Sequence[int]) -> Sequence[int]:
    """What a table is compared with: its days before, or its loads before while there are not enough days.

    Args:
        days: its rows on the days before, the newest first.
        loads: its rows after the loads before, the newest first.
    """
    return days if len(days) >= ENOUGH or len(days) >= len(loads) else loads
