"""Files: a single one, all that fit a pattern, or a whole folder, together one stream.

| format | endings | read by |
|---|---|---|
| CSV | `.csv`, `.csv.gz` | Sling, and compared with an independent reader (`delimited.py`) |
| JSON lines | `.jsonl`, `.ndjson`, `.jsonl.gz`, `.ndjson.gz` | Python (`jsonl.py`) |
| Parquet | `.parquet` | DuckDB (`parquet.py`) |
| Excel | `.xlsx` | openpyxl (`excel.py`) |

Only CSV has no types of its own, so only there Sling changes nothing. Each file is checked on its own; in one stream
they may have different formats and orders of columns. What happens when columns differ is the matter of `columns.py`.

A source that keeps its files elsewhere brings them to the disk and hands a `FileSource` a function that does so.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any

import duckdb

from include.elt.cast import CastResult
from include.elt.columns import Wanted
from include.elt.contract import Contract
from include.elt.early import Early, later
from include.elt.errors import DataError, ExtractError
from include.elt.modes import Reading, Window
from include.elt.replication import Format, Stream
from include.elt.settings import Settings
from include.elt.sources.files.delimited import CsvReader, check_text
from include.elt.sources.files.found import Found, Seen, fitting, format_of, list_local, look, unknown
from include.elt.sources.files.part import Part
from include.elt.text import Place, Text, Texts

__all__ = ["FileDelivery", "FileSource", "Find", "Found", "check_text", "fitting", "list_local"]

log = logging.getLogger(__name__)

Find = Callable[[Path, Reading], Sequence[Found]]
"""Finds the files of a stream, in the order of their names, and brings them to the disk where they are elsewhere: below
the given folder, which is empty and goes away with the extraction. It may leave out what it knows to be among the
reading's `known_files`; the rest of those is left out afterwards, by name and digest."""


class FileSource:
    """A stream that reads files.

    Args:
        stream: the stream.
        contract: columns of its raw table.
        settings: Sling binary and timeout.
        find: finds its files; those on a local disk by default.
    """

    def __init__(self, stream: Stream, contract: Contract, settings: Settings, find: Find | None = None) -> None:
        self.stream = stream
        self.contract = contract
        self.settings = settings
        self.find: Find = find or (lambda _, __: list_local(stream))
        self.wanted = Wanted(contract.names, stream.meta.on_schema_change, stream.primary_key)
        self._csv = CsvReader(stream, self.wanted, settings)

    def kill(self) -> None:
        """End a running Sling process."""
        self._csv.kill()

    def deliver(self, work: Path, null: str, reading: Reading, early: Early = later) -> FileDelivery:  # noqa: ARG002
        """Read the files that are not known yet as text. Nothing is proven before everything is read.

        Raises:
            DataError: there is no file, or one does not fit.
            ExtractError: a file was changed meanwhile, or Sling failed.
        """
        folder = work / "found"
        folder.mkdir()
        found = self.find(folder, reading)
        if not found and reading.mode != "incremental":
            raise DataError(
                f"{self.stream.label}: no file {'is there' if self.stream.is_folder else 'has such a name'}"
            )
        for one, other in pairwise(sorted(found, key=lambda each: each.name)):
            if one.name == other.name:
                raise DataError(f"{one}: found twice, as {other} too; a file is known by its name {one.name}")
        kinds = {each.name: format_of(each, self.stream.source_options.format) for each in found}
        seen = [look(each) for each in found]
        files = unknown(seen, reading.known_files)
        if self.stream.pattern is not None or len(files) < len(seen):
            log.info("%s: %s files, %s of them loaded before", self.stream.id, len(seen), len(seen) - len(files))
        parts: list[Part] = []
        for number, (kind, group) in enumerate(groupby(files, lambda each: kinds[each.found.name])):
            place = work / f"{number}-{kind}"
            place.mkdir()
            parts += self._read(kind, list(group), place, null)
        rows = sum(file.rows for part in parts for file in part.files)
        log.info("%s: %s rows in %s", self.stream.id, f"{rows:,}", self.stream.label)
        return FileDelivery(tuple(parts), self.stream, self._agreed(parts, merges=reading.merges))

    def _read(self, kind: Format, files: list[Seen], work: Path, null: str) -> Iterable[Part]:
        """Read files of one format."""
        options = self.stream.source_options
        if kind == "csv":
            return self._csv.read(files, work, null)
        if kind == "jsonl":
            from include.elt.sources.files.jsonl import read_jsonl

            return [read_jsonl(files, self.wanted, options.null_if, work, null)]
        if kind == "parquet":
            from include.elt.sources.files.parquet import read_parquet

            return read_parquet(files, self.wanted, options.null_if)
        from include.elt.sources.files.excel import read_excel

        parts = []
        for number, seen in enumerate(files):
            place = work / str(number)
            place.mkdir()
            parts.append(read_excel(seen, self.wanted, self.contract, options.sheet, options.null_if, place, null))
        return parts

    def _agreed(self, parts: list[Part], *, merges: bool) -> Contract:
        """The contract without the columns that no file has, if the rows are merged: what the raw table holds stays."""
        missing = frozenset.intersection(*(part.missing for part in parts)) if parts else frozenset()
        if not missing or not merges or not self.wanted.lenient:
            return self.contract
        return self.contract.only(tuple(name for name in self.contract.names if name not in missing))


