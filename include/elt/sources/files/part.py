"""What the readers of all formats give: the text of some files, and what is known of each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from include.elt.sources.files.found import Seen
from include.elt.text import Text


@dataclass(frozen=True)
class FileRows:
    """The rows of one file.

    Attributes:
        seen: the file.
        rows: their number.
        lines_of: the lines of rows, by their number in the file, as far as there are lines.
    """

    seen: Seen
    rows: int
    lines_of: Callable[[Iterable[int]], Mapping[int, int]] = lambda _: {}


@dataclass(frozen=True)
class Part:
    """Files that became one text, in the order of their rows.

    Attributes:
        files: the files.
        text: their rows.
        missing: columns of the contract that no row has.
        characters: characters of all values that are not NULL, counted independently of Sling; None where Sling had
            nothing to do with them.
        compare: compares the text with the files, where Sling made it.
    """

    files: tuple[FileRows, ...]
    text: Text
    missing: frozenset[str] = frozenset()
    characters: int | None = None
    compare: Callable[[], None] = lambda: None


class LineMap:
    """The line of each row where nearly all lines are rows; remembers only the others."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._offsets: list[int] = []

    def add(self, row: int, line: int) -> None:
        """Take note of a row; they come in order."""
        if (self._offsets[-1] if self._offsets else None) != line - row:
            self._rows.append(row)
            self._offsets.append(line - row)

    def lines_of(self, rows: Iterable[int]) -> dict[int, int]:
        """Line by row."""
        return {row: row + self._offsets[bisect_right(self._rows, row) - 1] for row in rows}
