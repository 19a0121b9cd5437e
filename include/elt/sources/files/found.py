"""Which files a stream reads, and what each of them was when it was looked at."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.elt.errors import DataError, ExtractError, SourceRefusedError
from include.elt.paths import shown
from include.elt.replication import Format, Stream

log = logging.getLogger(__name__)

ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
}
"""The endings of file names that tell their format, in any case."""

_PACKED: tuple[Format, ...] = ("csv", "jsonl")
"""Formats that may be gzipped as a whole."""


@dataclass(frozen=True)
class Found:
    """One file of a stream.

    Attributes:
        path: where its bytes lie now.
        name: what manifests, rejects and the list of known files call it: its name in the stream's folder, or its key
            below the stream's prefix.
        label: what messages about the whole file call it: its full path or URL; `name` by default.
        origin: what else the manifest says of it, like the version of an object.
    """

    path: Path
    name: str
    label: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return self.label or self.name


def list_local(stream: Stream) -> list[Found]:
    """The files of a stream on a local disk, sorted by name; none for a pattern or a folder without any.

    Hidden files are left out, and so are folders. Of a whole folder only files of a known format are read; a pattern
    means each file that it fits.

    Raises:
        DataError: the single file or the folder is not there, or a link leads nowhere.
    """
    path, pattern = stream.path, stream.pattern
    if pattern is None:
        if not path.is_file():
            hint = f", but a folder; a stream that reads its files is named {stream.name}/" if path.is_dir() else ""
            raise DataError(f"{shown(path)}: no such file{hint}")
        return [Found(path, path.name, shown(path))]
    folder = path if stream.is_folder else path.parent
    if not folder.is_dir():
        raise DataError(f"{shown(folder)}: no such folder")
    there = {each.name: each for each in folder.iterdir() if not each.is_dir()}
    files = []
    for name in fitting(there, stream):
        file = there[name]
        if not file.exists() and file.is_symlink():
            raise DataError(f"{shown(file)}: a link that leads nowhere")
        if file.is_file():
            files.append(Found(file, name, shown(file)))
    return files


def fitting(names: Iterable[str], stream: Stream) -> list[str]:
    """Those names of files in the stream's folder that it reads, sorted.

    Raises:
        DataError: a name is not text.
    """
    pattern = stream.pattern or "*"
    parts = re.split(r"([*?])", pattern)
    expression = re.compile("".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts), re.DOTALL)
    fits = sorted(
        name for name in names if expression.fullmatch(name) and (pattern.startswith(".") or not name.startswith("."))
    )
    for name in fits:
        if not name.isprintable() and any(0xD800 <= ord(letter) <= 0xDFFF for letter in name):
            raise DataError(f"{stream.label}: {name!r} is not a name in UTF-8; rename the file")
    if not stream.is_folder:
        return fits
    known = [name for name in fits if _format(name, stream.source_options.format)]
    if len(known) < len(fits):
        left = [name for name in fits if name not in set(known)]
        log.info("%s: left out %s files of no known format: %s", stream.label, len(left), ", ".join(left[:5]))
    return known


def format_of(found: Found, given: Format | None) -> Format:
    """How a file is written.

    Args:
        found: the file; its ending is believed.
        given: what `source_options.format` says, for an ending that says nothing.

    Raises:
        DataError: neither tells.
    """
    kind = _format(found.name, given)
    if kind is None:
        raise DataError(
            f"{found}: no known format; a name ends with {', '.join(ENDINGS)}, or source_options.format says what it is"
        )
    return kind


def is_packed(found: Found) -> bool:
    """Whether a file is gzipped."""
    return found.name.lower().endswith(".gz")


def _format(name: str, given: Format | None) -> Format | None:
    lower = name.lower()
    kind = next((kind for ending, kind in ENDINGS.items() if lower.endswith(ending)), given)
    return None if lower.endswith(".gz") and kind not in _PACKED else kind


@dataclass(frozen=True)
class Seen:
    """A file as it was when it was looked at.

    Attributes:
        found: the file.
        bytes: its size.
        sha256: hexadecimal digest of its bytes.
        mark: what changes when the file does: inode, size and modification time.
    """

    found: Found
    bytes: int
    sha256: str
    mark: tuple[int, int, int]

    @property
    def path(self) -> Path:
        """Where its bytes lie."""
        return self.found.path

    def __str__(self) -> str:
        return str(self.found)

    def check(self) -> None:
        """Refuse a file that is not what it was.

        Raises:
            ExtractError: it changed, or is gone.
        """
        try:
            now = _mark(self.path)
        except OSError:
            now = None
        if now != self.mark:
            raise ExtractError(f"{self}: the file was changed while it was read; nothing was loaded")


def look(found: Found) -> Seen:
    """Look at a file: its digest, and what tells later that it is still the same.

    Raises:
        ExtractError: it went away, or changes right now.
        SourceRefusedError: it may not be read.
    """
    try:
        mark = _mark(found.path)
        with found.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except PermissionError as error:
        raise SourceRefusedError(f"{found}: cannot be read: {error.strerror}") from error
    except OSError as error:
        raise ExtractError(f"{found}: cannot be read: {error.strerror}; nothing was loaded") from error
    seen = Seen(found, mark[1], digest, mark)
    seen.check()
    return seen


def unknown(files: Sequence[Seen], known: frozenset[tuple[str, str]]) -> list[Seen]:
    """Those files that were not loaded yet, by name and digest."""
    return [seen for seen in files if (seen.found.name, seen.sha256) not in known]


def _mark(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
