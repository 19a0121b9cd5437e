"""A raw table in DuckDB: its shape, its size, and the statements that change it."""

from __future__ import annotations

from functools import cached_property

import duckdb

from include.elt.contract import DELETED_AT, TYPES, Column
from include.elt.sql import literal, quoted

ZONED = "TIMESTAMP WITH TIME ZONE"


def duckdb_type(data_type: str) -> str:
    """The DuckDB type of a contract type, in the words of a table that has it; it forgets the length of a varchar."""
    words = Column("", data_type).duckdb_type
    return "VARCHAR" if words.startswith("VARCHAR") else {"INT": "INTEGER"}.get(words, words)


_CONTRACT_TYPES = {duckdb_type(name): name for name in (*TYPES, "int", "string") if "(" not in name}


def contract_type(duckdb_type: str) -> str:
    """The contract type of a DuckDB type; one that no contract has keeps its name."""
    return _CONTRACT_TYPES.get(duckdb_type, duckdb_type.lower())


def exact(value: str, old: str, new: str) -> str:
    """SQL of a value in another DuckDB type; NULL where it would not be the same value."""
    if old == new:
        return value
    return (
        f"CASE WHEN TRY_CAST(TRY_CAST({value} AS {new}) AS {old}) IS NOT DISTINCT FROM {value}"
        f" THEN TRY_CAST({value} AS {new}) END"
    )


class Table:
    """A raw table, as it is in the transaction at hand.

    Args:
        sql: the connection.
        name: schema and name.
    """

    def __init__(self, sql: duckdb.DuckDBPyConnection, name: str) -> None:
        self.sql = sql
        self.name = name
        self.quoted = quoted(name)

    @cached_property
    def columns(self) -> dict[str, str]:
        """DuckDB type by column, in order; empty when there is no such table."""
        schema, name = self.name.split(".")
        return dict(
            self.sql.execute(
                "SELECT lower(column_name), data_type FROM duckdb_columns() JOIN duckdb_tables()"
                " USING (database_name, schema_name, table_name)"
                f" WHERE schema_name = {literal(schema)} AND table_name = {literal(name)}"
                " AND database_name = current_database() ORDER BY column_index"
            ).fetchall()
        )

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
        return one(self.sql, f"SELECT count(*) FROM {self.quoted} WHERE {condition}") if self.exists else 0

    def live(self) -> int:
        """Its rows without those that are marked as deleted."""
        return self.count(f"{quoted(DELETED_AT)} IS NULL" if self.marks else "TRUE")

    def watermark(self, update_key: str | None) -> str | None:
        """Largest value of the update key as text; None without a value or such a column."""
        if update_key not in self.columns or update_key is None:
            return None
        row = self.sql.execute(f"SELECT CAST(max({quoted(update_key)}) AS VARCHAR) FROM {self.quoted}").fetchone()
        return row[0] if row else None

    def create(self, columns: dict[str, str]) -> None:
        """Make it without rows."""
        self.sql.execute(f"CREATE TABLE {self.quoted} ({', '.join(f'{quoted(n)} {t}' for n, t in columns.items())})")
        self._changed()

    def replace(self, select: str) -> int:
        """Put the rows of a query in its place; returns how many."""
        rows = one(self.sql, f"CREATE OR REPLACE TABLE {self.quoted} AS {select}")
        self._changed()
        return rows

    def add(self, name: str, duckdb_type: str) -> None:
        """Give it a column."""
        self.sql.execute(f"ALTER TABLE {self.quoted} ADD COLUMN {quoted(name)} {duckdb_type}")
        self._changed()

    def widen(self, name: str, duckdb_type: str) -> None:
        """Give a column another type."""
        self.sql.execute(f"ALTER TABLE {self.quoted} ALTER COLUMN {quoted(name)} TYPE {duckdb_type}")
        self._changed()

    def insert(self, columns: list[str], rows: str) -> int:
        """Add the rows of a query that gives these columns; returns how many."""
        return one(self.sql, f"INSERT INTO {self.quoted} ({', '.join(map(quoted, columns))}) {rows}")

    def delete(self, condition: str) -> int:
        """Remove rows; returns how many."""
        return one(self.sql, f"DELETE FROM {self.quoted} WHERE {condition}")

    def _changed(self) -> None:
        self.__dict__.pop("columns", None)


def one(sql: duckdb.DuckDBPyConnection, statement: str) -> int:
    """The number that a statement answers with: a count, or the rows that it changed."""
    row = sql.execute(statement).fetchone()
    return int(row[0]) if row else 0
