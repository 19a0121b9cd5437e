"""Blocks: many rows as one record of Sling, and the proof that they are what the server sent.

Sling's cost is per record, whatever is in it (about 5 µs, Sling 1.4.11). So the server writes the rows as lines of
CSV and hands Sling many lines as one record, a block. Beside each block it gives the number of its rows, its SHA-256
and the number of all blocks of the statement. So what Sling delivers is proven byte by byte and to the last block,
however the table changes meanwhile.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from include.elt.csvfile import LARGEST_FIELD
from include.elt.errors import ExtractError
from include.elt.typed import ROW_GROUP

BLOCK = ("number", "blocks", "rows", "longest", "digest", "block")
"""Columns of a query in blocks: which block, of how many, its rows, the characters of the longest one, the SHA-256 of
its text in hexadecimal digits, and the text: lines of CSV with the wanted columns and `END`. It is NULL without rows. A
block below 0 says nothing.
"""

END = "#end"
"""A last field of each line in a block, always `1`: a line of one NULL would be empty, which is no record."""

TOO_LARGE = "a block is larger than"
"""Part of the message of a block that is not read."""

_HEAD = re.compile(rb"\n*((?:[^,\"\n]*,){4}[^,\"\n]*),(?:(\")|(?=[^\"]))")
"""A record of `BLOCK` up to its last field, and the quote that this one may begin with."""

_QUOTE = ord('"')

_READ = 1024 * 1024
"""Bytes that are read at once of what Sling writes."""

_SMALLEST, _LARGEST = 16 * 1024 * 1024, 64 * 1024 * 1024
"""Bytes of the first piece and of those after a few; each is twice as large as the one before. A piece is cast while
the next one comes, so the last one should be small, but each becomes a file of the lake.

It goes on to the end of a row group: from files with a rest of one, DuckDB takes half as much memory again to load.
"""

_FAR = 4
"""Times that size at which a piece ends all the same."""

_SPARSE = 40
"""Bytes per quote from which on quotes are few."""

_PAUSE = 0.01
"""Seconds until Sling may have written more."""


@dataclass(frozen=True)
class Piece:
    """Some of the lines that came in blocks, each block of them proven.

    Attributes:
        file: CSV with a header.
        rows: its rows.
        longest: characters of the longest row, at most.
    """

    file: Path
    rows: int
    longest: int


def unwrap(
    blocks: Path,
    folder: Path,
    header: tuple[str, ...],
    label: str,
    encoding: str = "utf-8",
    quote: str = '"',
    ended: Callable[[], bool] = lambda: True,
) -> Iterator[Piece]:
    """Write the lines inside the blocks to files of their own, and prove that they are what the server sent.

    What is given before the end is proven in itself; that nothing is missing is proven at the end.

    Args:
        blocks: CSV with the columns `BLOCK`, in UTF-8; it may still be on its way.
        folder: where to write.
        header: column names of the lines, without `END`.
        label: what a message calls the source.
        encoding: encoding of the text that the server took the SHA-256 of.
        quote: the character around texts in the lines.
        ended: whether nothing is added to `blocks` any more.

    Yields:
        The lines in pieces, one at least, each as soon as it is written.

    Raises:
        ExtractError: a block is missing, is there twice or is not the one that the server sent, or is too large.
    """
    portions = _cut(_proven(_records(_growing(blocks, ended), label), encoding, label), quote.encode())
    is_last = False
    for number in count():
        if is_last:
            return
        file, rows, longest, is_last = folder / f"text-{number:05d}.csv", 0, 0, True
        with file.open("wb") as target:
            target.write(",".join((*header, END)).encode() + b"\n")
            for portion in portions:
                if portion is None:
                    is_last = False
                    break
                rows, longest = rows + portion.rows, max(longest, portion.longest)
                target.writelines((portion.lines, b"\n"))
        yield Piece(file, rows, longest)


@dataclass(frozen=True)
class _Block:
    """Lines without the last line's end, how many rows they are, and the characters of the longest one."""

    rows: int
    longest: int
    lines: bytes

    def split(self, rows: int, quote: bytes) -> tuple[_Block, _Block]:
        """The first rows, and the others; both have some."""
        end = -1
        for _ in range(rows):
            begin, end = end + 1, self.lines.index(b"\n", end + 1)
            while self.lines.count(quote, begin, end) % 2:  # inside a text
                end = self.lines.index(b"\n", end + 1)
        first = _Block(rows, self.longest, self.lines[:end])
        return first, _Block(self.rows - rows, self.longest, self.lines[end + 1 :])


