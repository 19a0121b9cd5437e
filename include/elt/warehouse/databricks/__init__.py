"""Databricks as the warehouse: a SQL warehouse, one catalog of Unity Catalog, and a lake that it reads itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date

from include.elt.connections.databricks import Workspace
from include.elt.errors import LoadError
from include.elt.lake import Lake, Manifest
from include.elt.replication import Meta
from include.elt.warehouse import COMPLETENESS, Completeness, Counted, LoadResult, TableState
from include.elt.warehouse.databricks import completeness, loadlog
from include.elt.warehouse.databricks.load import Load
from include.elt.warehouse.databricks.loadlog import LoadLog
from include.elt.warehouse.databricks.session import Session
from include.elt.warehouse.databricks.table import Table

log = logging.getLogger(__name__)

_DEFAULT = Meta()


class DatabricksWarehouse:
    """A catalog behind a SQL warehouse.

    Args:
        workspace: who we are and where.
        catalog: the catalog.
        wake_timeout: seconds to wait for a warehouse that is stopped, or busy.
        load_timeout: seconds that a load may take.
        tags: query tags of all statements.
        prefix: what the names of all schemas begin with; for a trial beside the real ones.
    """

    def __init__(
        self,
        workspace: Workspace,
        catalog: str,
        wake_timeout: int,
        load_timeout: int,
        tags: Mapping[str, str],
        prefix: str = "",
    ) -> None:
        self.workspace = workspace
        self.catalog = catalog
        self.wake_timeout = wake_timeout
        self.load_timeout = load_timeout
        self.tags = dict(tags)
        self.prefix = prefix

    def load_from(self, lake: Lake, location: str, manifest: Manifest, policy: Meta = _DEFAULT) -> LoadResult:  # noqa: ARG002
        """Load one extraction, which the SQL warehouse reads from the lake itself; see `Warehouse.load_from`."""
        return self.load(manifest, location, policy)

    def load(self, manifest: Manifest, location: str, policy: Meta = _DEFAULT) -> LoadResult:
        """Load one extraction.

        Args:
            manifest: what was extracted.
            location: its folder, in a volume or in S3.
            policy: the stream's `meta`.
        """
        started = time.monotonic()
        with self._session(manifest.table, stream=manifest.stream, extraction=manifest.id) as sql:
            load_log = LoadLog(sql, manifest)
            load_log.prepare()
            before = load_log.loaded_before()
            if before is not None and Table(sql, manifest.table).exists:
                log.info("%s: extraction %s was loaded before; nothing changed", manifest.table, manifest.id)
                return before
            load = Load(sql, manifest, location, policy, load_log)
            changes = load.run()
            result = LoadResult(
                table=manifest.table,
                rows_read=manifest.rows_read,
                rows_loaded=manifest.rows,
                rows_rejected=manifest.rows_rejected,
                rows_total=load.table.count(),
                rows_inserted=changes.inserted,
                rows_updated=changes.updated,
                rows_deleted=changes.deleted,
                rows_duplicate=manifest.rows_duplicate,
                source_rows=manifest.source_rows,
                bytes=manifest.bytes,
                seconds=round(time.monotonic() - started, 3),
                watermark=load.table.watermark(manifest.update_key),
                repeated=False,
                schema_change="; ".join(load.schema_changes),
            )
            load_log.record(result, created=load.created)
        log.info(
            "%s: %s rows loaded in %.2f s: %s inserted, %s updated, %s deleted",
            *(manifest.table, f"{result.rows_loaded:,}", result.seconds),
            *(f"{count:,}" for count in (changes.inserted, changes.updated, changes.deleted)),
        )
        return result

    def count(self, table: str) -> int | None:
        """Rows of a table; None when it does not exist."""
        with self._session(table) as sql:
            there = Table(sql, table)
            return there.count() if there.exists else None

    def count_all(self, tables: Mapping[str, str], day: date) -> dict[str, Counted]:
        """Rows of tables, now and on the days before one; see `Warehouse.count_all`."""
        with self._session(COMPLETENESS) as sql:
            earlier = completeness.earlier(sql, day)
            rows = completeness.rows(sql, tables.values())
        return {name: Counted(rows.get(table), earlier.get(name, ())) for name, table in tables.items()}

    def write_completeness(self, day: date, run_id: str, found: Sequence[Completeness]) -> None:
        """Write the rows of a day; see `Warehouse.write_completeness`."""
        if found:
            with self._session(COMPLETENESS) as sql:
                completeness.write(sql, day, run_id, found)

    def state(self, table: str, update_key: str | None) -> TableState | None:
        """Where a raw table stands; see `Warehouse.state`."""
        with self._session(table) as sql:
            there = Table(sql, table)
            if not there.exists:
                return None
            return TableState(there.count(), there.watermark(update_key), loadlog.files(sql, table))

    def session(self, **tags: str) -> Session:
        """A session, to be closed by whoever opens it; for its errors see `Session`."""
        limits = self.wake_timeout, self.load_timeout
        return Session(self.workspace, self.catalog, *limits, {**self.tags, **tags}, self.prefix)

    @contextmanager
    def _session(self, table: str, **tags: str) -> Iterator[Session]:
        """A session; errors that do not name the table are made to."""
        session: Session | None = None
        try:
            session = self.session(table=table, **tags)
            yield session
        except LoadError as error:
            text = str(error)
            raise (error if text.startswith(f"{table}: ") else type(error)(f"{table}: {text}")) from None
        finally:
            if session is not None:
                session.close()
