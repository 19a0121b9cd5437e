"""CSV files, plain or gzipped: Sling reads them, and an independent reader beside it compares every value.

Sling takes a fifth of a second to start, and 0.07 s per stream of one call. So many small files are joined, bytes after
bytes, into one that Sling reads at once; the comparison is with the files themselves. A single file is read where it
lies. A gzipped one is unpacked first: of one with a byte order mark Sling 1.4.11 reads no rows and reports success.

Sling takes a path for a URL or a pattern, so it gets a link with a plain name.
"""

from __future__ import annotations

import gzip
import logging
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from include.elt.columns import Wanted
from include.elt.csvfile import Header, Survey, first_difference, join, lines_of_rows, read_header, survey
from include.elt.errors import DataError, ExtractError
from include.elt.replication import SourceOptions, Stream
from include.elt.settings import Settings
from include.elt.sling import SlingRun
from include.elt.sources.files.found import Seen, is_packed
from include.elt.sources.files.part import FileRows, Part
from include.elt.text import TextFile

log = logging.getLogger(__name__)

_TOGETHER = 64 * 2**20
"""Bytes of files that are joined into one."""


@dataclass(frozen=True)
class _Csv:
    """A CSV file that is read: `path` is the file itself, or what was unpacked of it."""

    seen: Seen
    path: Path
    header: Header


class CsvReader:
    """Reads CSV files through Sling.

    Args:
        stream: the stream.
        wanted: the columns.
        settings: Sling binary and timeout.
    """

    def __init__(self, stream: Stream, wanted: Wanted, settings: Settings) -> None:
        self.stream = stream
        self.wanted = wanted
        self.settings = settings
        self._sling: SlingRun | None = None
        self._killed = False

    def kill(self) -> None:
        """End a running Sling process, and start no other."""
        self._killed = True
        self.end_sling()

    def end_sling(self) -> None:
        """End a running Sling process."""
        if self._sling is not None:
            self._sling.kill()

    def read(self, files: Sequence[Seen], work: Path, null: str) -> list[Part]:
        """Read files, in their order.

        Args:
            files: the files.
            work: an empty folder.
            null: text that stands for NULL in what Sling writes.

        Raises:
            DataError: a file is broken or has other columns.
            ExtractError: Sling failed.
        """
        parts = []
        running: _Group | None = None
        try:
            for number, files_of_group in enumerate(self._groups(files, work)):
                group = _Group(self, files_of_group, work, number, null)
                group.prepare()
                if running:
                    parts.append(running.finish())
                running = group
                group.start()
            if running:
                parts.append(running.finish())
        finally:
            self.end_sling()
        return parts

    def _groups(self, files: Sequence[Seen], work: Path) -> Iterator[list[_Csv]]:
        """Neighbours with the same columns in the same order, as many as are read together."""
        group: list[_Csv] = []
        size = 0
        for number, seen in enumerate(files):
            path = _unpacked(seen, work / f"unpacked-{number}.csv") if is_packed(seen.found) else seen.path
            header = read_header(path, self.wanted, self.stream.source_options.delimiter, str(seen))
            bytes_ = path.stat().st_size
            if group and (header.names != group[0].header.names or size + bytes_ > _TOGETHER):
                yield group
                group, size = [], 0
            group.append(_Csv(seen, path, header))
            size += bytes_
        if group:
            yield group

    def sling(self, home: Path, source: Path, target: Path, header: Header, null: str) -> SlingRun:
        """Start Sling on a file: every column is named as string, so that no type is guessed."""
        if self._killed:
            raise ExtractError(f"{self.stream.label}: the extraction was stopped")
        options = self.stream.source_options
        self._sling = SlingRun(self.settings.sling(), home, {"LAKE": {"type": "file", "null_as": null}})
        home.mkdir(exist_ok=True)
        config = {
            "mode": "full-refresh",
            "object": f"file://{target}",
            "columns": dict.fromkeys(header.names, "string"),
            "source_options": {
                "delimiter": options.delimiter,
                "null_if": null if options.null_if is None else options.null_if,
                "fields_per_rec": 0,  # a record with more or fewer fields is an error
            },
        }
        self._sling.start("LOCAL", "LAKE", f"file://{source}", config)
        return self._sling


