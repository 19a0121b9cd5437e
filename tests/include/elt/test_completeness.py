"""What is usual about a table's rows, and what is not."""

from __future__ import annotations

import pytest

from include.elt.completeness import compared_with, unusual, usual


def test_the_median_is_usual_whatever_one_load_was() -> None:
    assert usual([100, 100, 0, 101, 9000]) == 100
    assert usual([]) is None


@pytest.mark.parametrize(
    ("rows", "earlier", "found"),
    [
        (79, [100] * 5, "shrank: 79 rows, 100 are usual"),
        (1, [100] * 5, "shrank: 1 row, 100 are usual"),
        (80, [100] * 5, None),
        (300, [100] * 5, None),
        (301, [100] * 5, "grew: 301 rows, 100 are usual"),
        (1, [100] * 4, None),
        (0, [0] * 5, None),
        (4, [0] * 5, "grew: 4 rows, 0 are usual"),
    ],
)
def test_what_is_unusual(rows: int, earlier: list[int], found: str | None) -> None:
    assert unusual(rows, earlier) == found


@pytest.mark.parametrize(
    ("days", "loads", "chosen"),
    [
        ([1] * 5, [2] * 20, [1] * 5),
        ([1] * 4, [2] * 20, [2] * 20),
        ([1] * 4, [2] * 3, [1] * 4),
        ([], [2], [2]),
        ([], [], []),
    ],
)
def test_days_are_compared_as_soon_as_there_are_enough(days: list[int], loads: list[int], chosen: list[int]) -> None:
    assert compared_with(days, loads) == chosen
