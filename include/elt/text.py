"""Text on its way from a source to the cast: every value as the source spells it, and SQL to read it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from include.elt.sql import file_list, literal, quoted

_LINE = 2**21
"""Characters of a record up to which DuckDB 1.5 reads with several threads."""

_BUFFER = 2**23
"""Bytes that DuckDB reads at once; four times as many take a tenth more processor time (they leave its cache)."""


@dataclass(frozen=True)
class Place:
    """Where a row stands in its source, for messages.

    Attributes:
        file: the file's name; None where there are no files.
        row: number of the row in the file, the first one after a header is 1.
        line: the line in which it starts, or the row of an Excel sheet; None where there are no lines.
    """

    file: str | None
    row: int
    line: int | None


class Text(Protocol):
    """Rows as text, readable by DuckDB."""

    @property
    def canonical(self) -> frozenset[str]:
        """Columns whose text is what a database prints of a type that the contract's type holds."""

    def select(self, names: Iterable[str]) -> str:
        """SQL that gives these columns as VARCHAR, row by row in the order of the source."""


@dataclass(frozen=True)
class TextFile:
    """CSV that Sling wrote, in one or several files: comma, LF, UTF-8, a header.

    Attributes:
        paths: the files, in the order of their rows.
        header: their column names in order. A column that is asked for and is not there is NULL.
        null: text that stands for NULL; no value holds it. Where it is empty, an empty field without quotes is NULL and
            one with quotes is ''.
        cr: text that stands for a CR inside a value; no value holds it.
        longest: characters of the longest record, at most.
        canonical: see `Text.canonical`.
        quote: the character around values, doubled inside them.
    """

    paths: tuple[Path, ...]
    header: tuple[str, ...]
    null: str
    cr: str
    longest: int
    canonical: frozenset[str] = frozenset()
    quote: str = '"'

    def select(self, names: Iterable[str]) -> str:
        """See `Text.select`."""
        values = []
        for name in names:
            if name not in self.header:
                values.append(f"NULL::VARCHAR AS {quoted(name)}")
                continue
            value = f"replace({quoted(name)}, {literal(self.cr)}, chr(13))" if self.cr else quoted(name)
            values.append(f"{value} AS {quoted(name)}")
        return f"SELECT {', '.join(values)} FROM {self._read()}"

    def _read(self) -> str:
        line = max(_LINE, 4 * self.longest + 2**16)
        types = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in self.header)
        return (
            f"read_csv({file_list(self.paths)}, auto_detect=false, header=true, columns={{{types}}},"
            f" delim=',', quote={literal(self.quote)}, escape={literal(self.quote)}, nullstr={literal(self.null)},"
            f" allow_quoted_nulls={bool(self.null)}, strict_mode=true, null_padding=false,"
            f" new_line='\\n', max_line_size={line}, buffer_size={max(_BUFFER, 2 * line)},"
            f" parallel={line == _LINE}, hive_partitioning=false)"
        )


@dataclass(frozen=True)
class Texts:
    """Several texts one after the other; their columns may stand in different orders. None is no rows."""

    texts: tuple[Text, ...]
    canonical: frozenset[str] = frozenset()

    def select(self, names: Iterable[str]) -> str:
        """See `Text.select`."""
        names = tuple(names)
        if not self.texts:
            return f"SELECT {', '.join(f'NULL::VARCHAR AS {quoted(name)}' for name in names)} LIMIT 0"
        return " UNION ALL ".join(text.select(names) for text in self.texts)
