"""JSON lines, plain or gzipped: one object per line, read without Sling, which rounds numbers.

A number keeps the digits it is written with, so `1.10` is `1.10` and 2^53 + 1 is no other number. An object or array
becomes compact JSON text, its numbers as written, its keys in their order. A key that is missing is NULL.
"""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import IO, Any, cast

from include.elt.columns import Wanted
from include.elt.csvfile import LARGEST_FIELD
from include.elt.errors import DataError
from include.elt.sources.files.found import Seen, is_packed
from include.elt.sources.files.part import FileRows, LineMap, Part
from include.elt.sources.files.writer import write_text
from include.elt.text import TextFile

log = logging.getLogger(__name__)

_BOM = b"\xef\xbb\xbf"

_KEYS = 100_000
"""Different keys that the objects of a file may have; each is remembered."""


class _Number(str):
    """A number as it is written, which a text is not."""

    __slots__ = ()


class _RepeatedKeyError(ValueError):
    """A key stands twice in one object; plain JSON readers keep the last one silently."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for number, key in enumerate(keys) if key in keys[:number]))
    return found


def _decoder(number: Callable[[str], Any]) -> JSONDecoder:
    return JSONDecoder(object_pairs_hook=_object, parse_int=number, parse_float=number, parse_constant=number)


_QUICK = _decoder(str)
"""For lines without nested values: there, numbers and texts end up the same."""

_CAREFUL = _decoder(_Number)


def _whole(text: str, decoder: JSONDecoder) -> Any:
    """The value of a text that holds nothing else; a quarter quicker than the decoder's own way."""
    value, end = decoder.raw_decode(text)
    if end < len(text):
        raise JSONDecodeError("more after the value", text, end)
    return value


