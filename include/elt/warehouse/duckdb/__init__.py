"""DuckDB as the warehouse: one file, one writer, real transactions."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import duckdb

from include.elt.errors import LoadError
from include.elt.lake import Lake, Manifest, verify
from include.elt.paths import shown
from include.elt.replication import Meta
from include.elt.sql import quoted
from include.elt.warehouse import COMPLETENESS, Completeness, Counted, LoadResult, TableState
from include.elt.warehouse.duckdb import completeness, loadlog
from include.elt.warehouse.duckdb.file import AMPLE, LAST, LEAN, Memory, connected, time_limit
from include.elt.warehouse.duckdb.load import Load
from include.elt.warehouse.duckdb.table import Table
from include.elt.warehouse.refusals import Changes
from include.elt.warehouse.rules import window_of

log = logging.getLogger(__name__)

_DEFAULT = Meta()


class DuckDBWarehouse:
    """A warehouse in a DuckDB file.

    Args:
        path: the file; it and its folder are made when they are missing.
        lock_timeout: seconds to wait for a file that another process holds.
        load_timeout: seconds after which a running load is interrupted and rolled back.
    """

    def __init__(self, path: Path, lock_timeout: float, load_timeout: float) -> None:
        self.path = path
        self.lock_timeout = lock_timeout
        self.load_timeout = load_timeout

    def load_from(self, lake: Lake, location: str, manifest: Manifest, policy: Meta = _DEFAULT) -> LoadResult:
        """Load one extraction of a lake; see `Warehouse.load_from`."""
        with lake.fetch(location, manifest) as folder:
            return self.load(manifest, folder, policy)

    def load(self, manifest: Manifest, folder: Path, policy: Meta = _DEFAULT) -> LoadResult:
        """Load one extraction from a local folder with its files; for the rest see `Warehouse.load_from`."""
        files = verify(folder, manifest)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        window = window_of(manifest)
        whole = window is None or window.lower is None
        memories = [LEAN, AMPLE, LAST] if whole else [AMPLE, LAST]
        while True:
            memory = memories.pop(0)
            try:
                return self._load(manifest, folder, files, policy, memory)
            except duckdb.OutOfMemoryException as error:
                if not memories:
                    raise LoadError(
                        f"{manifest.table}: the load was rolled back, for DuckDB needs more than {memory.limit} for it;"
                        f" leave out very wide columns with select, or shorten them in a sql: {error}"
                    ) from error
                log.info("%s: the load needs more than %s; it begins again", manifest.table, memory)

    def _load(self, manifest: Manifest, folder: Path, files: list[Path], policy: Meta, memory: Memory) -> LoadResult:
        """One transaction; `duckdb.OutOfMemoryException` says that nothing was changed for want of memory."""
        started = time.monotonic()
        with connected(self.path, self.lock_timeout, memory=memory) as sql:
            try:
                with time_limit(sql, self.load_timeout):
                    sql.execute("BEGIN")
                    loadlog.prepare(sql)
                    before = loadlog.loaded_before(sql, manifest)
                    if before is not None and Table(sql, manifest.table).exists:
                        sql.execute("ROLLBACK")
                        log.info("%s: extraction %s was loaded before; nothing changed", manifest.table, manifest.id)
                        return before
                    sql.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(manifest.table.split('.')[0])}")
                    load = Load(sql, manifest, files, folder / manifest.keys.name if manifest.keys else None, policy)
                    changes = self._change(load)
                    result = _result(manifest, load, changes, time.monotonic() - started)
                    loadlog.record(sql, manifest, result, created=load.created)
                self._commit(sql)
            except duckdb.InterruptException:
                raise LoadError(
                    f"{manifest.table}: the load took longer than {self.load_timeout} s and was rolled back;"
                    " LOAD_TIMEOUT allows more"
                ) from None
            except duckdb.OutOfMemoryException:
                raise
            except duckdb.Error as error:
                full = f"the disk of {shown(self.path)} is full: " if "No space left" in str(error) else ""
                raise LoadError(f"{manifest.table}: the load failed and was rolled back: {full}{error}") from error
        log.info(
            "%s: %s rows loaded in %.2f s: %s inserted, %s updated, %s deleted",
            *(manifest.table, f"{result.rows_loaded:,}", result.seconds),
            *(f"{count:,}" for count in (changes.inserted, changes.updated, changes.deleted)),
        )
        return result

    def count(self, table: str) -> int | None:
        """Rows of a table; None when it, or the file, does not exist."""
        state = self.state(table, None)
        return state.rows if state else None

    def count_all(self, tables: Mapping[str, str], day: date) -> dict[str, Counted]:
        """Rows of tables, now and on the days before one; see `Warehouse.count_all`."""
        if not self.path.exists():
            return {name: Counted(None, ()) for name in tables}
        with connected(self.path, self.lock_timeout, read_only=True) as sql:
            try:
                with time_limit(sql, self.load_timeout):
                    earlier = completeness.earlier(sql, day)
                    rows = completeness.rows(sql, tables.values())
            except duckdb.Error as error:
                raise LoadError(f"the tables of {shown(self.path)} cannot be counted: {error}") from error
        return {name: Counted(rows.get(table), earlier.get(name, ())) for name, table in tables.items()}

    def write_completeness(self, day: date, run_id: str, found: Sequence[Completeness]) -> None:
        """Write the rows of a day; see `Warehouse.write_completeness`."""
        if not found or not self.path.exists():  # a file that is lost is not made anew by a report
            return
        with connected(self.path, self.lock_timeout) as sql:
            try:
                completeness.write(sql, day, run_id, found)
            except duckdb.Error as error:
                raise LoadError(f"{COMPLETENESS} could not be written and is as before: {error}") from error

    def state(self, table: str, update_key: str | None) -> TableState | None:
        """Where a raw table stands; see `Warehouse.state`."""
        if not self.path.exists():
            return None
        with connected(self.path, self.lock_timeout, read_only=True) as sql:
            there = Table(sql, table)
            if not there.exists:
                return None
            return TableState(there.count(), there.watermark(update_key), loadlog.files(sql, table))

    def _change(self, load: Load) -> Changes:
        return load.run()

    def _commit(self, sql: duckdb.DuckDBPyConnection) -> None:
        sql.execute("COMMIT")


def _result(manifest: Manifest, load: Load, changes: Changes, seconds: float) -> LoadResult:
    """The figures of a load, before commit."""
    table = load.table
    return LoadResult(
        table=manifest.table,
        rows_read=manifest.rows_read,
        rows_loaded=manifest.rows,
        rows_rejected=manifest.rows_rejected,
        rows_total=table.count(),
        rows_inserted=changes.inserted,
        rows_updated=changes.updated,
        rows_deleted=changes.deleted,
        rows_duplicate=manifest.rows_duplicate,
        source_rows=manifest.source_rows,
        bytes=manifest.bytes,
        seconds=round(seconds, 3),
        watermark=table.watermark(manifest.update_key),
        repeated=False,
        schema_change="; ".join(load.schema_changes),
    )
