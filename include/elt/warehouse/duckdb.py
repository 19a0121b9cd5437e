"""DuckDB as the warehouse: one file, one writer, real transactions."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from include.elt.errors import LoadError, RefusedLoadError, WarehouseBusyError
from include.elt.lake import Manifest, verify
from include.elt.paths import shown
from include.elt.replication import Meta
from include.elt.sql import parquet, quoted
from include.elt.warehouse import LOAD_LOG, LoadResult, TableState

log = logging.getLogger(__name__)

_DEFAULT = Meta()

_MEMORY = "1GB"
"""Memory limit of a load; it streams, so more would not make it faster."""

_DDL = f"""
CREATE TABLE IF NOT EXISTS {LOAD_LOG} (
    manifest_id VARCHAR NOT NULL UNIQUE,
    run_id VARCHAR NOT NULL,
    replication VARCHAR NOT NULL,
    stream VARCHAR NOT NULL,
    table_name VARCHAR NOT NULL,
    mode VARCHAR NOT NULL,
    rows_read BIGINT NOT NULL,
    rows_loaded BIGINT NOT NULL,
    rows_rejected BIGINT NOT NULL,
    rows_total BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    extract_seconds DOUBLE NOT NULL,
    load_seconds DOUBLE NOT NULL,
    schema_hash VARCHAR NOT NULL,
    watermark VARCHAR,
    extracted_at TIMESTAMP WITH TIME ZONE NOT NULL,
    loaded_at TIMESTAMP WITH TIME ZONE NOT NULL
)
"""


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

    def load(self, manifest: Manifest, folder: Path, policy: Meta = _DEFAULT) -> LoadResult:
        """Load one extraction; see `Warehouse.load`."""
        started = time.monotonic()
        files = verify(folder, manifest)
        with self._connected() as sql:
            try:
                with self._time_limit(sql):
                    sql.execute("BEGIN")
                    before = self._loaded_before(sql, manifest)
                    if before is not None:
                        sql.execute("ROLLBACK")
                        log.info("%s: extraction %s was loaded before; nothing changed", manifest.table, manifest.id)
                        return before
                    self._replace(sql, manifest, files, allow_empty=policy.allow_empty)
                    result = self._figures(sql, manifest, time.monotonic() - started)
                    self._record(sql, manifest, result)
                sql.execute("COMMIT")
            except duckdb.InterruptException:
                raise LoadError(
                    f"{manifest.table}: the load took longer than {self.load_timeout} s and was rolled back;"
                    " LOAD_TIMEOUT allows more"
                ) from None
            except duckdb.Error as error:
                raise LoadError(f"{manifest.table}: the load failed and was rolled back: {error}") from error
        log.info("%s: %s rows loaded in %.2f s", manifest.table, f"{result.rows_loaded:,}", result.seconds)
        return result

    def count(self, table: str) -> int | None:
        """Rows of a table; None when it, or the file, does not exist."""
        if not self.path.exists():
            return None
        with self._connected() as sql:
            return self._count(sql, table)

    def state(self, table: str, update_key: str | None) -> TableState | None:
        """Where a raw table stands; see `Warehouse.state`."""
        raise NotImplementedError

    @contextmanager
    def _connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to the file. A transaction that is open at the end is rolled back."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._wait_for_file()
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        finally:
            connection.close()

    def _wait_for_file(self) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + self.lock_timeout
        pause = 0.1
        while True:
            try:
                return duckdb.connect(
                    str(self.path),
                    config={
                        "memory_limit": _MEMORY,
                        "autoinstall_known_extensions": "false",
                        "autoload_known_extensions": "false",
                    },
                )
            except duckdb.IOException as error:
                if "Could not set lock" not in str(error):
                    raise LoadError(f"{shown(self.path)} cannot be opened: {error}") from error
                if time.monotonic() + pause > deadline:
                    holder = re.search(r"held in (.+?) \(PID (\d+)\)", str(error))
                    who = f"process {holder[2]} ({holder[1]})" if holder else "another process"
                    raise WarehouseBusyError(
                        f"{shown(self.path)} is held by {who} for more than {self.lock_timeout} s;"
                        " a DuckDB file has one writer at a time: end that process, or wait longer with LOCK_TIMEOUT"
                    ) from error
                log.info("%s is held by another process; waiting", shown(self.path))
            except duckdb.Error as error:
                raise LoadError(f"{shown(self.path)} is not a usable DuckDB file: {error}") from error
            time.sleep(pause)
            pause = min(pause * 2, 2.0)

    @contextmanager
    def _time_limit(self, sql: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Interrupt a statement that runs too long; Python's own signals wait until DuckDB returns.

        An interrupt between two statements is lost, so it is repeated until the block has ended.
        """
        done = threading.Event()

        def watch() -> None:
            pause = self.load_timeout
            while not done.wait(pause):
                sql.interrupt()
                pause = 0.1

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _count(self, sql: duckdb.DuckDBPyConnection, table: str) -> int | None:
        schema, name = table.split(".")
        there = sql.execute(
            "SELECT 1 FROM duckdb_tables()"
            " WHERE schema_name = ? AND table_name = ? AND database_name = current_database()",
            [schema, name],
        ).fetchone()
        if not there:
            return None
        row = sql.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone()
        return int(row[0]) if row else None

    def _loaded_before(self, sql: duckdb.DuckDBPyConnection, manifest: Manifest) -> LoadResult | None:
        """The figures of an earlier load of the same extraction, if its table is still there."""
        for schema in {LOAD_LOG.split(".")[0], manifest.table.split(".")[0]}:
            sql.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
        sql.execute(_DDL)
        row = sql.execute(
            "SELECT table_name, rows_read, rows_loaded, rows_rejected, rows_total, rows_total, 0, 0, 0, NULL, bytes,"
            " load_seconds, watermark, TRUE"
            f" FROM {LOAD_LOG} WHERE manifest_id = ?",
            [manifest.id],
        ).fetchone()
        if row is None or self._count(sql, manifest.table) is None:
            return None
        return LoadResult(*row)

    def _replace(
        self, sql: duckdb.DuckDBPyConnection, manifest: Manifest, files: list[Path], *, allow_empty: bool
    ) -> None:
        """Put the extraction in the place of the raw table, unless that would lose what is there."""
        there = self._count(sql, manifest.table)
        newer = sql.execute(
            f"SELECT run_id FROM {LOAD_LOG} WHERE table_name = ? AND extracted_at > ?"
            " ORDER BY extracted_at DESC LIMIT 1",
            [manifest.table, manifest.extracted_at],
        ).fetchone()
        if newer and there is not None:
            raise RefusedLoadError(
                f"{manifest.table}: a newer extraction was loaded already, by run {newer[0]}; clear the extract task"
                " together with this one to load what the source holds now"
            )
        if there and not manifest.rows and not allow_empty:
            raise RefusedLoadError(
                f"{manifest.table}: the source of stream {manifest.stream} is empty, and the table has {there:,} rows;"
                " an empty full-refresh would lose them. If it is right, set meta.allow_empty: true for the stream"
            )
        names = ", ".join(quoted(name) for name, _ in manifest.columns)
        sql.execute(f"CREATE OR REPLACE TABLE {quoted(manifest.table)} AS SELECT {names} FROM {parquet(files)}")

    def _figures(self, sql: duckdb.DuckDBPyConnection, manifest: Manifest, seconds: float) -> LoadResult:
        """What the raw table holds now, before commit; refuses a table that is not what was extracted."""
        total = self._count(sql, manifest.table)
        if total != manifest.rows:
            raise LoadError(f"{manifest.table}: {total} rows arrived of {manifest.rows}; the load was rolled back")
        watermark = None
        if manifest.update_key:
            row = sql.execute(
                f"SELECT CAST(max({quoted(manifest.update_key)}) AS VARCHAR) FROM {quoted(manifest.table)}"
            ).fetchone()
            watermark = row[0] if row else None
        return LoadResult(
            table=manifest.table,
            rows_read=manifest.rows_read,
            rows_loaded=manifest.rows,
            rows_rejected=manifest.rows_rejected,
            rows_total=total,
            rows_inserted=total,
            rows_updated=0,
            rows_deleted=0,
            rows_duplicate=manifest.rows_duplicate,
            source_rows=manifest.source_rows,
            bytes=manifest.bytes,
            seconds=round(seconds, 3),
            watermark=watermark,
            repeated=False,
        )

    def _record(self, sql: duckdb.DuckDBPyConnection, manifest: Manifest, result: LoadResult) -> None:
        """Write the load's row into the load log, in the transaction of the load."""
        sql.execute(f"DELETE FROM {LOAD_LOG} WHERE manifest_id = ?", [manifest.id])
        sql.execute(
            f"INSERT INTO {LOAD_LOG} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, now())",
            [
                manifest.id,
                manifest.run_id,
                manifest.replication,
                manifest.stream,
                manifest.table,
                manifest.mode,
                result.rows_read,
                result.rows_loaded,
                result.rows_rejected,
                result.rows_total,
                result.bytes,
                manifest.seconds,
                result.seconds,
                manifest.schema_hash,
                result.watermark,
                manifest.extracted_at,
            ],
        )
