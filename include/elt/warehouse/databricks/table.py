"""A table of Unity Catalog: its shape, its size, and the statements that change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from include.elt.contract import DELETED_AT
from include.elt.warehouse.databricks.session import MissingTableError, Session
from include.elt.warehouse.databricks.text import as_text, listed, literal, quoted, type_of


class Table:
    """A table as it is now.

    Args:
        sql: the session.
        name: schema and name.
    """

    def __init__(self, sql: Session, name: str) -> None:
        self.sql = sql
        self.name = name
        self.quoted = sql.qualified(name)

    @cached_property
    def columns(self) -> dict[str, str]:
        """Type by column, in order; empty when there is no such table."""
        try:
            rows = self.sql.rows(f"DESCRIBE TABLE {self.quoted}")
        except MissingTableError:
            return {}
        columns = {}
        for name, data_type, *_ in rows:
            if not name or name.startswith("#"):  # what follows tells of clustering and partitions
                break
            columns[str(name).lower()] = type_of(str(data_type))
        return columns

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return bool(self.columns)

    @property
    def marks(self) -> bool:
        """Whether it has the column of rows that are deleted in the source."""
        return DELETED_AT in self.columns

    def count(self, condition: str = "TRUE") -> int:
        """Its rows; 0 when it is not there."""
        return self.sql.one(f"SELECT count(*) FROM {self.quoted} AS t WHERE {condition}") if self.exists else 0

    def live(self) -> int:
        """Its rows without those that are marked as deleted."""
        return self.count(f"t.{quoted(DELETED_AT)} IS NULL" if self.marks else "TRUE")

    def watermark(self, update_key: str | None) -> str | None:
        """Largest value of the update key as text; None without a value or such a column."""
        if update_key is None or update_key not in self.columns:
            return None
        largest = as_text(f"max({quoted(update_key)})", self.columns[update_key])
        value = self.sql.rows(f"SELECT {largest} FROM {self.quoted}")[0][0]
        return None if value is None else str(value)

    def create(self, select: str, cluster_by: Sequence[str] = ()) -> None:
        """Make it from the rows of a query."""
        self.sql.run(f"CREATE TABLE {self.quoted} {_clustered(cluster_by)}AS {select}")
        self.changed()

    def replace(self, select: str, cluster_by: Sequence[str] = ()) -> None:
        """Put the rows of a query in its place, in one step; its grants and its history stay."""
        self.sql.run(f"CREATE OR REPLACE TABLE {self.quoted} {_clustered(cluster_by)}AS {select}")
        self.changed()

    def empty(self, columns: Mapping[str, str]) -> None:
        """Make it anew, without rows."""
        shape = ", ".join(f"{quoted(name)} {data_type}" for name, data_type in columns.items())
        self.sql.run(f"CREATE OR REPLACE TABLE {self.quoted} ({shape})")
        self.changed()

    def copy_in(self, folder: str, files: Sequence[str]) -> None:
        """Add the rows of Parquet files of a folder, whether they were copied before or not."""
        for first in range(0, len(files), 1000):  # the most that one statement takes
            names = ", ".join(map(literal, files[first : first + 1000]))
            self.sql.run(
                f"COPY INTO {self.quoted} FROM {literal(folder)} FILEFORMAT = PARQUET FILES = ({names})"
                " COPY_OPTIONS ('force' = 'true')"
            )

    def add(self, columns: Mapping[str, str]) -> None:
        """Give it columns."""
        wanted = ", ".join(f"{quoted(name)} {data_type}" for name, data_type in columns.items())
        self.sql.run(f"ALTER TABLE {self.quoted} ADD COLUMNS ({wanted})")
        self.changed()

    def widen(self, columns: Mapping[str, str]) -> None:
        """Give columns a wider type, without writing the table again."""
        self.sql.run(f"ALTER TABLE {self.quoted} SET TBLPROPERTIES ('delta.enableTypeWidening' = 'true')")
        for name, data_type in columns.items():
            self.sql.run(f"ALTER TABLE {self.quoted} ALTER COLUMN {quoted(name)} TYPE {data_type}")
        self.changed()

    def drop(self) -> None:
        """Remove it; only ever done to a table of our own that nobody else reads."""
        self.sql.run(f"DROP TABLE IF EXISTS {self.quoted}")
        self.changed()

    def changed(self) -> None:
        """Look at its columns again when they are asked for."""
        self.__dict__.pop("columns", None)


def _clustered(columns: Sequence[str]) -> str:
    return f"CLUSTER BY ({listed(columns)}) " if columns else ""
