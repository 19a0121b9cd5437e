"""A second pair of eyes on a CSV file: what it holds, counted independently of Sling.

Sling repairs or drops what it does not like and reports success: bad UTF-8 becomes U+FFFD, a line break inside quotes
changes from CRLF to LF, an unclosed quote swallows the rest of the file (measured with Sling 1.4.11). So every file is
read once with Python's strict CSV parser first. That pass finds what is wrong, with its line, and counts records and
characters. A second one compares the file with what Sling delivered, value by value.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from include.elt.errors import DataError, ExtractError
from include.elt.paths import shown

if TYPE_CHECKING:
    from _csv import Reader

LARGEST_FIELD = 64 * 1024 * 1024
"""Characters a single field may have."""

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class Survey:
    """What an independent reader found in a CSV file.

    Attributes:
        file: the file.
        bytes: its size.
        modified: its modification time, nanoseconds.
        sha256: hexadecimal digest of its bytes.
        header: column names in lower case, in the order of the file.
        rows: records after the header; empty lines are none.
        characters: characters of all fields that are not NULL, without quotes and separators.
        longest: characters of the longest record.
        most_crs: CRs in the record that has most of them; Sling would turn some of them into LF.
        ends_with_line_end: whether the last record has one; a file that was cut off inside its last field has none.
    """

    file: Path
    bytes: int
    modified: int
    sha256: str
    header: tuple[str, ...]
    rows: int
    characters: int
    longest: int
    most_crs: int
    ends_with_line_end: bool

    def is_current(self) -> bool:
        """Whether the file is still the one that was read: there, with the same size and modification time."""
        try:
            status = self.file.stat()
        except FileNotFoundError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.bytes, self.modified)


def _encoding(file: Path) -> str:
    """The encoding that the file's byte order mark tells, or UTF-8."""
    with file.open("rb") as stream:
        start = stream.read(4)
    return next((encoding for bom, encoding in _BOMS if start.startswith(bom)), "utf-8")


@contextmanager
def _records(file: Path, delimiter: str) -> Iterator[Reader]:
    """A strict CSV reader over the file; lines end at LF or CRLF only, so that a CR in a field stays one."""
    csv.field_size_limit(LARGEST_FIELD)
    with file.open(encoding=_encoding(file), newline="\n", errors="strict") as stream:
        yield csv.reader(stream, delimiter=delimiter, strict=True)


def _undecodable(file: Path) -> str:
    """Where the file's bytes stop being text of its encoding, as `line N, byte M of the line`."""
    encoding = _encoding(file)
    if encoding == "utf-16":
        return "an incomplete or invalid UTF-16 character"
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"line {number}, byte {error.start + 1} of the line: {line[error.start : error.end]!r}"
    return "an incomplete UTF-8 character at its end"


