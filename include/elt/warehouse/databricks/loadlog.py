"""The load log, and the intents that make up for a transaction over two tables, which Databricks does not have.

A load first writes what it is about to do into `ops.load_intent`, then changes the raw table in one statement, then
writes its row into `ops.load_log`. A process that dies in between leaves an intent without a row in the log: whoever
comes later counts it as a load that may have happened, so that nothing older gets in, and the load itself, when it is
tried again, finds the figures of what it did. Both tables are only ever added to, so that loads of different tables
never wait for each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from include.elt.lake import Manifest
from include.elt.warehouse import LOAD_LOG, LoadResult
from include.elt.warehouse.databricks.session import Session
from include.elt.warehouse.databricks.table import Table
from include.elt.warehouse.databricks.text import listed, literal, quoted
from include.elt.warehouse.rules import Loaded, files_of

LOAD_INTENT = "ops.load_intent"
"""Table with a row for every load that was about to change a raw table."""

_LOG = {
    "manifest_id": "string",
    "run_id": "string",
    "replication": "string",
    "stream": "string",
    "table_name": "string",
    "mode": "string",
    "rows_read": "bigint",
    "rows_loaded": "bigint",
    "rows_rejected": "bigint",
    "rows_total": "bigint",
    "bytes": "bigint",
    "extract_seconds": "double",
    "load_seconds": "double",
    "schema_hash": "string",
    "watermark": "string",
    "extracted_at": "timestamp",
    "loaded_at": "timestamp",
    "rows_inserted": "bigint",
    "rows_updated": "bigint",
    "rows_deleted": "bigint",
    "rows_duplicate": "bigint",
    "source_rows": "bigint",
    "window_lower": "string",
    "window_upper": "string",
    "window_closed": "boolean",
    "window_column": "string",
    "source": "string",
    "source_columns": "string",
    "table_created": "boolean",
}
_INTENT_ONLY = ("rows_inserted", "rows_updated", "rows_deleted", "table_created")
_INTENT = {
    name: _LOG[name]
    for name in _LOG
    if name in _INTENT_ONLY
    or name.startswith("window_")
    or name in ("manifest_id", "run_id", "replication", "stream", "table_name", "mode", "extracted_at", "loaded_at")
}


@dataclass(frozen=True)
class Intent:
    """What an earlier try of the same load was about to do."""

    inserted: int
    updated: int
    deleted: int
    created: bool


class LoadLog:
    """Both tables.

    Args:
        sql: the session.
        manifest: the extraction that is loaded.
    """

    def __init__(self, sql: Session, manifest: Manifest) -> None:
        self.sql = sql
        self.manifest = manifest
        self.log = Table(sql, LOAD_LOG)
        self.intent = Table(sql, LOAD_INTENT)

    def prepare(self) -> None:
        """Make what is missing of both. Where everything is there, no right to make a schema or table is needed."""
        for table, columns in ((self.log, _LOG), (self.intent, _INTENT)):
            if not table.exists:
                make_schema(self.sql, table.name)
                shape = ", ".join(f"{name} {data_type}" for name, data_type in columns.items())
                self.sql.run(f"CREATE TABLE IF NOT EXISTS {table.quoted} ({shape})")
                table.changed()
            elif missing := {name: kind for name, kind in columns.items() if name not in table.columns}:
                table.add(missing)

    def loaded_before(self) -> LoadResult | None:
        """The figures of an earlier load of the same extraction into the raw table that is there."""
        figures = {each.name: each.name for each in fields(LoadResult)} | {
            "table": "table_name",
            "seconds": "load_seconds",
            "repeated": "TRUE",
            "schema_change": "''",  # it was told with the first load
        }
        rows = self.sql.rows(
            f"SELECT {', '.join(figures.values())} FROM {self.log.quoted}"
            f" WHERE manifest_id = {literal(self.manifest.id)} AND {self._since_made()} ORDER BY loaded_at DESC LIMIT 1"
        )
        return LoadResult(**dict(zip(figures, rows[0], strict=True))) if rows else None

    def begun_before(self) -> Intent | None:
        """What an earlier try of this load was about to do to the raw table, if it came that far."""
        rows = self.sql.rows(
            f"SELECT rows_inserted, rows_updated, rows_deleted, table_created FROM {self.intent.quoted}"
            f" WHERE manifest_id = {literal(self.manifest.id)} AND {self._since_made()} ORDER BY loaded_at LIMIT 1"
        )
        return Intent(*rows[0]) if rows else None

    def newer(self) -> list[Loaded]:
        """Loads into the raw table, begun ones included, whose extractions are newer than this one."""
        names = "run_id, mode, window_lower, window_upper, window_closed, window_column, extracted_at"
        condition = (
            f"{self._since_made()} AND extracted_at > CAST({literal(self.manifest.extracted_at)} AS TIMESTAMP)"
            f" AND manifest_id <> {literal(self.manifest.id)}"
        )
        rows = self.sql.rows(
            f"SELECT DISTINCT {names} FROM (SELECT {names} FROM {self.log.quoted} WHERE {condition}"
            f" UNION ALL SELECT {names} FROM {self.intent.quoted} WHERE {condition}) ORDER BY extracted_at DESC"
        )
        return [Loaded(*row[:6]) for row in rows]

    def snapshots_of_run(self) -> list[str]:
        """When the same run took snapshots of the same stream, this one included; text of UTC times."""
        manifest = self.manifest
        rows = self.sql.rows(
            f"SELECT DISTINCT CAST(extracted_at AS STRING) FROM {self.intent.quoted} WHERE {self._since_made()}"
            f" AND mode = 'snapshot' AND run_id = {literal(manifest.run_id)}"
            f" AND replication = {literal(manifest.replication)} AND stream = {literal(manifest.stream)}"
        )
        return [str(text) for (text,) in rows]

    def begin(self, inserted: int, updated: int, deleted: int, *, created: bool) -> None:
        """Write down what the load is about to do."""
        figures = {"rows_inserted": inserted, "rows_updated": updated, "rows_deleted": deleted}
        self._add(self.intent, _INTENT, self._common() | figures | {"table_created": created})

    def record(self, result: LoadResult, *, created: bool) -> None:
        """Write the row of a load that has happened."""
        manifest = self.manifest
        row = self._common() | {
            name: getattr(result, name) for name in _LOG if name.startswith("rows_") or name in ("bytes", "source_rows")
        }
        row |= {
            "extract_seconds": manifest.seconds,
            "load_seconds": result.seconds,
            "schema_hash": manifest.schema_hash,
            "watermark": result.watermark,
            "source": json.dumps(manifest.source, ensure_ascii=False),
            "source_columns": json.dumps(manifest.source_columns, ensure_ascii=False),
            "table_created": created,
        }
        self._add(self.log, _LOG, row)

    def _common(self) -> dict[str, Any]:
        manifest, window = self.manifest, self.manifest.window or {}
        return {
            "manifest_id": manifest.id,
            "run_id": manifest.run_id,
            "replication": manifest.replication,
            "stream": manifest.stream,
            "table_name": manifest.table,
            "mode": manifest.mode,
            "extracted_at": manifest.extracted_at,
            **{f"window_{name}": window.get(name) for name in ("lower", "upper", "closed", "column")},
        }

    def _add(self, table: Table, types: Mapping[str, str], row: Mapping[str, Any]) -> None:
        values = [
            "NULL" if value is None else f"CAST({literal(str(value))} AS {types[name]})" for name, value in row.items()
        ]
        self.sql.run(
            f"INSERT INTO {table.quoted} ({listed(row)}, loaded_at) SELECT {', '.join(values)}, current_timestamp()"
        )

    def _since_made(self) -> str:
        return since_made(self.log, self.manifest.table)


def make_schema(sql: Session, table: str) -> None:
    """Make the schema of a table, unless it is there; to see that takes no right to make one."""
    schema = table.split(".")[0]
    if not sql.rows(f"SHOW SCHEMAS IN {quoted(sql.catalog)} LIKE {literal(sql.prefix + schema)}"):
        sql.run(f"CREATE SCHEMA IF NOT EXISTS {sql.qualified(schema)}")


def files(sql: Session, table: str) -> frozenset[tuple[str, str]]:
    """Name and sha256 of the files that were loaded into a table, since and with its last full refresh."""
    log = Table(sql, LOAD_LOG)
    if not log.exists:
        return frozenset()
    since = since_made(log, table, "OR mode = 'full-refresh'")
    rows = sql.rows(f"SELECT source FROM {log.quoted} WHERE {since} AND source IS NOT NULL")
    return frozenset(pair for (text,) in rows for pair in files_of(json.loads(text)))


def since_made(log: Table, table: str, otherwise: str = "") -> str:
    """SQL condition: loads since the raw table was made; those into one that somebody dropped do not count."""
    of_table = f"table_name = {literal(table)}"
    last = f"SELECT max(loaded_at) FROM {log.quoted} WHERE {of_table} AND (table_created {otherwise})"
    return f"{of_table} AND loaded_at >= coalesce(({last}), TIMESTAMP '0001-01-01 00:00:00')"
