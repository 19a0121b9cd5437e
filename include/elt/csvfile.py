"""A second pair of eyes on a CSV file: what it holds, counted independently of Sling.

Sling repairs or drops what it does not like and reports success: bad UTF-8 becomes U+FFFD, a line break inside quotes
changes from CRLF to LF, an unclosed quote swallows the rest of the file (measured with Sling 1.4.11). So every file is
read once with Python's strict CSV parser first. That pass finds what is wrong, with its line, and counts records and
characters. A second one compares the file with what Sling delivered, value by value.
"""

from __future__ import annotations

import codecs
import csv
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from include.elt.columns import Wanted
from include.elt.errors import DataError, ExtractError
from include.elt.paths import shown

if TYPE_CHECKING:
    from _csv import Reader

LARGEST_FIELD = 64 * 1024 * 1024
"""Characters a single field may have."""

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class Header:
    """The first record of a CSV file.

    Attributes:
        names: column names in lower case, in the order of the file; only those that are wanted.
        fields: fields that each record has to have.
        places: index of each of the names among the fields; None where all are wanted.
    """

    names: tuple[str, ...]
    fields: int
    places: tuple[int, ...] | None


@dataclass(frozen=True)
class Survey:
    """What an independent reader found in a CSV file.

    Attributes:
        file: the file.
        name: what messages call it.
        header: its columns.
        rows: records after the header; empty lines are none.
        characters: characters of all wanted fields that are not NULL, without quotes and separators.
        longest: characters of the longest record.
        most_crs: CRs in the record that has most of them; Sling would turn some of them into LF.
        ends_with_line_end: whether the last record has one; a file that was cut off inside its last field has none.
    """

    file: Path
    name: str
    header: Header
    rows: int
    characters: int
    longest: int
    most_crs: int
    ends_with_line_end: bool


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


def _check_header(record: list[str], wanted: Wanted, name: str, delimiter: str) -> Header:
    """The columns, if they are the wanted ones."""
    missing = [each for each in wanted.names if each not in map(str.lower, record)]
    if missing and len(record) == 1 and len(wanted.names) > 1:
        other = next((mark for mark in ";\t|," if mark != delimiter and mark in record[0]), None)
        hint = f"; it looks separated by {other!r}: set source_options.delimiter" if other else ""
        if other or not wanted.lenient:
            raise DataError(
                f"{name}: line 1: one column {record[0]!r} with delimiter {delimiter!r}{hint}; {wanted.expectation}"
            )
    names = wanted.check(record, f"{name}: line 1")
    if all(each in wanted.names for each in names):
        return Header(names, len(names), None)
    places = tuple(place for place, each in enumerate(names) if each in wanted.names)
    return Header(tuple(names[place] for place in places), len(names), places)


def read_header(file: Path, wanted: Wanted | tuple[str, ...], delimiter: str = ",", name: str = "") -> Header:
    """The columns of a CSV file.

    Args:
        file: a CSV file in UTF-8, or in UTF-16 with a byte order mark.
        wanted: the columns it has to have; a tuple of names is exactly these, in any order and case.
        delimiter: the character between two fields.
        name: what messages call the file; its path by default.

    Raises:
        DataError: the file is missing or empty, or has other columns.
    """
    wanted, name = _wanted(wanted), name or shown(file)
    if not file.is_file():
        raise DataError(f"{name}: no such file")
    if file.stat().st_size == 0:
        raise DataError(f"{name}: the file is empty; expected a header line with {', '.join(wanted.names)}")
    try:
        with _records(file, delimiter) as reader:
            return _check_header(next(reader, []), wanted, name, delimiter)
    except UnicodeError as error:
        raise DataError(f"{name}: not valid text in {_encoding(file)}: {_undecodable(file)}") from error
    except csv.Error as error:
        raise DataError(f"{name}: line 1: the header is broken: {error}") from error


def _wanted(given: Wanted | tuple[str, ...]) -> Wanted:
    return given if isinstance(given, Wanted) else Wanted(given)