def _proven(records: Iterator[tuple[list[str], bytes]], encoding: str, label: str) -> Iterator[_Block]:
    """The blocks with rows, each compared with its digest; at the end, none is missing."""
    seen: set[str] = set()
    total = ""
    next(records, None)
    for (number, blocks, rows, longest, digest), lines in records:
        if number.startswith("-"):
            continue
        total = blocks
        if number in seen:
            raise ExtractError(f"{label}: Sling delivered the block {number} twice; nothing was loaded")
        seen.add(number)
        if rows == "0":
            continue
        sent = lines if encoding == "utf-8" else lines.decode().encode(encoding)
        if hashlib.sha256(sent).hexdigest() != digest.lower():
            raise ExtractError(
                f"{label}: block {number} of {total} is not what the server sent (sha256 differs); nothing was loaded"
            )
        yield _Block(int(rows), int(longest), lines)
    if not total or seen != set(map(str, range(int(total)))):
        raise ExtractError(
            f"{label}: Sling delivered {len(seen)} blocks of {total or 'at least 1'}; nothing was loaded"
        )


def _cut(blocks: Iterator[_Block], quote: bytes) -> Iterator[_Block | None]:
    """The blocks, with None between the pieces. A piece ends with a row group, if its rows are not very wide."""
    limit, rows, size = _SMALLEST, 0, 0
    for block in blocks:
        missing = -rows % ROW_GROUP
        if size >= _FAR * limit or (size >= limit and block.rows > missing):
            if missing and block.rows > missing:
                first, block = block.split(missing, quote)
                yield first
            yield None
            limit, rows, size = min(2 * limit, _LARGEST), 0, 0
        yield block
        rows, size = rows + block.rows, size + len(block.lines)


def _growing(file: Path, ended: Callable[[], bool]) -> Iterator[bytes]:
    """The content of a file that another process writes, as it comes, until nothing is added any more."""
    while not file.exists():
        if ended():
            return
        time.sleep(_PAUSE)
    with file.open("rb", buffering=0) as stream:
        while True:
            last = ended()  # asked first: what was written until then is still read
            if piece := stream.read(_READ):
                yield piece
            elif last:
                return
            else:
                time.sleep(_PAUSE)


def _records(pieces: Iterator[bytes], label: str) -> Iterator[tuple[list[str], bytes]]:
    """The records of CSV with the columns `BLOCK`: all fields but the last, and the last.

    A block is found by its ends and not read character by character. What does not look like a record is none; the
    proof then misses a block.
    """
    data = bytearray()
    for piece in pieces:
        searched, start = max(0, len(data) - 1), 0
        data += piece
        while head := _HEAD.match(data, start):
            begin, is_quoted = head.end(), head[2] == b'"'
            end = _closing_quote(data, begin, max(begin, searched)) if is_quoted else data.find(b"\n", begin)
            if end < 0:
                break
            with memoryview(data)[begin:end] as view:
                block = bytes(view)
            yield head[1].decode().split(","), _single(block) if is_quoted else block
            start = end + 1 + is_quoted
        del data[:start]
        if len(data) > LARGEST_FIELD:
            raise ExtractError(f"{label}: {TOO_LARGE} {LARGEST_FIELD:,} bytes; nothing was loaded")


def _single(block: bytes) -> bytes:
    """The text with each pair of quotes as one.

    Where they are few, cutting at each quote takes a third of the time of a search for pairs; where they are many,
    twice as much, and memory for the parts.
    """
    if len(block) > _READ or block.count(b'"') * _SPARSE > len(block):
        return block.replace(b'""', b'"')
    return b'"'.join(block.split(b'"')[::2])


def _closing_quote(data: bytearray, begin: int, searched: int) -> int:
    """Where a field ends that is the last one of its record; -1 where it goes on behind the data.

    Args:
        data: CSV.
        begin: where the field begins, behind its first quote.
        searched: where to look for its end.
    """
    while (end := data.find(b'"\n', searched)) >= 0:
        first = end
        while first > begin and data[first - 1] == _QUOTE:
            first -= 1
        if (end - first) % 2 == 0:  # any other quotes go in pairs
            return end
        searched = end + 1
    return -1
