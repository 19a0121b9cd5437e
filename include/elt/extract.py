"""Extract: one stream from its source into the lake, complete and typed, or not at all."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from include.elt.cast import Caster, CastResult
from include.elt.contract import Contract
from include.elt.lake import Lake, Manifest, describe
from include.elt.replication import Replication, Stream
from include.elt.settings import Settings
from include.elt.sources import Delivery, Source
from include.elt.sources.files import FileSource

log = logging.getLogger(__name__)


class Extraction:
    """One stream's way from its source into the lake.

    Args:
        replication: the replication it belongs to.
        stream: the stream.
        contract: columns and types of its raw table.
        settings: lake, Sling binary, timeouts, memory.
        source: where the rows come from; the file that the stream names by default.
    """

    def __init__(
        self,
        replication: Replication,
        stream: Stream,
        contract: Contract,
        settings: Settings,
        source: Source | None = None,
    ) -> None:
        self.replication = replication
        self.stream = stream
        self.contract = contract
        self.settings = settings
        self.source = source or FileSource(stream, contract, settings)

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
            delivery = self.source.deliver(work, f"<null {uuid4().hex}>")
            result = self._cast(delivery, work, parquet, ready / "rejects.jsonl")
            manifest = Manifest(
                id=uuid4().hex,
                run_id=run_id,
                replication=self.replication.name,
                stream=self.stream.id,
                source=delivery.describe(),
                table=self.stream.table,
                mode=self.stream.mode,
                columns=tuple((column.name, column.data_type) for column in self.contract.columns),
                schema_hash=self.contract.schema_hash,
                update_key=self.stream.update_key,
                rows_read=delivery.rows,
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
        self.source.kill()

    def _cast(self, delivery: Delivery, work: Path, parquet: Path, rejects: Path) -> CastResult:
        """Cast what was delivered, and compare it with the source beside that."""
        caster = Caster(
            text=delivery.text,
            contract=self.contract,
            stream=self.stream,
            scratch=work,
            memory=self.settings.extract_memory,
            lines_of=delivery.lines_of,
        )
        with ThreadPoolExecutor(1) as beside:
            comparison = beside.submit(delivery.compare)
            try:
                result = caster.cast(parquet, rejects)
            finally:  # what Sling changed explains what does not fit, so it is told first
                comparison.result()
        delivery.accept(result)
        return result
