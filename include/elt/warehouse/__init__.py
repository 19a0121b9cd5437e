"""Warehouses: from the lake into raw tables, in one transaction each. Knows nothing of Airflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from include.elt.connections import AirflowConnection
from include.elt.errors import SettingsError
from include.elt.lake import Lake, Manifest
from include.elt.replication import Meta
from include.elt.settings import Settings

_DEFAULT = Meta()

LOAD_LOG = "ops.load_log"
"""Table with a row for every load, written in the transaction of the load itself."""

COMPLETENESS = "ops.completeness"
"""Table with a row per day and table: how many rows it has, how many are usual, what is wrong with it."""

DAYS = 20
"""Days of it that are compared."""


@dataclass(frozen=True)
class LoadResult:
    """What a load did, after commit.

    Attributes:
        table: schema and name of the raw table.
        rows_read: rows that the source held.
        rows_loaded: rows that came into the raw table.
        rows_rejected: rows set aside at the extraction.
        rows_total: rows of the raw table afterwards, those marked as deleted included.
        rows_inserted: rows that are new in the raw table.
        rows_updated: rows that changed.
        rows_deleted: rows that were removed, or marked, because the source has them no more.
        rows_duplicate: rows left out because a later one has the same primary key.
        source_rows: rows of the whole source, where they were counted to reconcile.
        bytes: size of the Parquet files.
        seconds: wall-clock time of the load.
        watermark: largest value of the update key as text, if there is an update key and a value.
        repeated: whether this extraction had been loaded before, so that nothing was changed.
        schema_change: what the load did because source, contract and raw table have different columns, in words.
    """

    table: str
    rows_read: int
    rows_loaded: int
    rows_rejected: int
    rows_total: int
    rows_inserted: int
    rows_updated: int
    rows_deleted: int
    rows_duplicate: int
    source_rows: int | None
    bytes: int
    seconds: float
    watermark: str | None
    repeated: bool
    schema_change: str = ""


@dataclass(frozen=True)
class TableState:
    """Where a raw table stands; what an incremental read begins with.

    Attributes:
        rows: its rows.
        watermark: largest value of the update key as text; None without rows or update key.
        files: name and sha256 of each file that was loaded into it, since its last full refresh.
    """

    rows: int
    watermark: str | None
    files: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Counted:
    """How many rows a table has, and had.

    Attributes:
        rows: its rows now; None when it does not exist, or cannot be read.
        earlier: its rows on up to `DAYS` days before, by `ops.completeness`, the newest first.
    """

    rows: int | None
    earlier: tuple[int, ...]


@dataclass(frozen=True)
class Completeness:
    """What `ops.completeness` says of a table on one day.

    Attributes:
        table: schema and name of a raw table or mart, the same in every environment.
        rows: its rows; None for one that is gone.
        rows_usual: the median of the days before; None without any.
        updated_at: when it was last loaded or built; None if that is not known.
        findings: what is wrong with it; nothing, if all is well.
    """

    table: str
    rows: int | None
    rows_usual: int | None
    updated_at: datetime | None
    findings: tuple[str, ...]


class Warehouse(Protocol):
    """What every warehouse of the product can do."""

    def state(self, table: str, update_key: str | None) -> TableState | None:
        """Where a raw table stands; None when it does not exist.

        Raises:
            WarehouseBusyError: the warehouse is held by another process for too long.
        """

    def load_from(self, lake: Lake, location: str, manifest: Manifest, policy: Meta = _DEFAULT) -> LoadResult:
        """Load one extraction: all of it, together with its row in the load log, or nothing.

        Args:
            lake: the lake that holds it.
            location: where in the lake.
            manifest: what was extracted, and in which mode.
            policy: the stream's `meta`: whether it may empty the table, deletes, schema change, reconciliation.

        Returns:
            The figures, true after commit. For an extraction that was loaded before: those of then.

        Raises:
            LoadError: the extraction is damaged; the raw table is as before.
            RefusedLoadError: it is older than what was loaded last, empty where that is not allowed, does not fit the
                columns of the raw table, or leaves other counts than the source has.
            WarehouseBusyError: the warehouse is held by another process for too long, or cannot be reached.
            WarehouseRefusedError: it lets us in no further.
        """

    def count(self, table: str) -> int | None:
        """Rows of a table; None when it does not exist."""

    def count_all(self, tables: Mapping[str, str], day: date) -> dict[str, Counted]:
        """Rows of tables or views, now and on the days before one.

        Args:
            tables: schema and name of each in the warehouse, by the name that it has in `ops.completeness`.
            day: the day; its own row there does not count as earlier.

        Raises:
            LoadError: the warehouse cannot be read.
            WarehouseBusyError: the warehouse is held by another process for too long, or cannot be reached.
            WarehouseRefusedError: it lets us in no further.
        """

    def write_completeness(self, day: date, run_id: str, found: Sequence[Completeness]) -> None:
        """Write the rows of a day into `ops.completeness`, in the place of those that it has of that day.

        Args:
            day: the day.
            run_id: Airflow run that counted.
            found: a row per table; without any, nothing is written.

        Raises:
            LoadError: they could not be written; the table is as before.
            WarehouseBusyError: the warehouse is held by another process for too long, or cannot be reached.
            WarehouseRefusedError: it lets us in no further.
        """


def open_warehouse(
    settings: Settings,
    look_up: Callable[[str], AirflowConnection] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Warehouse:
    """The warehouse that the settings choose.

    Args:
        settings: settings of the deployment.
        look_up: gives the Airflow connection of an id; for Databricks.
        tags: what the warehouse is to note with each statement, where it can: the DAG, the task, the run.

    Raises:
        SettingsError: the connection is missing or says something that is not understood.
    """
    if settings.warehouse == "databricks":
        if look_up is None:
            raise SettingsError("WAREHOUSE=databricks needs an Airflow connection; here is no Airflow to ask for it")
        from include.elt.connections.databricks import Workspace
        from include.elt.warehouse.databricks import DatabricksWarehouse

        workspace = Workspace.of(look_up(settings.databricks_connection), settings.databricks_catalog)
        limits = settings.databricks_wake_timeout, settings.load_timeout
        return DatabricksWarehouse(workspace, settings.databricks_catalog, *limits, tags or {})
    from include.elt.warehouse.duckdb import DuckDBWarehouse

    return DuckDBWarehouse(settings.duckdb_path, settings.lock_timeout, settings.load_timeout)
