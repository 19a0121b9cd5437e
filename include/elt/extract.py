"""Extract: one stream from its source into the lake, complete and typed, or not at all."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from include.elt.cast import Caster, CastResult, TextFile
from include.elt.contract import Contract
from include.elt.csvfile import Survey, copy_without_cr, first_difference, lines_of_rows, read_header, survey
from include.elt.errors import ExtractError
from include.elt.lake import Lake, Manifest, describe
from include.elt.paths import shown
from include.elt.replication import Replication, Stream
from include.elt.settings import Settings
from include.elt.sling import SlingRun

log = logging.getLogger(__name__)


class Extraction:
    """One stream's way from its source into the lake.

    Args:
        replication: the replication it belongs to.
        stream: the stream.
        contract: columns and types of its raw table.
        settings: lake, Sling binary, timeouts, memory.
    """

    def __init__(self, replication: Replication, stream: Stream, contract: Contract, settings: Settings) -> None:
        self.replication = replication
        self.stream = stream
        self.contract = contract
        self.settings = settings
        self._sling: SlingRun | None = None

    def run(self, run_id: str, *, dry_run: bool = False) -> tuple[Manifest, Path | None]:
        """Extract the stream.

        Args:
            run_id: Airflow run that asks for it.
            dry_run: read, check and cast everything, but leave nothing in the lake.

        Returns:
            The manifest, and the folder in the lake (None after a dry run).

        Raises:
            DataError: the source's data breaks the contract; nothing is in the lake.
            ExtractError: the source could not be read completely; nothing is in the lake.
        """
        started = time.monotonic()
        lake = Lake(self.settings.lake)
        with lake.workplace(self.replication.name, self.stream.id) as work:
            ready = work / "ready"
            ready.mkdir()
            parquet = ready / "part-00000.parquet"
            source, result = self._text_to_parquet(work, parquet, ready / "rejects.jsonl")
            manifest = Manifest(
                id=uuid4().hex,
                run_id=run_id,
                replication=self.replication.name,
                stream=self.stream.id,
                source={"file": shown(source.file), "bytes": source.bytes, "sha256": source.sha256},
                table=self.stream.table,
                mode=self.stream.mode,
                columns=tuple((column.name, column.data_type) for column in self.contract.columns),
                schema_hash=self.contract.schema_hash,
                update_key=self.stream.update_key,
                rows_read=source.rows,
                rows_rejected=result.rejects,
                files=(describe(parquet, result.rows),),
                seconds=round(time.monotonic() - started, 3),
                extracted_at=datetime.now(UTC).isoformat(),
            )
            folder = None if dry_run else lake.publish(ready, manifest)
        log.info(
            "%s: %s rows read, %s rejected, %s in Parquet (%s bytes) in %.1f s",
            *(self.stream.id, f"{manifest.rows_read:,}", manifest.rows_rejected, f"{manifest.rows:,}"),
            *(f"{manifest.bytes:,}", manifest.seconds),
        )
        return manifest, folder

    def kill(self) -> None:
        """End a running Sling process, from another thread or a signal handler."""
        if self._sling is not None:
            self._sling.kill()

    def _text_to_parquet(self, work: Path, parquet: Path, rejects: Path) -> tuple[Survey, CastResult]:
        """Let Sling read the source, count it independently, compare what Sling delivers, cast it.

        The survey runs beside Sling, and the comparison beside the cast: on two cores they cost next to nothing.
        """
        options = self.stream.source_options
        file, text = self.stream.path, work / "text.csv"
        null, cr = f"<null {uuid4().hex}>", ""
        header = read_header(file, self.contract.names, options.delimiter)
        sling = self._sling = SlingRun(
            self.settings.sling(), work / "sling", {"LAKE": {"type": "file", "null_as": null}}
        )
        sling.home.mkdir()
        try:
            sling.start("LOCAL", "LAKE", f"file://{file}", self._sling_config(text, header, null))
            source = survey(file, self.contract.names, options.delimiter, options.null_if)
            if source.most_crs:  # Sling would turn CRLF inside quotes into LF, and now and then lose a CR
                sling.kill()
                cr, readable = f"<cr {uuid4().hex}>", work / "source.csv"
                copy_without_cr(source, readable, options.delimiter, cr)
                text.unlink(missing_ok=True)
                sling.start("LOCAL", "LAKE", f"file://{readable}", self._sling_config(text, header, null))
            if not source.ends_with_line_end:
                log.warning(
                    "%s: no line end after the last record; if the file was cut off there, nobody can tell", file
                )
            log.info("%s: %s rows in %s", self.stream.id, f"{source.rows:,}", shown(file))
            sling.finish(self.settings.extract_timeout)
        finally:
            sling.kill()
        self._check_delivery(text, header)
        caster = Caster(
            text=TextFile(text, header, null, cr, source.longest + source.most_crs * len(cr)),
            contract=self.contract,
            stream=self.stream,
            scratch=work,
            memory=self.settings.extract_memory,
            lines_of=lambda rows: lines_of_rows(file, rows, options.delimiter),
        )
        with ThreadPoolExecutor(1) as beside:
            comparison = beside.submit(first_difference, source, text, options.delimiter, options.null_if, null, cr)
            try:
                result = caster.cast(parquet, rejects)
            finally:  # what Sling changed explains what does not fit, so it is told first
                self._refuse_changes(source, comparison)
        if (source.rows, source.characters) != (result.rows_read, result.characters):
            raise ExtractError(
                f"{shown(file)}: the file holds {source.rows:,} rows with {source.characters:,} characters, but"
                f" {result.rows_read:,} rows with {result.characters:,} characters were cast; nothing was loaded"
            )
        return source, result

    def _sling_config(self, target: Path, header: tuple[str, ...], null: str) -> dict[str, Any]:
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

    def _check_delivery(self, text: Path, header: tuple[str, ...]) -> None:
        """Refuse a success of Sling that left no file, or one with other columns."""
        if not text.is_file():
            raise ExtractError(f"stream {self.stream.id}: Sling exited with 0 but wrote no {text.name}")
        with text.open(encoding="utf-8", newline="") as stream:
            first = stream.readline().rstrip("\r\n").replace('"', "").split(",")
        if tuple(name.lower() for name in first) != header:
            raise ExtractError(
                f"stream {self.stream.id}: Sling wrote the columns {', '.join(first)} instead of {', '.join(header)}"
            )

    def _refuse_changes(self, source: Survey, comparison: Future[str | None]) -> None:
        """Refuse a file that is not the one that was counted, and text that is not what the file says."""
        wait([comparison])
        if not source.is_current():
            raise ExtractError(f"{shown(source.file)}: the file was changed while it was read; nothing was loaded")
        if difference := comparison.result():
            raise ExtractError(f"{shown(source.file)}: Sling changed the data: {difference}; nothing was loaded")
