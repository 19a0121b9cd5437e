"""Extractions of all modes for the tests of the warehouse, made of rows instead of a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from include.elt.contract import Column
from include.elt.lake import Manifest, describe
from include.elt.replication import Meta
from include.elt.sql import literal, quoted
from include.elt.warehouse import LoadResult
from tests.support.elt import Bench, Row

_START = datetime(2026, 1, 1, tzinfo=UTC)


def moment(minute: int) -> datetime:
    """When an extraction of that minute was made."""
    return _START + timedelta(minutes=minute)


def values(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """A query that gives these rows in the types of a contract."""
    types = {name: Column(name, data_type).duckdb_type for name, data_type in columns.items()}
    casts = ", ".join(f"CAST({quoted(name)} AS {data_type}) AS {quoted(name)}" for name, data_type in types.items())
    given = rows or [(None,) * len(types)]
    lines = ", ".join(f"({', '.join('NULL' if v is None else literal(str(v)) for v in row)})" for row in given)
    return f"SELECT {casts} FROM (VALUES {lines}) AS v({', '.join(map(quoted, types))}) LIMIT {len(rows)}"


@dataclass
class Raw:
    """The raw table `raw.orders` and the extractions that come into it, each a minute later than the one before."""

    bench: Bench
    columns: Mapping[str, str] = field(default_factory=lambda: {"id": "bigint", "a": "string"})
    policy: Meta = field(default_factory=Meta)
    mode: str = "incremental"
    key: tuple[str, ...] = ("id",)
    update_key: str | None = None
    minute: int = 0

    def extract(
        self, rows: Sequence[Row] | str, keys: Sequence[Row] | None = None, at: int | None = None, **fields: Any
    ) -> tuple[Manifest, Path]:
        """An extraction in the lake.

        Args:
            rows: its rows, or a query for them.
            keys: the primary keys that the source holds, if it was asked.
            at: the minute of the extraction; the next one by default.
            fields: further fields of the manifest; `columns` are those of the contract.
        """
        self.minute = self.minute + 1 if at is None else at
        columns = fields.pop("columns", self.columns)
        query = rows if isinstance(rows, str) else values(rows, columns)
        given: dict[str, Any] = {
            "mode": self.mode,
            "primary_key": self.key,
            "update_key": self.update_key,
            "extracted_at": moment(self.minute).isoformat(),
            "run_id": f"run {self.minute}",
        }
        manifest, folder = self.bench.publish(query, columns, **given | fields)
        if keys is not None:
            file = folder / "keys.parquet"
            of_key = {name: columns[name] for name in self.key}
            with duckdb.connect() as sql:
                sql.execute(f"COPY ({values(keys, of_key)}) TO {literal(file)} (FORMAT parquet)")
            manifest = replace(manifest, keys=describe(file, len(keys)))
        return manifest, folder

    def load(self, rows: Sequence[Row] | str, keys: Sequence[Row] | None = None, **fields: Any) -> LoadResult:
        """Extract and load."""
        return self.take(self.extract(rows, keys, **fields))

    def take(self, extraction: tuple[Manifest, Path], policy: Meta | None = None) -> LoadResult:
        """Load an extraction that is there."""
        return self.bench.warehouse().load(*extraction, policy or self.policy)

    def rows(self, what: str = "*") -> list[Row]:
        """The raw table in the order of its values; times as minutes of the extraction."""
        return [tuple(map(_plain, row)) for row in self.bench.query(f"SELECT {what} FROM raw.orders ORDER BY ALL")]

    def types(self) -> dict[str, str]:
        """The columns of the raw table."""
        return dict(self.bench.query("SELECT column_name, column_type FROM (DESCRIBE raw.orders)"))


def changes(result: LoadResult) -> tuple[int, int, int]:
    """Rows inserted, updated and deleted."""
    return result.rows_inserted, result.rows_updated, result.rows_deleted


def _plain(value: Any) -> Any:
    zoned = isinstance(value, datetime) and value.tzinfo is not None
    return (value - _START) // timedelta(minutes=1) if zoned else value
