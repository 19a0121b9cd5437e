"""The databases behind the stand-in: a catalogue of what was declared, and DuckDB for the rows."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from time import sleep
from typing import Any
from uuid import UUID

import duckdb

from tests.support.tds import parser as ast
from tests.support.tds.compiler import MACROS, Compiler, Output, Table, TableColumn, literal
from tests.support.tds.errors import SqlError, refusal
from tests.support.tds.types import (
    INTEGERS,
    MAX,
    SqlType,
    as_moment,
    moment,
    stored_constant,
)

PRODUCT = "16.0.4000.6"
VERSION = f"TDS stand-in for tests, not SQL Server - {PRODUCT}"
NAME = SqlType("nvarchar", 128, collation="catalogue")
_SHORT = SqlType("varchar", 11, collation="catalogue")
_INT = SqlType("int")

_VIEWS: dict[str, dict[str, SqlType]] = {
    "SCHEMATA": {"CATALOG_NAME": NAME, "SCHEMA_NAME": NAME, "SCHEMA_OWNER": NAME},
    "TABLES": {"TABLE_CATALOG": NAME, "TABLE_SCHEMA": NAME, "TABLE_NAME": NAME, "TABLE_TYPE": _SHORT},
    "COLUMNS": {
        **dict.fromkeys(("TABLE_CATALOG", "TABLE_SCHEMA", "TABLE_NAME", "COLUMN_NAME"), NAME),
        "ORDINAL_POSITION": _INT,
        "COLUMN_DEFAULT": SqlType("nvarchar", 4000),
        "IS_NULLABLE": _SHORT,
        "DATA_TYPE": NAME,
        **dict.fromkeys(("CHARACTER_MAXIMUM_LENGTH", "CHARACTER_OCTET_LENGTH"), _INT),
        "NUMERIC_PRECISION": SqlType("tinyint"),
        "NUMERIC_PRECISION_RADIX": SqlType("smallint"),
        "NUMERIC_SCALE": _INT,
        "DATETIME_PRECISION": SqlType("smallint"),
        "COLLATION_NAME": NAME,
    },
    "TABLE_CONSTRAINTS": {
        **dict.fromkeys(("CONSTRAINT_CATALOG", "CONSTRAINT_SCHEMA", "CONSTRAINT_NAME"), NAME),
        **dict.fromkeys(("TABLE_CATALOG", "TABLE_SCHEMA", "TABLE_NAME"), NAME),
        "CONSTRAINT_TYPE": _SHORT,
    },
    "KEY_COLUMN_USAGE": {
        **dict.fromkeys(("CONSTRAINT_CATALOG", "CONSTRAINT_SCHEMA", "CONSTRAINT_NAME"), NAME),
        **dict.fromkeys(("TABLE_CATALOG", "TABLE_SCHEMA", "TABLE_NAME", "COLUMN_NAME"), NAME),
        "ORDINAL_POSITION": _INT,
    },
}
"""The views of INFORMATION_SCHEMA."""

_PRECISIONS = {"tinyint": 3, "smallint": 5, "int": 10, "bigint": 19, "money": 19, "smallmoney": 10}
_PRECISIONS |= {"real": 24, "float": 53}


def _described(kind: SqlType) -> tuple[Any, ...]:
    """What INFORMATION_SCHEMA.COLUMNS tells of a type, from DATA_TYPE on."""
    name, length = kind.name, kind.length if kind.name != "xml" else MAX
    octets = length * 2 if length is not None and length != MAX and kind.is_wide else length
    precision = kind.precision or _PRECISIONS.get(name)
    scale = 0 if name in INTEGERS else 4 if "money" in name else kind.scale if name == "decimal" else None
    digits = {"date": 0, "smalldatetime": 0, "datetime": 3}.get(name, kind.scale if name != "decimal" else None)
    collation = None
    if kind.is_text:
        collation = "Latin1_General_BIN2" if kind.collation == "binary" else "SQL_Latin1_General_CP1_CI_AS"
    radix = None if precision is None else 2 if name in ("real", "float") else 10
    return name, length, octets, precision, radix, scale, digits, collation


@dataclass
class Result:
    """What one statement answers: a table, or how many rows it changed."""

    columns: list[Output] | None = None
    rows: Iterator[list[tuple[Any, ...]]] = field(default_factory=lambda: iter(()))
    count: int | None = None


@dataclass
class Database:
    """The rows and the catalogue; `session()` is one connection's view of them.

    Attributes:
        name: as in LOGIN7.
    """

    name: str
    schemas: dict[str, str] = field(default_factory=lambda: {"dbo": "dbo", "information_schema": "INFORMATION_SCHEMA"})
    tables: dict[tuple[str, str], Table] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.duck = duckdb.connect()
        self.duck.execute(MACROS)
        for of, encoding in (("wide", "utf-16-le"), ("narrow", "cp1252"), ("binary", None)):
            data = "BLOB" if encoding is None else "VARCHAR"
            self.duck.create_function(f"tds_hash_{of}", _hash(encoding), ["VARCHAR", data], "BLOB")
        self._made = 0
        for name, columns in _VIEWS.items():
            made = [TableColumn(column, kind, f"c{place}") for place, (column, kind) in enumerate(columns.items())]
            self.add(Table("INFORMATION_SCHEMA", name, f"i_{name.lower()}", made, system=True))
        self.describe()

    def session(self, user: str = "dbo", spid: int = 50, wait: Callable[[float], None] = sleep) -> Session:
        """A new session; `wait` is what WAITFOR does."""
        return Session(self, user, spid, wait)

    def physical(self) -> str:
        """A new name for a table in DuckDB."""
        self._made += 1
        return f"t{self._made}"

    def add(self, table: Table) -> None:
        """Take a table or view into the catalogue, and make the table."""
        if table.query is None:
            columns = ", ".join(f"{column.physical} {column.type.stored}" for column in table.columns)
            self.duck.execute(f"CREATE TABLE {table.physical} ({columns})")
        self.tables[table.schema.lower(), table.name.lower()] = table

    def describe(self) -> None:
        """Write INFORMATION_SCHEMA again."""
        tables = list(self.tables.values())
        rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _VIEWS}
        rows["SCHEMATA"] = [(self.name, schema, "dbo") for schema in self.schemas.values()]
        for table in tables:
            if table.system:
                continue
            where = (self.name, table.schema, table.name)
            rows["TABLES"].append((*where, "VIEW" if table.query else "BASE TABLE"))
            for place, column in enumerate(table.columns, 1):
                name, *rest = _described(column.type)
                nullable = "YES" if column.nullable else "NO"
                rows["COLUMNS"].append((*where, column.name, place, None, nullable, name, *rest))
            for key in table.keys:
                constraint = (self.name, table.schema, key.name)
                kind = "PRIMARY KEY" if key.primary else "UNIQUE"
                rows["TABLE_CONSTRAINTS"].append((*constraint, *where, kind))
                for place, name in enumerate(key.columns, 1):
                    rows["KEY_COLUMN_USAGE"].append((*constraint, *where, table.column(name).name, place))
        for name, lines in rows.items():
            kinds = list(_VIEWS[name].values())
            self.duck.execute(f"DELETE FROM i_{name.lower()}")
            for line in lines:
                values = ", ".join(literal(value, kind) for value, kind in zip(line, kinds, strict=True))
                self.duck.execute(f"INSERT INTO i_{name.lower()} VALUES ({values})")


def _hash(encoding: str | None) -> Any:
    def hashed(algorithm: str, value: Any) -> bytes:
        data = value.encode(encoding) if encoding else bytes(value)
        return hashlib.new(algorithm.lower().replace("sha2_", "sha"), data, usedforsecurity=False).digest()

    return hashed


class Session:
    """One connection's view of a database, and its transaction.

    Args:
        database: the database.
        user: who asks.
        spid: number of the connection.
        wait: what WAITFOR does.
    """

    def __init__(self, database: Database, user: str, spid: int, wait: Callable[[float], None]) -> None:
        self.database = database
        self.user = user
        self.spid = spid
        self.wait = wait
        self.duck = database.duck.cursor()
        self.counted = 0
        self.silent = False

    def close(self) -> None:
        """Forget the connection."""
        self.duck.close()

    def batch(self, sql: str) -> Iterator[Result]:
        """Run the statements of a batch; each result has to be read to its end before the next.

        Raises:
            SqlError: a statement fails, or is outside the subset.
        """
        for statement in ast.parse(sql):
            yield from self._run(statement)

    # -- what the compiler asks

    def table(self, path: tuple[str, ...]) -> Table:
        *rest, name = path
        schema = rest[-1].lower() if rest else "dbo"
        table = self.database.tables.get((schema or "dbo", name.lower()))
        if table is None or len(path) > 3 or (len(path) == 3 and path[0].lower() != self.database.name.lower()):
            raise SqlError(208, f"Invalid object name '{'.'.join(path)}'.")
        return table

    def variable(self, name: str) -> tuple[Any, SqlType]:
        if name != "@@version":
            raise SqlError(137, f'Must declare the scalar variable "{name}".', 15)
        return VERSION, SqlType("nvarchar", 300)

    def function(self, name: str) -> tuple[Any, SqlType] | None:
        return (self.database.name, SqlType("nvarchar", 128)) if name == "DB_NAME" else None

    # -- statements

    def _run(self, statement: Any) -> Iterator[Result]:
        if isinstance(statement, ast.Query):
            yield self._select(statement)
        elif isinstance(statement, ast.Insert | ast.Update | ast.Delete):
            compiler = Compiler(self)
            if isinstance(statement, ast.Insert):
                sql = compiler.insert(statement)
            elif isinstance(statement, ast.Update):
                sql = compiler.update(statement)
            else:
                sql = compiler.delete(statement)
            [(self.counted,)] = self._ask(sql).fetchall()
            yield Result(count=None if self.silent else self.counted)
        elif isinstance(statement, ast.SetOption):
            if statement.name.startswith("TEXTSIZE") and int(statement.name.split()[-1]) not in (-1, 2147483647):
                raise refusal(f"SET {statement.name}, which cuts values")
            if statement.name.startswith("NOCOUNT"):
                self.silent = statement.name.endswith("ON")
            yield Result()
        elif isinstance(statement, ast.WaitFor):
            self.wait(statement.seconds)
            yield Result()
        elif isinstance(statement, ast.Use):
            if statement.database.lower() != self.database.name.lower():
                raise SqlError(911, f"Database '{statement.database}' does not exist.")
            yield Result()
        else:
            with self.database.lock:
                self._define(statement)
                self.database.describe()
            yield Result()

    def _select(self, query: ast.Query) -> Result:
        sql, columns = Compiler(self).query(query)
        cursor = self._ask(sql)

        def rows() -> Iterator[list[tuple[Any, ...]]]:
            self.counted = 0
            while chunk := self._guarded(lambda: cursor.fetchmany(2048)):
                self.counted += len(chunk)
                yield chunk

        return Result(columns, rows())

    def _ask(self, sql: str) -> duckdb.DuckDBPyConnection:
        cursor: duckdb.DuckDBPyConnection = self._guarded(lambda: self.duck.execute(sql))
        return cursor

    def _guarded(self, work: Any) -> Any:
        """DuckDB's errors as SQL Server's."""
        try:
            return work()
        except duckdb.Error as error:
            raise _translated(error) from error

    def _define(self, statement: Any) -> None:
        if isinstance(statement, ast.CreateTable | ast.CreateView):
            self._create(statement)
        elif isinstance(statement, ast.AlterTable):
            self._alter(statement)
        elif isinstance(statement, ast.Drop):
            self._drop(statement)
        else:
            raise refusal(f"the statement {type(statement).__name__}")

    def _create(self, statement: ast.CreateTable | ast.CreateView) -> None:
        path = statement.table if isinstance(statement, ast.CreateTable) else statement.view
        schema, name = path[-2] if len(path) > 1 else "dbo", path[-1]
        if schema.lower() not in self.database.schemas:
            raise SqlError(
                2760, f'The specified schema name "{schema}" either does not exist or you do not have permission.'
            )
        if (schema.lower(), name.lower()) in self.database.tables:
            raise SqlError(2714, f"There is already an object named '{name}' in the database.")
        if isinstance(statement, ast.CreateView):
            _, outputs = Compiler(self).query(statement.query, name)
            columns = [TableColumn(out.name, out.type, f"c{place}", out.nullable) for place, out in enumerate(outputs)]
            self.database.add(Table(schema, name, "", columns, query=statement.query))
            return
        physical = self.database.physical()
        primary = {column.lower() for key in statement.keys if key.primary for column in key.columns}
        columns = []
        for place, column in enumerate(statement.columns):
            columns.append(self._column(column, f"{physical}_c{place}", column.name.lower() not in primary))
        table = Table(schema, name, physical, columns)
        self.database.add(table)
        for key in statement.keys:
            self._index(table, key.columns)
            table.keys.append(key)

    def _column(self, column: ast.NewColumn, physical: str, nullable: bool) -> TableColumn:
        kept = nullable and column.nullable
        return TableColumn(column.name, column.type, physical, kept)

    def _index(self, table: Table, names: Sequence[str]) -> None:
        columns = [table.column(name) for name in names]
        if any(column.type.name == "datetimeoffset" for column in columns):
            raise refusal("an index on datetimeoffset")
        parts = [
            f"(lower(rtrim({column.physical}, ' ')))"
            if column.type.is_text and column.type.collation == "default"
            else column.physical
            for column in columns
        ]
        name = f"{table.physical}_{'_'.join(column.physical for column in columns)}"
        self.duck.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS {name} ON {table.physical} ({', '.join(parts)})")

    def _alter(self, statement: ast.AlterTable) -> None:
        table = self.table(statement.table)
        column = self._column(statement.add, f"{table.physical}_c{self.database.physical()}", nullable=True)
        if any(column.name.lower() == each.name.lower() for each in table.columns):
            raise SqlError(2705, f"Column names in each table must be unique. Column name '{column.name}'.")
        if not column.nullable:
            raise SqlError(4901, "ALTER TABLE only allows columns to be added that can contain nulls.")
        self.duck.execute(f"ALTER TABLE {table.physical} ADD COLUMN {column.physical} {column.type.stored}")
        table.columns.append(column)

    def _drop(self, statement: ast.Drop) -> None:
        try:
            table = self.table(statement.path)
        except SqlError:
            if statement.if_exists:
                return
            name = ".".join(statement.path)
            message = f"Cannot drop the {statement.kind.lower()} '{name}', because it does not exist."
            raise SqlError(3701, message, 11) from None
        if table.query is None:
            self.duck.execute(f"DROP TABLE {table.physical}")
        del self.database.tables[table.schema.lower(), table.name.lower()]

    # -- from Python

    def insert(self, table_name: str, rows: Sequence[Sequence[Any]]) -> None:
        """Put Python values into a table, as SQL Server would store them."""
        table = self.table(tuple(table_name.split(".")))
        for start in range(0, len(rows), 500):
            lines = [
                "("
                + ", ".join(
                    literal(_stored(value, column.type), column.type)
                    for value, column in zip(row, table.columns, strict=True)
                )
                + ")"
                for row in rows[start : start + 500]
            ]
            names = ", ".join(column.physical for column in table.columns)
            self._ask(f"INSERT INTO {table.physical} ({names}) VALUES {', '.join(lines)}")


def _stored(value: Any, kind: SqlType) -> Any:
    """A Python value as the stored value of a type."""
    if value is None:
        return None
    if isinstance(value, datetime | date | time):
        text = value.isoformat().replace("+00:00", "Z")
        if kind.name in ("date", "datetime", "smalldatetime"):
            return as_moment(moment(text, SqlType("datetime2", scale=7)), kind)
        return moment(text, kind)
    of = {bool: "bit", int: "bigint", float: "float", bytes: "varbinary"}.get(type(value))
    if isinstance(value, Decimal):
        return stored_constant(value, SqlType("decimal", precision=38, scale=0), kind)
    if isinstance(value, str | UUID):
        return stored_constant(str(value), SqlType("nvarchar", MAX), kind)
    if of is None:
        raise TypeError(f"{type(value).__name__} for a column of type {kind}")
    return stored_constant(value, SqlType(of, MAX if of == "varbinary" else None), kind)


def _translated(error: duckdb.Error) -> SqlError:
    text = str(error)
    if found := re.search(r"Error: (\d{3,5}):([^\n]*)", text):
        return SqlError(int(found[1]), found[2])
    if isinstance(error, duckdb.ConstraintException):
        return SqlError(2627, "Violation of UNIQUE KEY or PRIMARY KEY constraint. Cannot insert duplicate key.", 14)
    if isinstance(error, duckdb.OutOfRangeException | duckdb.ConversionException):
        return SqlError(8115, f"Arithmetic overflow error converting expression. ({text.splitlines()[0]})")
    return refusal(f"DuckDB says {text[:500]}")
