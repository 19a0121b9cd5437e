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
from pathlib import Path

from include.elt.csvfile import LARGEST_FIELD
from include.elt.errors import ExtractError

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

_PIECE = 1024 * 1024
"""Bytes that are read at once of what Sling writes."""

_PAUSE = 0.01
"""Seconds until Sling may have written more."""


def unwrap(
    blocks: Path,
    text: Path,
    header: tuple[str, ...],
    encoding: str,
    label: str,
    ended: Callable[[], bool] = lambda: True,
) -> tuple[int, int]:
    """Write the lines inside the blocks to a file of their own, and prove that they are what the server sent.

    Args:
        blocks: CSV with the columns `BLOCK`, in UTF-8; it may still be on its way.
        text: the file to write.
        header: column names of the lines, without `END`.
        encoding: encoding of the text that the server took the SHA-256 of.
        label: what a message calls the source.
        ended: whether nothing is added to `blocks` any more.

    Returns:
        Rows, and the characters of the longest one.

    Raises:
        ExtractError: a block is missing, is there twice or is not the one that the server sent, or is too large.
    """
    rows = longest = 0
    seen: set[str] = set()
    total = ""
    with text.open("wb") as target:
        target.write(",".join((*header, END)).encode() + b"\n")
        records = _records(_growing(blocks, ended), label)
        next(records, None)
        for (number, blocks_in_all, count, length, digest), block in records:
            if number.startswith("-"):
                continue
            total = blocks_in_all
            if number in seen:
                raise ExtractError(f"{label}: Sling delivered the block {number} twice; nothing was loaded")
            seen.add(number)
            if count == "0":
                continue
            sent = block if encoding == "utf-8" else block.decode().encode(encoding)
            if hashlib.sha256(sent).hexdigest() != digest.lower():
                raise ExtractError(
                    f"{label}: block {number} of {total} is not what the server sent (sha256 differs);"
                    " nothing was loaded"
                )
            rows += int(count)
            longest = max(longest, int(length))
            target.write(block)
            target.write(b"\n")
    if not total or seen != set(map(str, range(int(total)))):
        raise ExtractError(
            f"{label}: Sling delivered {len(seen)} blocks of {total or 'at least 1'}; nothing was loaded"
        )
    return rows, longest


def _growing(file: Path, ended: Callable[[], bool]) -> Iterator[bytes]:
    """The content of a file that another process writes, as it comes, until nothing is added any more."""
    while not file.exists():
        if ended():
            return
        time.sleep(_PAUSE)
    with file.open("rb", buffering=0) as stream:
        while True:
            last = ended()  # asked first: what was written until then is still read
            if piece := stream.read(_PIECE):
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
            block = bytes(data[begin:end])
            yield head[1].decode().split(","), block.replace(b'""', b'"') if is_quoted else block
            start = end + 1 + is_quoted
        del data[:start]
        if len(data) > LARGEST_FIELD:
            raise ExtractError(f"{label}: {TOO_LARGE} {LARGEST_FIELD:,} bytes; nothing was loaded")


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
