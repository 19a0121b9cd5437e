"""Warehouses: from the lake into raw tables, in one transaction each. Knows nothing of Airflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from include.elt.lake import Manifest
from include.elt.settings import Settings

LOAD_LOG = "ops.load_log"
"""Table with a row for every load, written in the transaction of the load itself."""


@dataclass(frozen=True)
class LoadResult:
    """What a load did, after commit.

    Attributes:
        table: schema and name of the raw table.
        rows_read: rows that the source held.
        rows_loaded: rows that came into the raw table.
        rows_rejected: rows set aside at the extraction.
        rows_total: rows of the raw table afterwards.
        bytes: size of the Parquet files.
        seconds: wall-clock time of the load.
        watermark: largest value of the update key as text, if there is an update key and a value.
        repeated: whether this extraction had been loaded before, so that nothing was changed.
    """

    table: str
    rows_read: int
    rows_loaded: int
    rows_rejected: int
    rows_total: int
    bytes: int
    seconds: float
    watermark: str | None
    repeated: bool


class Warehouse(Protocol):
    """What every warehouse of the product can do."""

    def load(self, manifest: Manifest, folder: Path, *, allow_empty: bool = False) -> LoadResult:
        """Load one extraction: all of it, together with its row in the load log, or nothing.

        Args:
            manifest: what was extracted.
            folder: where it lies in the lake.
            allow_empty: whether an empty extraction may replace a table that has rows.

        Returns:
            The figures, true after commit. For an extraction that was loaded before: those of then.

        Raises:
            LoadError: the extraction is damaged; the raw table is as before.
            RefusedLoadError: it is older than what was loaded last, or empty where that is not allowed.
            WarehouseBusyError: the warehouse is held by another process for too long.
        """

    def count(self, table: str) -> int | None:
        """Rows of a table; None when it does not exist."""


def open_warehouse(settings: Settings) -> Warehouse:
    """The warehouse that the settings choose."""
    from include.elt.warehouse.duckdb import DuckDBWarehouse

    return DuckDBWarehouse(settings.duckdb_path, settings.lock_timeout, settings.load_timeout)