def survey(
    file: Path,
    wanted: Wanted | tuple[str, ...],
    delimiter: str = ",",
    null_if: str | None = None,
    name: str = "",
    header: Header | None = None,
) -> Survey:
    """Read a whole CSV file strictly and count what it holds. Memory stays flat.

    Args:
        file: a CSV file in UTF-8, or in UTF-16 with a byte order mark.
        wanted: the columns it has to have; a tuple of names is exactly these, in any order and case.
        delimiter: the character between two fields.
        null_if: text that stands for NULL, so that it is not counted as characters.
        name: what messages call the file; its path by default.
        header: what `read_header` said, if it was asked before.

    Returns:
        The figures that the extraction has to match.

    Raises:
        DataError: the file is missing or empty, is not valid text, has other columns, a record with more or fewer
            fields, or a quote that is not closed. The message names file and line.
        ExtractError: the file went away meanwhile.
    """
    name = name or shown(file)
    header = header or read_header(file, wanted, delimiter, name)
    width, places = header.fields, header.places
    rows = characters = longest = most_crs = 0
    started_at = 1
    try:
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
                if places is not None:
                    record = [record[place] for place in places]
                text = "".join(record)
                if not text and len(record) == 1:
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
        ends = _ends_with_line_end(file)
    except UnicodeError as error:
        raise DataError(f"{name}: not valid text in {_encoding(file)}: {_undecodable(file)}") from error
    except csv.Error as error:
        raise DataError(
            f"{name}: the record that starts in line {started_at} is broken: {error}"
            " (a quote that is not closed, text after a closing quote, or a stray line break)"
        ) from error
    except FileNotFoundError as error:
        raise ExtractError(f"{name}: the file was changed while it was read; nothing was loaded") from error
    return Survey(file, name, header, rows, characters, longest, most_crs, ends)


def _excerpt(record: list[str]) -> str:
    """The start of a record, short enough for a message."""
    text = ", ".join(map(repr, record))
    return text if len(text) <= 200 else f"{text[:200]}…"


def _rows(source: Survey, delimiter: str) -> Iterator[list[str]]:
    """The records after the header, with the wanted fields only."""
    places = source.header.places
    with _records(source.file, delimiter) as reader:
        next(reader, None)
        for record in filter(None, reader):
            yield record if places is None else [record[place] for place in places]


def join(sources: Sequence[Survey], target: Path, delimiter: str, cr: str) -> None:
    """Write files again as one, in UTF-8 and with their wanted columns, for Sling to read.

    Args:
        sources: surveys of the files; they have the same columns in the same order.
        target: where the copy goes.
        delimiter: the character between two fields, in all files.
        cr: text that takes the place of each CR inside a field; no field holds it.
    """
    with target.open("wb") as stream:
        stream.write((delimiter.join(sources[0].header.names) + "\n").encode())
        stream.flush()
        for source in sources:
            if source.most_crs or source.header.places is not None or _encoding(source.file) == "utf-16":
                with target.open("a", encoding="utf-8", newline="") as copy:
                    writer = csv.writer(copy, delimiter=delimiter, lineterminator="\n")
                    for record in _rows(source, delimiter):
                        writer.writerow([field.replace("\r", cr) for field in record])
                stream.seek(0, 2)
            else:
                _copy_records(source, stream, delimiter)
            stream.flush()


def _copy_records(source: Survey, target: BinaryIO, delimiter: str) -> None:
    """Append the bytes after the header, with a line end after the last record."""
    with _records(source.file, delimiter) as reader:
        next(reader, None)
        lines = reader.line_num
    with source.file.open("rb") as stream:
        for _ in range(lines):
            stream.readline()
        shutil.copyfileobj(stream, target, 2**20)
    if source.rows and not source.ends_with_line_end:
        target.write(b"\n")


def first_difference(
    sources: Sequence[Survey], delivered: Path, delimiter: str, null_if: str | None, null: str, cr: str
) -> str | None:
    """Compare files with what Sling made of them together, record by record.

    Args:
        sources: surveys of the files.
        delivered: CSV in UTF-8 with commas, the same columns in the same order.
        delimiter: the character between two fields of the sources.
        null_if: text that stands for NULL in the sources.
        null: text that stands for NULL in what was delivered.
        cr: text that stands for a CR in what was delivered; empty for none.

    Returns:
        File and row of the first one that is not the same, for a message; None if all are.
    """
    nothing: list[str] = []
    last = (sources[0].name, 0)
    try:
        with _records(delivered, ",") as theirs:
            next(theirs, None)  # the header
            for source in sources:
                row = 0
                for row, want in enumerate(_rows(source, delimiter), 1):
                    got = next(theirs, nothing)
                    while not got and got is not nothing:  # a blank line
                        got = next(theirs, nothing)
                    if want == got:
                        continue
                    expected = [null if field == null_if else field for field in want]
                    if cr:
                        got = [field.replace(cr, "\r") for field in got]
                    if got != expected:
                        return _difference(source.name, row, want, got)
                last = (source.name, row)
            more = next(filter(None, theirs), None)
            return None if more is None else _difference(last[0], last[1] + 1, nothing, more)
    except (UnicodeError, csv.Error, IndexError) as error:
        return f"{sources[0].name}: Sling changed the data: what it wrote is not CSV: {error}"


def _difference(name: str, row: int, want: list[str], got: list[str]) -> str:
    return (
        f"{name}: Sling changed the data: row {row}: {_excerpt(want) or 'nothing'} became {_excerpt(got) or 'nothing'}"
    )


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
