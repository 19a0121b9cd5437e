"""CSV files on a local disk."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from include.elt.cast import CastResult
from include.elt.contract import Contract
from include.elt.csvfile import Survey, copy_without_cr, first_difference, lines_of_rows, read_header, survey
from include.elt.errors import ExtractError
from include.elt.modes import Reading, Window
from include.elt.paths import shown
from include.elt.replication import SourceOptions, Stream
from include.elt.settings import Settings
from include.elt.sling import SlingRun
from include.elt.text import TextFile

log = logging.getLogger(__name__)


class FileSource:
    """A stream that reads one CSV file. Sling reads it, and an independent reader beside it.

    Args:
        stream: the stream.
        contract: columns of its raw table.
        settings: Sling binary and timeout.
    """

    def __init__(self, stream: Stream, contract: Contract, settings: Settings) -> None:
        self.stream = stream
        self.contract = contract
        self.settings = settings
        self._sling: SlingRun | None = None

    def kill(self) -> None:
        """End a running Sling process."""
        if self._sling is not None:
            self._sling.kill()

    def deliver(self, work: Path, null: str, reading: Reading) -> FileDelivery:  # noqa: ARG002
        """Let Sling write the file as text; survey it meanwhile, which on two cores costs next to nothing."""
        options = self.stream.source_options
        file, text, cr = self.stream.path, work / "text.csv", ""
        header = read_header(file, self.contract.names, options.delimiter)
        sling = self._sling = SlingRun(
            self.settings.sling(), work / "sling", {"LAKE": {"type": "file", "null_as": null}}
        )
        sling.home.mkdir()
        try:
            sling.start("LOCAL", "LAKE", f"file://{file}", self._config(text, header, null))
            source = survey(file, self.contract.names, options.delimiter, options.null_if)
            if source.most_crs:  # Sling would turn CRLF inside quotes into LF, and now and then lose a CR
                sling.kill()
                cr, readable = f"<cr {uuid4().hex}>", work / "source.csv"
                copy_without_cr(source, readable, options.delimiter, cr)
                text.unlink(missing_ok=True)
                sling.start("LOCAL", "LAKE", f"file://{readable}", self._config(text, header, null))
            if not source.ends_with_line_end:
                log.warning(
                    "%s: no line end after the last record; if the file was cut off there, nobody can tell", file
                )
            log.info("%s: %s rows in %s", self.stream.id, f"{source.rows:,}", shown(file))
            sling.finish(self.settings.extract_timeout)
        finally:
            sling.kill()
        check_text(self.stream, text, header)
        return FileDelivery(
            TextFile((text,), header, null, cr, source.longest + source.most_crs * len(cr)),
            source,
            options,
            self.contract,
        )

    def _config(self, target: Path, header: tuple[str, ...], null: str) -> dict[str, Any]:
        """How Sling copies the source to `target` as text: every column named as string, so that no type is guessed."""
        options = self.stream.source_options
        return {
            "mode": "full-refresh",
            "object": f"file://{target}",
            "columns": dict.fromkeys(header, "string"),
            "source_options": {
                "delimiter": options.delimiter,
                "null_if": null if options.null_if is None else options.null_if,
                "fields_per_rec": 0,  # a record with more or fewer fields is an error
            },
        }


@dataclass(frozen=True)
class FileDelivery:
    """What Sling delivered of a file; see `Delivery`."""

    text: TextFile
    source: Survey
    options: SourceOptions
    contract: Contract
    exact: bool = False
    window: Window | None = None
    keys: None = None
    source_rows: int | None = None
    source_columns: tuple[tuple[str, str], ...] = ()

    @property
    def rows(self) -> int:
        """Records of the file."""
        return self.source.rows

    def describe(self) -> dict[str, Any]:
        """The file with its size and digest."""
        return {"file": shown(self.source.file), "bytes": self.source.bytes, "sha256": self.source.sha256}

    def lines_of(self, rows: Iterable[int]) -> Mapping[int, int]:
        """Lines of the file."""
        return lines_of_rows(self.source.file, rows, self.options.delimiter)

    def compare(self) -> None:
        """Compare every value with the file, and refuse a file that is not the one that was counted."""
        changed = f"{shown(self.source.file)}: the file was changed while it was read; nothing was loaded"
        try:
            difference = first_difference(
                self.source,
                self.text.paths[0],
                self.options.delimiter,
                self.options.null_if,
                self.text.null,
                self.text.cr,
            )
        except FileNotFoundError:
            raise ExtractError(changed) from None
        if not self.source.is_current():
            raise ExtractError(changed)
        if difference:
            raise ExtractError(f"{shown(self.source.file)}: Sling changed the data: {difference}; nothing was loaded")

    def accept(self, result: CastResult) -> None:
        """The cast has to have read what the survey counted."""
        if (self.source.rows, self.source.characters) != (result.rows_read, result.characters):
            raise ExtractError(
                f"{shown(self.source.file)}: the file holds {self.source.rows:,} rows with"
                f" {self.source.characters:,} characters, but {result.rows_read:,} rows with"
                f" {result.characters:,} characters were cast; nothing was loaded"
            )


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