class _Group:
    """Files that Sling reads as one."""

    def __init__(self, reader: CsvReader, files: list[_Csv], work: Path, number: int, null: str) -> None:
        self.reader = reader
        self.files = files
        self.null = null
        self.cr = f"<cr {uuid4().hex}>"
        self.surveys: list[Survey] = []
        self.home, self.source = work / f"sling-{number}", work / f"source-{number}.csv"
        self.text = work / f"text-{number}.csv"
        self.run: SlingRun | None = None
        self.header = Header(files[0].header.names, len(files[0].header.names), None)

    @property
    def _is_readable(self) -> bool:
        """Whether Sling may read a single file as it is, as far as its header tells."""
        return len(self.files) == 1 and self.files[0].header.places is None

    def prepare(self) -> None:
        """Everything before Sling: nothing for a single file, which is surveyed beside Sling."""
        if not self._is_readable:
            self._survey()
            self._join()

    def start(self) -> None:
        """Start Sling, and survey a single file meanwhile, which on two cores costs next to nothing."""
        if not self._is_readable:
            self._start()
            return
        self.source.symlink_to(self.files[0].path.absolute())
        self._start()
        self._survey()
        if self.surveys[0].most_crs:  # Sling would turn CRLF inside quotes into LF, and now and then lose a CR
            self.reader.end_sling()
            self.text.unlink(missing_ok=True)
            self.source.unlink()
            self._join()
            self._start()

    def finish(self) -> Part:
        """Wait for Sling."""
        if self.run is None:
            raise ValueError("finish() before start()")
        self.run.finish(self.reader.settings.extract_timeout)
        check_text(self.reader.stream, self.text, self.header.names)
        cr = self.cr if any(each.most_crs for each in self.surveys) else ""
        longest = max(each.longest + each.most_crs * len(cr) for each in self.surveys)
        options = self.reader.stream.source_options
        text = TextFile((self.text,), self.header.names, self.null, cr, longest)
        return Part(
            files=tuple(
                FileRows(each.seen, found.rows, partial(_lines_of, each.path, options.delimiter))
                for each, found in zip(self.files, self.surveys, strict=True)
            ),
            text=text,
            missing=frozenset(self.reader.wanted.names) - set(self.header.names),
            characters=sum(each.characters for each in self.surveys),
            compare=partial(_compare, self.files, self.surveys, text, options),
        )

    def _start(self) -> None:
        self.run = self.reader.sling(self.home, self.source, self.text, self.header, self.null)

    def _survey(self) -> None:
        options = self.reader.stream.source_options
        for each in self.files:
            found = survey(
                each.path, self.reader.wanted, options.delimiter, options.null_if, str(each.seen), each.header
            )
            if not found.ends_with_line_end:
                log.warning(
                    "%s: no line end after the last record; if the file was cut off there, nobody can tell", each.seen
                )
            self.surveys.append(found)

    def _join(self) -> None:
        try:
            join(self.surveys, self.source, self.reader.stream.source_options.delimiter, self.cr)
        except FileNotFoundError:
            for each in self.files:
                each.seen.check()
            raise


def _unpacked(seen: Seen, target: Path) -> Path:
    """Unpack a gzipped file.

    Raises:
        DataError: it is not one, or it was cut off.
    """
    try:
        with gzip.open(seen.path, "rb") as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 2**20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{seen}: not a whole gzip file: {error}") from error
    except FileNotFoundError:
        seen.check()
        raise
    return target


def _lines_of(path: Path, delimiter: str, rows: Iterable[int]) -> Mapping[int, int]:
    return lines_of_rows(path, rows, delimiter)


def _compare(files: Sequence[_Csv], surveys: Sequence[Survey], text: TextFile, options: SourceOptions) -> None:
    """Compare every value with the files, and refuse files that are not those that were counted."""
    difference = None
    try:
        difference = first_difference(surveys, text.paths[0], options.delimiter, options.null_if, text.null, text.cr)
    except FileNotFoundError as error:
        difference = str(error)
    for each in files:
        each.seen.check()
    if difference:
        raise ExtractError(f"{difference}; nothing was loaded")


def check_text(stream: Stream, text: Path, header: tuple[str, ...]) -> None:
    """Refuse a success of Sling that left no file, or one with other columns.

    Raises:
        ExtractError: as said.
    """
    if not text.is_file():
        raise ExtractError(f"stream {stream.id}: Sling exited with 0 but wrote no {text.name}")
    with text.open(encoding="utf-8", newline="") as lines:
        first = lines.readline().rstrip("\r\n").replace('"', "").split(",")
    if tuple(name.lower() for name in first) != header:
        raise ExtractError(
            f"stream {stream.id}: Sling wrote the columns {', '.join(first)} instead of {', '.join(header)}"
        )
