"""The load log: a row for every load, written in the transaction of the load itself.

Values are SQL literals and no parameters: the first parameter that DuckDB's client is given makes it import pandas, if
that is installed, which takes longer than most loads.
"""

from __future__ import annotations

import json
from dataclasses import fields

import duckdb

from include.elt.lake import Manifest
from include.elt.sql import literal, quoted
from include.elt.warehouse import LOAD_LOG, LoadResult
from include.elt.warehouse.rules import Loaded, files_of

_COLUMNS = {
    "manifest_id": "VARCHAR NOT NULL UNIQUE",
    "run_id": "VARCHAR NOT NULL",
    "replication": "VARCHAR NOT NULL",
    "stream": "VARCHAR NOT NULL",
    "table_name": "VARCHAR NOT NULL",
    "mode": "VARCHAR NOT NULL",
    "rows_read": "BIGINT NOT NULL",
    "rows_loaded": "BIGINT NOT NULL",
    "rows_rejected": "BIGINT NOT NULL",
    "rows_total": "BIGINT NOT NULL",
    "bytes": "BIGINT NOT NULL",
    "extract_seconds": "DOUBLE NOT NULL",
    "load_seconds": "DOUBLE NOT NULL",
    "schema_hash": "VARCHAR NOT NULL",
    "watermark": "VARCHAR",
    "extracted_at": "TIMESTAMP WITH TIME ZONE NOT NULL",
    "loaded_at": "TIMESTAMP WITH TIME ZONE NOT NULL",
}

_LATER = {
    "rows_inserted": "BIGINT",
    "rows_updated": "BIGINT",
    "rows_deleted": "BIGINT",
    "rows_duplicate": "BIGINT",
    "source_rows": "BIGINT",
    "window_lower": "VARCHAR",
    "window_upper": "VARCHAR",
    "window_closed": "BOOLEAN",
    "window_column": "VARCHAR",
    "source": "VARCHAR",
    "source_columns": "VARCHAR",
    "table_created": "BOOLEAN",
}
"""Columns that logs of earlier versions lack; they get them without a value."""


def prepare(sql: duckdb.DuckDBPyConnection) -> None:
    """Make the log, or give one of an earlier version its new columns."""
    sql.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(LOAD_LOG.split('.')[0])}")
    columns = ", ".join(f"{name} {data_type}" for name, data_type in (_COLUMNS | _LATER).items())
    sql.execute(f"CREATE TABLE IF NOT EXISTS {LOAD_LOG} ({columns})")
    for name, data_type in _LATER.items():
        sql.execute(f"ALTER TABLE {LOAD_LOG} ADD COLUMN IF NOT EXISTS {name} {data_type}")


def loaded_before(sql: duckdb.DuckDBPyConnection, manifest: Manifest) -> LoadResult | None:
    """The figures of an earlier load of the same extraction into the raw table that is there."""
    figures = {field.name: field.name for field in fields(LoadResult)} | {
        "table": "table_name",
        "seconds": "load_seconds",
        "repeated": "TRUE",
        "schema_change": "''",  # it was told with the first load
        "rows_inserted": "coalesce(rows_inserted, rows_loaded)",  # earlier versions knew the full refresh only
        **{name: f"coalesce({name}, 0)" for name in ("rows_updated", "rows_deleted", "rows_duplicate")},
    }
    row = sql.execute(
        f"SELECT {', '.join(figures.values())} FROM {LOAD_LOG}"
        f" WHERE manifest_id = {literal(manifest.id)} AND {_since_made(manifest.table)}"
    ).fetchone()
    return LoadResult(**dict(zip(figures, row, strict=True))) if row else None


def newer(sql: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Loaded]:
    """Loads into the raw table whose extractions are newer than this one, the newest first."""
    rows = sql.execute(
        "SELECT run_id, mode, window_lower, window_upper, window_closed, window_column"
        f" FROM {LOAD_LOG} WHERE {_since_made(manifest.table)} AND extracted_at > {literal(manifest.extracted_at)}"
        " ORDER BY extracted_at DESC"
    ).fetchall()
    return [Loaded(*row) for row in rows]


def snapshots_of_run(sql: duckdb.DuckDBPyConnection, manifest: Manifest) -> str:
    """SQL list of the times of snapshots that the same run took of the same stream; empty without any."""
    rows = sql.execute(
        f"SELECT extracted_at::VARCHAR FROM {LOAD_LOG} WHERE {_since_made(manifest.table)} AND mode = 'snapshot'"
        f" AND run_id = {literal(manifest.run_id)} AND replication = {literal(manifest.replication)}"
        f" AND stream = {literal(manifest.stream)}"
    ).fetchall()
    return ", ".join(f"TIMESTAMPTZ '{text}'" for (text,) in rows)


def files(sql: duckdb.DuckDBPyConnection, table: str) -> frozenset[tuple[str, str]]:
    """Name and sha256 of the files that were loaded into a table, since and with its last full refresh."""
    has_source = sql.execute(
        f"SELECT 1 FROM duckdb_columns() WHERE schema_name || '.' || table_name = {literal(LOAD_LOG)}"
        " AND column_name = 'source' AND database_name = current_database()"
    ).fetchone()
    if not has_source:
        return frozenset()
    since = _since_made(table, "OR mode = 'full-refresh'")
    rows = sql.execute(f"SELECT source FROM {LOAD_LOG} WHERE {since} AND source IS NOT NULL")
    return frozenset(pair for (text,) in rows.fetchall() for pair in files_of(json.loads(text)))


def record(sql: duckdb.DuckDBPyConnection, manifest: Manifest, result: LoadResult, *, created: bool) -> None:
    """Write the row of a load, in the transaction of the load."""
    window = manifest.window or {}
    row = {
        "manifest_id": manifest.id,
        "run_id": manifest.run_id,
        "replication": manifest.replication,
        "stream": manifest.stream,
        "table_name": manifest.table,
        "mode": manifest.mode,
        "rows_read": result.rows_read,
        "rows_loaded": result.rows_loaded,
        "rows_rejected": result.rows_rejected,
        "rows_total": result.rows_total,
        "bytes": result.bytes,
        "extract_seconds": manifest.seconds,
        "load_seconds": result.seconds,
        "schema_hash": manifest.schema_hash,
        "watermark": result.watermark,
        "extracted_at": manifest.extracted_at,
        "rows_inserted": result.rows_inserted,
        "rows_updated": result.rows_updated,
        "rows_deleted": result.rows_deleted,
        "rows_duplicate": result.rows_duplicate,
        "source_rows": result.source_rows,
        "window_lower": window.get("lower"),
        "window_upper": window.get("upper"),
        "window_closed": window.get("closed"),
        "window_column": window.get("column"),
        "source": json.dumps(manifest.source, ensure_ascii=False),
        "source_columns": json.dumps(manifest.source_columns, ensure_ascii=False),
        "table_created": created,
    }
    values = ", ".join("NULL" if value is None else literal(str(value)) for value in row.values())
    sql.execute(f"DELETE FROM {LOAD_LOG} WHERE manifest_id = {literal(manifest.id)}")
    sql.execute(f"INSERT INTO {LOAD_LOG} ({', '.join(row)}, loaded_at) VALUES ({values}, now())")


def _since_made(table: str, otherwise: str = "") -> str:
    """SQL condition: loads since the raw table was made; those into one that somebody dropped do not count."""
    of_table = f"table_name = {literal(table)}"
    last = f"SELECT max(loaded_at) FROM {LOAD_LOG} WHERE {of_table} AND (table_created {otherwise})"
    return f"{of_table} AND loaded_at >= coalesce(({last}), '-infinity')"