def json_text(value: Any) -> str:
    """A nested value as compact JSON text."""
    if isinstance(value, _Number):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quoted(key)}:{json_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    return _quoted(value)


_quoted = partial(json.dumps, ensure_ascii=False)


def read_jsonl(files: Sequence[Seen], wanted: Wanted, null_if: str | None, work: Path, null: str) -> Part:
    """Read files of JSON lines, in their order. Memory stays flat.

    Args:
        files: the files.
        wanted: the columns; keys in any case.
        null_if: text that stands for NULL.
        work: an empty folder.
        null: text that stands for NULL in what is written.

    Raises:
        DataError: a line is not a JSON object in UTF-8, or has a key twice or one that is not known. The message names
            file and line.
    """
    readers = [_Reader(seen, wanted, null_if, null) for seen in files]
    paths = []
    for number, reader in enumerate(readers):
        path = work / f"text-{number}.csv"
        paths.append(path)
        try:
            write_text(path, wanted.names, reader.records())
        except FileNotFoundError:
            reader.seen.check()
            raise
        reader.say_what_is_missing()
    longest = max(reader.longest for reader in readers) + len(wanted.names) * len(null)
    return Part(
        files=tuple(FileRows(reader.seen, reader.rows, reader.lines.lines_of) for reader in readers),
        text=TextFile(tuple(paths), wanted.names, null, "", longest),
        missing=frozenset.intersection(*(reader.missing for reader in readers)),
    )


class _Reader:
    """Reads one file."""

    def __init__(self, seen: Seen, wanted: Wanted, null_if: str | None, null: str) -> None:
        self.seen = seen
        self.wanted = wanted
        self.null_if = null_if
        self.null = null
        self.rows = self.longest = 0
        self.lines = LineMap()
        self._places: dict[str, int] = {}
        self._ambiguous = False
        self._ignored: set[str] = set()

    @property
    def missing(self) -> frozenset[str]:
        """Columns that no row has; none of a file without rows."""
        if not self.rows:
            return frozenset()
        return frozenset(self.wanted.names) - {
            self.wanted.names[place] for place in self._places.values() if place >= 0
        }

    def say_what_is_missing(self) -> None:
        """Log keys that no row has, and those that were left out."""
        self.wanted.log(sorted(self.missing), sorted(self._ignored), str(self.seen))

    def records(self) -> Iterator[list[str]]:
        """The rows as text, in the order of the wanted columns."""
        null, null_if, width, places = self.null, self.null_if, len(self.wanted.names), self._places
        decoder, number = _QUICK, 0
        for number, line in self._lines():
            record = self._decoded(line, number, decoder)
            row = [null] * width
            for key, value in record.items():
                place = places.get(key)
                if place is None:
                    place = self._place(key, number)
                if place < 0 or value is None:
                    continue
                if value is True or value is False:
                    value = "true" if value else "false"
                elif value.__class__ is dict or value.__class__ is list:
                    if decoder is _QUICK:  # numbers in it have to be told from texts; from here on, in every line
                        decoder = _CAREFUL
                        value = self._decoded(line, number, decoder)[key]
                    value = json_text(value)
                if value != null_if:
                    row[place] = value
            if self._ambiguous:
                self._refuse_twins(record, number)
            self.rows += 1
            self.lines.add(self.rows, number)
            yield row

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of the lines that are not blank."""
        number = 0
        try:
            with self._opened() as stream:
                for number, line in enumerate(iter(partial(stream.readline, LARGEST_FIELD), b""), 1):
                    if number == 1:
                        line = line.removeprefix(_BOM)
                    if len(line) > self.longest:
                        self.longest = len(line)
                        if self.longest >= LARGEST_FIELD:
                            raise self._error(number, f"longer than {LARGEST_FIELD:,} bytes; is it JSON lines?")
                    if line.isspace():
                        continue
                    yield number, line
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{self.seen}: not a whole gzip file: {error}, after line {number}") from error

    def _opened(self) -> IO[bytes]:
        if is_packed(self.seen.found):
            return cast("IO[bytes]", gzip.open(self.seen.path, "rb"))
        return self.seen.path.open("rb")

    def _decoded(self, line: bytes, number: int, decoder: JSONDecoder) -> dict[str, Any]:
        """The object of a line."""
        try:
            text = line.decode("utf-8").strip(" \t\r\n")
            record = _whole(text, decoder)
        except UnicodeDecodeError as error:
            raise self._error(
                number, f"byte {error.start + 1} of the line: {line[error.start : error.end]!r} is not valid UTF-8"
            ) from error
        except JSONDecodeError as error:
            raise self._error(
                number, f"not JSON: {error.msg} at character {error.pos + 1}: {text[error.pos : error.pos + 40]!r}"
            ) from error
        except _RepeatedKeyError as error:
            raise self._error(number, f"the key {error} is there twice") from error
        except RecursionError as error:
            raise self._error(number, "nested too deeply") from error
        if record.__class__ is not dict:
            hint = "; a JSON array is no JSON lines: put each of its objects on a line" if line[:1] == b"[" else ""
            raise self._error(number, f"an object is needed, got {text[:40]!r}{hint}")
        if b"\\u" in line:
            self._refuse_surrogates(record, number)
        return cast("dict[str, Any]", record)

    def _refuse_surrogates(self, record: dict[str, Any], number: int) -> None:
        r"""Half a character, like `"\ud83d"`, is JSON but no text."""
        for key, value in record.items():
            try:
                json_text([key, value]).encode()
            except UnicodeEncodeError as error:
                raise self._error(number, f"column {key!a}: half a character, which is no text: {error}") from None

    def _refuse_twins(self, record: dict[str, Any], number: int) -> None:
        """Refuse an object with one column in two spellings."""
        seen: dict[int, str] = {}
        for key in record:
            place = self._places[key]
            if place >= 0 and (twin := seen.setdefault(place, key)) != key:
                raise self._error(number, f"the column {self.wanted.names[place]} is there twice: {twin}, {key}")

    def _place(self, key: str, number: int) -> int:
        """The index of a new key's column; -1 for one that is left out."""
        name = key.lower()
        if name in self.wanted.names:
            place = self.wanted.names.index(name)
            self._ambiguous = self._ambiguous or place in self._places.values()
        elif self.wanted.lenient:
            place = -1
            self._ignored.add(key)
        else:
            raise self._error(number, f"unknown key {key!r}; {self.wanted.expectation}{self.wanted.advice}")
        if len(self._places) >= _KEYS:
            raise self._error(number, f"more than {_KEYS:,} different keys; are these values?")
        self._places[key] = place
        return place

    def _error(self, number: int, what: str) -> DataError:
        return DataError(f"{self.seen}: line {number}: {what}")
