"""Extract: one stream from its source into the lake, complete and typed, or not at all."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from include.elt.cast import Caster, CastResult, TextFile
from include.elt.contract import Contract
from include.elt.csvfile import Survey, copy_without_cr, first_difference, lines_of_rows, survey
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
                extracted_at=datetime.now(UTC).isoformat(timespec="seconds"),
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
        """Count the source, let Sling read it, compare what Sling delivers, cast it, and compare the counts."""
        options = self.stream.source_options
        file = self.stream.path
        before = survey(file, self.contract.names, options.delimiter, options.null_if)
        log.info("%s: %s rows in %s", self.stream.id, f"{before.rows:,}", shown(file))
        null, cr = f"<null {uuid4().hex}>", ""
        readable = file
        if before.most_crs:  # Sling would turn CRLF inside quotes into LF, and now and then CR too
            cr, readable = f"<cr {uuid4().hex}>", work / "source.csv"
            copy_without_cr(before, readable, options.delimiter, cr)
        text = work / "text.csv"
        self._run_sling(work, readable, text, before.header, null)
        difference = None
        if before.is_current():
            difference = first_difference(before, text, options.delimiter, options.null_if, null, cr)
        if not before.is_current():
            raise ExtractError(f"{shown(file)}: the file was changed while it was read; nothing was loaded")
        if difference:
            raise ExtractError(f"{shown(file)}: Sling changed the data: {difference}; nothing was loaded")
        caster = Caster(
            text=TextFile(text, before.header, null, cr, before.longest + before.most_crs * len(cr)),
            contract=self.contract,
            stream=self.stream,
            scratch=work,
            memory=self.settings.extract_memory,
            lines_of=lambda rows: lines_of_rows(file, rows, options.delimiter),
        )
        result = caster.cast(parquet, rejects)
        if (before.rows, before.characters) != (result.rows_read, result.characters):
            raise ExtractError(
                f"{shown(file)}: the file holds {before.rows:,} rows with {before.characters:,} characters, but"
                f" {result.rows_read:,} rows with {result.characters:,} characters were cast; nothing was loaded"
            )
        return before, result

    def _run_sling(self, work: Path, source: Path, target: Path, header: tuple[str, ...], null: str) -> None:
        """Let Sling copy the source to `target` as text, every column named as string so that no type is guessed."""
        home = work / "sling"
        home.mkdir()
        options = self.stream.source_options
        self._sling = SlingRun(self.settings.sling(), home, {"LAKE": {"type": "file", "null_as": null}})
        config = {
            "mode": "full-refresh",
            "object": f"file://{target}",
            "columns": dict.fromkeys(header, "string"),
            "source_options": {
                "delimiter": options.delimiter,
                "null_if": null if options.null_if is None else options.null_if,
                "fields_per_rec": 0,  # a record with more or fewer fields is an error
            },
        }
        self._sling.run("LOCAL", "LAKE", f"file://{source}", config, self.settings.extract_timeout)
        if not target.is_file():
            raise ExtractError(f"stream {self.stream.id}: Sling exited with 0 but wrote no {target.name}")
        with target.open(encoding="utf-8", newline="") as stream:
            first = stream.readline().rstrip("\r\n").replace('"', "").split(",")
        if tuple(name.lower() for name in first) != header:
            raise ExtractError(
                f"stream {self.stream.id}: Sling wrote the columns {', '.join(first)} instead of {', '.join(header)}"
            )