@dataclass(frozen=True)
class FileDelivery:
    """What was read of files; see `Delivery`."""

    parts: tuple[Part, ...]
    stream: Stream
    contract: Contract
    window: Window | None = None
    keys: None = None
    source_rows: int | None = None
    source_columns: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> Text:
        """The rows of all files."""
        return Texts(tuple(part.text for part in self.parts))

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for part in self.parts for file in part.files)

    @property
    def exact(self) -> bool:
        """Whether Sling had nothing to do with it."""
        return all(part.characters is None for part in self.parts)

    def describe(self) -> dict[str, Any]:
        """The files, each with its size, digest and rows."""
        return {
            "files": [
                {"name": each.seen.found.name, "bytes": each.seen.bytes, "sha256": each.seen.sha256, "rows": each.rows}
                | dict(each.seen.found.origin)
                for part in self.parts
                for each in part.files
            ]
        }

    def locate(self, rows: Iterable[int]) -> Mapping[int, Place]:
        """The file of each row, its number there, and its line."""
        files = [each for part in self.parts for each in part.files]
        ends = list(accumulate(each.rows for each in files))
        by_file: dict[int, dict[int, int]] = {}
        for row in rows:
            number = bisect_left(ends, row)
            by_file.setdefault(number, {})[row] = row - (ends[number - 1] if number else 0)
        places: dict[int, Place] = {}
        for number, own in by_file.items():
            file = files[number]
            lines = file.lines_of(own.values())
            places |= {row: Place(file.seen.found.name, each, lines.get(each)) for row, each in own.items()}
        return places

    def compare(self) -> None:
        """Compare what Sling wrote with the files, value by value."""
        for part in self.parts:
            part.compare()

    def accept(self, result: CastResult) -> None:
        """The cast has to have read what was counted, and the files have to be the same still."""
        for part in self.parts:
            for each in part.files:
                each.seen.check()
        expected = (self.rows, None if self.exact else sum(self._characters(part) for part in self.parts))
        if expected != (result.rows_read, None if self.exact else result.characters):
            raise ExtractError(
                f"{self.stream.label}: the source holds {_counts(*expected)}, but"
                f" {_counts(result.rows_read, result.characters)} were cast; nothing was loaded"
            )

    def _characters(self, part: Part) -> int:
        """Characters of a part, counted independently if Sling wrote it."""
        if part.characters is not None:
            return part.characters
        names = self.contract.names
        lengths = " + ".join(f'coalesce(length("{name}"), 0)' for name in names)
        with duckdb.connect() as sql:
            sql.execute("SET TimeZone = 'UTC'")
            found = sql.execute(f"SELECT coalesce(sum({lengths}), 0) FROM ({part.text.select(names)})").fetchone()
        return int(found[0]) if found else 0


def _counts(rows: int, characters: int | None) -> str:
    return f"{rows:,} rows" if characters is None else f"{rows:,} rows with {characters:,} characters"
