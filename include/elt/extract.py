"""Extract: one stream from its source into the lake, complete and typed, or not at all."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from include.elt.cast import Caster, CastResult
from include.elt.contract import Contract
from include.elt.early import EarlyCast
from include.elt.errors import ExtractError
from include.elt.lake import DataFile, Lake, Manifest, describe, open_lake
from include.elt.modes import Reading
from include.elt.paths import shown
from include.elt.replication import Replication, Stream
from include.elt.settings import Settings
from include.elt.sources import Delivery, Source
from include.elt.sources.files import FileSource
from include.elt.text import Place, Text

log = logging.getLogger(__name__)

_ALL = Reading()


class Extraction:
    """One stream's way from its source into the lake.

    Args:
        replication: the replication it belongs to.
        stream: the stream.
        contract: columns and types of its raw table.
        settings: lake, Sling binary, timeouts, memory.
        source: where the rows come from; the file that the stream names by default.
        lake: where they go to; the local one of the settings by default.
    """

    def __init__(
        self,
        replication: Replication,
        stream: Stream,
        contract: Contract,
        settings: Settings,
        source: Source | None = None,
        lake: Lake | None = None,
    ) -> None:
        self.replication = replication
        self.stream = stream
        self.contract = contract
        self.settings = settings
        self.source = source or FileSource(stream, contract, settings)
        self.lake = lake or open_lake(settings)
        self._work = Path()

    def run(self, run_id: str, reading: Reading = _ALL, *, dry_run: bool = False) -> tuple[Manifest, str | None]:
        """Extract the stream.

        Args:
            run_id: Airflow run that asks for it.
            reading: which of its rows, and how they are to be loaded.
            dry_run: read, check and cast everything, but leave nothing in the lake.

        Returns:
            The manifest, and its location in the lake (None after a dry run).

        Raises:
            DataError: the source's data breaks the contract; nothing is in the lake.
            ExtractError: the source could not be read completely; nothing is in the lake.
            LakeError: the lake could not be written to; nothing is there.
        """
        try:
            return self._run(run_id, reading, dry_run=dry_run)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ExtractError(
                f"stream {self.stream.id}: the disk of {shown(self._work.parent)} is full; nothing was loaded"
            ) from error

    def _run(self, run_id: str, reading: Reading, *, dry_run: bool) -> tuple[Manifest, str | None]:
        started, began = time.monotonic(), datetime.now(UTC)
        with self.lake.workplace(self.replication.name, self.stream.id) as work:
            self._work = work
            ready = work / "ready"
            ready.mkdir()
            with EarlyCast(self.stream, work / "early", self.settings.extract_memory) as early:
                delivery = self.source.deliver(work, f"<null {uuid4().hex}>", reading, early.take)
                there = early.files(delivery.text, delivery.rows)
            result = self._cast(delivery, work, ready, there, latest_wins=reading.merges)
            keys = self._cast_keys(delivery.keys, work, ready / "keys.parquet") if delivery.keys else None
            manifest = Manifest(
                id=uuid4().hex,
                run_id=run_id,
                replication=self.replication.name,
                stream=self.stream.id,
                source=delivery.describe(),
                table=self.stream.table,
                mode=reading.mode,
                columns=tuple((column.name, column.data_type) for column in delivery.contract.columns),
                schema_hash=delivery.contract.schema_hash,
                update_key=self.stream.update_key,
                rows_read=delivery.rows,
                rows_rejected=result.rejects,
                files=tuple(describe(file, rows) for file, rows in _in_place(result.files, ready).items()),
                seconds=round(time.monotonic() - started, 3),
                extracted_at=began.isoformat(),
                primary_key=self.stream.primary_key,
                added=self.contract.added,
                window=asdict(delivery.window) if delivery.window else None,
                keys=keys,
                rows_duplicate=result.duplicates,
                source_rows=delivery.source_rows,
                source_columns=delivery.source_columns,
            )
            location = None if dry_run else self.lake.publish(ready, manifest)
        log.info(
            "%s: %s rows read, %s rejected, %s in Parquet (%s bytes) in %.1f s",
            *(self.stream.id, f"{manifest.rows_read:,}", manifest.rows_rejected, f"{manifest.rows:,}"),
            *(f"{manifest.bytes:,}", manifest.seconds),
        )
        return manifest, location

    def kill(self) -> None:
        """End a running Sling process, from another thread or a signal handler."""
        self.source.kill()

    def _cast(
        self, delivery: Delivery, work: Path, ready: Path, early: Mapping[Path, int], *, latest_wins: bool
    ) -> CastResult:
        """Cast what was delivered, and compare it with the source beside that."""
        caster = self._caster(delivery.text, delivery.contract, work, delivery.locate, latest_wins=latest_wins)
        with ThreadPoolExecutor(1) as beside:
            comparison = beside.submit(delivery.compare)
            try:
                rows = delivery.rows if delivery.exact else None
                result = caster.cast(ready / _part(0), ready / "rejects.jsonl", rows, early)
            finally:  # what Sling changed explains what does not fit, so it is told first
                comparison.result()
        delivery.accept(result)
        return result

    def _cast_keys(self, keys: Text, work: Path, target: Path) -> DataFile:
        """Cast the primary keys of the whole source; of a key that is there twice once is enough."""
        contract = self.contract.only(self.stream.primary_key)
        caster = self._caster(keys, contract, work, lambda _: {}, latest_wins=True)
        result = caster.cast(target, work / "rejected_keys.jsonl")
        return describe(target, result.rows)

    def _caster(
        self,
        text: Text,
        contract: Contract,
        work: Path,
        locate: Callable[[Iterable[int]], Mapping[int, Place]],
        *,
        latest_wins: bool,
    ) -> Caster:
        return Caster(
            text=text,
            contract=contract,
            stream=self.stream,
            scratch=work,
            memory=self.settings.extract_memory,
            locate=locate,
            latest_wins=latest_wins,
        )


def _part(number: int) -> str:
    """Name of a Parquet file of an extraction."""
    return f"part-{number:05d}.parquet"


def _in_place(files: Mapping[Path, int], ready: Path) -> dict[Path, int]:
    """The same files, moved to where they are published from; those without rows are left out, but not all of them."""
    wanted = {file: rows for file, rows in files.items() if rows} or dict([*files.items()][:1])
    return {file.replace(ready / _part(number)): rows for number, (file, rows) in enumerate(wanted.items())}