def _ends_with_line_end(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(-min(4, stream.seek(0, 2)), 2)
        return b"\n" in stream.read()[-2:]


def _check_header(header: list[str], expected: tuple[str, ...], file: Path, delimiter: str) -> tuple[str, ...]:
    """The column names in lower case, if they are exactly the expected ones in any order."""
    names = tuple(name.lower() for name in header)
    wanted = f"expected the columns {', '.join(expected)}"
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{shown(file)}: line 1: the column {twice[0]} is there twice; {wanted}")
    missing = [name for name in expected if name not in names]
    extra = [name for name in names if name not in expected]
    if missing and len(names) == 1 and len(expected) > 1:
        other = next((mark for mark in ";\t|," if mark != delimiter and mark in names[0]), None)
        hint = f"; it looks separated by {other!r}: set source_options.delimiter" if other else ""
        raise DataError(f"{shown(file)}: line 1: one column {header[0]!r} with delimiter {delimiter!r}{hint}; {wanted}")
    if missing or extra:
        parts = [f"{word} {', '.join(map(repr, some))}" for word, some in (("no", missing), ("unknown", extra)) if some]
        raise DataError(
            f"{shown(file)}: line 1: {' and '.join(parts)}; {wanted}."
            " If the source changed on purpose, change the contract in sources.yml too"
        )
    return names


def read_header(file: Path, expected: tuple[str, ...], delimiter: str = ",") -> tuple[str, ...]:
    """The column names of a CSV file, in lower case and in their order.

    Args:
        file: a CSV file in UTF-8, or in UTF-16 with a byte order mark.
        expected: column names of the contract; the file has to have exactly these, in any order and case.
        delimiter: the character between two fields.

    Raises:
        DataError: the file is missing or empty, or has other columns.
    """
    name = shown(file)
    if not file.is_file():
        raise DataError(f"{name}: no such file")
    if file.stat().st_size == 0:
        raise DataError(f"{name}: the file is empty; expected a header line with {', '.join(expected)}")
    try:
        with _records(file, delimiter) as reader:
            return _check_header(next(reader, []), expected, file, delimiter)
    except UnicodeError as error:
        raise DataError(f"{name}: not valid text in {_encoding(file)}: {_undecodable(file)}") from error
    except csv.Error as error:
        raise DataError(f"{name}: line 1: the header is broken: {error}") from error


def survey(file: Path, expected: tuple[str, ...], delimiter: str = ",", null_if: str | None = None) -> Survey:
    """Read a whole CSV file strictly and count what it holds. Memory stays flat.

    Args:
        file: a CSV file in UTF-8, or in UTF-16 with a byte order mark.
        expected: column names of the contract; the file has to have exactly these, in any order and case.
        delimiter: the character between two fields.
        null_if: text that stands for NULL, so that it is not counted as characters.

    Returns:
        The figures that the extraction has to match.

    Raises:
        DataError: the file is missing or empty, is not valid text, has other columns, a record with more or fewer
            fields, or a quote that is not closed. The message names file and line.
        ExtractError: the file went away meanwhile.
    """
    header = read_header(file, expected, delimiter)
    name, width = shown(file), len(header)
    rows = characters = longest = most_crs = 0
    started_at = 1
    try:
        status = file.stat()
        with _records(file, delimiter) as reader:
            next(reader, None)
            started_at = reader.line_num + 1
            for record in reader:
                if len(record) != width:
                    if record or width == 1:
                        raise DataError(
                            f"{name}: line {started_at}: {len(record)} fields, expected {width}: {_excerpt(record)}"
                        )
                    started_at = reader.line_num + 1
                    continue
                text = "".join(record)
                if not text and width == 1:
                    raise DataError(
                        f"{name}: line {started_at}: an empty field; in a file of one column it cannot be told from"
                        " a blank line"
                    )
                rows += 1
                length = len(text)
                characters += length
                if length > longest:
                    longest = length
                if "\r" in text:
                    most_crs = max(most_crs, text.count("\r"))
                if null_if is not None and null_if in record:
                    characters -= len(null_if) * record.count(null_if)
                started_at = reader.line_num + 1
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except UnicodeError as error:
        raise DataError(f"{name}: not valid text in {_encoding(file)}: {_undecodable(file)}") from error
    except csv.Error as error:
        raise DataError(
            f"{name}: the record that starts in line {started_at} is broken: {error}"
            " (a quote that is not closed, text after a closing quote, or a stray line break)"
        ) from error
    except FileNotFoundError as error:
        raise ExtractError(f"{name}: the file was changed while it was read; nothing was loaded") from error
    return Survey(
        file,
        status.st_size,
        status.st_mtime_ns,
        digest,
        header,
        rows,
        characters,
        longest,
        most_crs,
        _ends_with_line_end(file),
    )


def _excerpt(record: list[str]) -> str:
    """The start of a record, short enough for a message."""
    text = ", ".join(map(repr, record))
    return text if len(text) <= 200 else f"{text[:200]}…"


def copy_without_cr(source: Survey, target: Path, delimiter: str, marker: str) -> None:
    """Write the file again as UTF-8 with every CR inside a field replaced by `marker`, for Sling to read.

    Args:
        source: survey of the file.
        target: where the copy goes.
        delimiter: the character between two fields, in both files.
        marker: text that no field holds.
    """
    with _records(source.file, delimiter) as reader, target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        for record in reader:
            if record:
                writer.writerow([field.replace("\r", marker) for field in record])


def first_difference(
    source: Survey, delivered: Path, delimiter: str, null_if: str | None, null: str, cr: str
) -> str | None:
    """Compare the file with what Sling made of it, record by record.

    Args:
        source: survey of the file.
        delivered: CSV in UTF-8 with commas, the same columns in the same order.
        delimiter: the character between two fields of the source.
        null_if: text that stands for NULL in the source.
        null: text that stands for NULL in what was delivered.
        cr: text that stands for a CR in what was delivered; empty for none.

    Returns:
        The first row that is not the same, for a message; None if all are.
    """
    nothing: list[str] = []
    try:
        with _records(source.file, delimiter) as ours, _records(delivered, ",") as theirs:
            pairs = zip_longest(filter(None, ours), filter(None, theirs), fillvalue=nothing)
            next(pairs)  # the headers
            for row, (want, got) in enumerate(pairs, 1):
                if want == got:
                    continue
                expected = [null if field == null_if else field for field in want]
                if cr:
                    got = [field.replace(cr, "\r") for field in got]
                if got != expected:
                    return f"row {row}: {_excerpt(want) or 'nothing'} became {_excerpt(got) or 'nothing'}"
    except (UnicodeError, csv.Error) as error:
        return f"what Sling wrote is not CSV: {error}"
    return None


def lines_of_rows(file: Path, rows: Iterable[int], delimiter: str = ",") -> dict[int, int]:
    """The lines in which data rows start, for messages; the first row after the header is 1.

    Args:
        file: a file that `survey` found good.
        rows: numbers of the rows.
        delimiter: the character between two fields.

    Returns:
        Line by row.
    """
    wanted = set(rows)
    lines = {}
    with _records(file, delimiter) as reader:
        next(reader, None)
        row, line = 0, reader.line_num + 1
        for record in reader:
            row += bool(record)
            if record and row in wanted:
                lines[row] = line
                if len(lines) == len(wanted):
                    break
            line = reader.line_num + 1
    return lines
