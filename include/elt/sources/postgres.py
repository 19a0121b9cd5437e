"""How PostgreSQL is asked.

A plain table is read by ranges of its pages: found without an index, streamed by the server, and one statement is one
snapshot. Views, partitioned tables, queries and small parts of a large table are cut into blocks of about `GROUP`
characters while they are read; the server holds those in its own `work_mem`, and on its disk beyond that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg

from include.elt.connections.postgres import PostgresConnection
from include.elt.errors import ExtractError, SourceRefusedError
from include.elt.modes import Window
from include.elt.replication import Stream
from include.elt.settings import Settings
from include.elt.sling import redact
from include.elt.sources.database import COUNT, Relation, SourceColumn, Way, all_of, part, within
from include.elt.sql import literal, quoted

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 30
"""Seconds."""

PAGES = 128 * 1024
"""Bytes on disk of a block of pages. Compressed values grow on their way, and a value in PostgreSQL ends at 1 GB."""

GROUP = 256 * 1024
"""Characters of a block of any rows, about."""

_FEW = 0.1
"""Share of a table below which its pages are not read one by one: an index may know a shorter way."""

_SAMPLE = 20_000
"""Rows that are looked at to cut a table into parts."""

_TOO_LARGE = ("invalid memory alloc request size", "out of memory", "requested length too large")

_REFUSED = ("28", "42", "3D", "3F")
"""SQLSTATE classes of what another try does not mend: log-in, syntax or right or missing table, database, schema."""

_REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "permission denied",
    "is not permitted to log in",
)
"""Parts of messages that tell the same of a log-in, which fails without a SQLSTATE."""

_QUOTE = "chr(1)"
"""Stands around texts in a block, in SQL. Double quotes would be doubled once more in what Sling writes."""

_TYPES = {
    "int2": "smallint",
    "int4": "int",
    "int8": "bigint",
    "bool": "boolean",
    "float4": "double",
    "float8": "double",
    "date": "date",
    "timestamp": "timestamp_ntz",
    "timestamptz": "timestamp",
}
"""Contract type by PostgreSQL's; anything else is text."""


class Postgres:
    """The dialect of PostgreSQL; see `Dialect`.

    Args:
        connected: the database.
        settings: timeouts.
    """

    encoding = "utf-8"
    quote = "\x01"

    def __init__(self, connected: PostgresConnection, settings: Settings) -> None:
        self._connection = connected
        self._timeout = settings.extract_timeout

    @property
    def connection(self) -> str:
        """Id of the connection."""
        return self._connection.name

    def sling(self) -> Mapping[str, Any]:
        """Properties of the Sling connection."""
        return self._connection.sling()

    def variables(self) -> Mapping[str, str]:
        """Environment variables of the Sling process."""
        return self._connection.variables()

    def secrets(self) -> Sequence[str]:
        """The password."""
        return [self._connection.password]

    def too_large(self, message: str) -> bool:
        """Whether an error says that a block is larger than PostgreSQL can make."""
        return any(sign in message for sign in _TOO_LARGE)

    def relation(self, stream: Stream, window: Window | None) -> Relation:
        """What a stream reads."""
        if stream.sql is None:
            table = quoted(stream.name)
            return Relation(stream.label, table, table, stream.where)
        condition, value = "TRUE", "NULL"
        if window is not None and window.upper is not None:
            condition = f"({self.within(SourceColumn(window.column, '', ''), window)})"
            value = "NULL" if window.lower is None else literal(window.lower)
        sql = stream.sql.strip().rstrip(";").replace("{incremental_where_cond}", condition)
        return Relation(stream.label, f"({sql.replace('{incremental_value}', value)}) AS q", None, stream.where)

    def columns(self, relation: Relation) -> tuple[SourceColumn, ...]:
        """The columns of a relation."""
        with self._asking(relation) as cursor:
            cursor.execute(f"SELECT * FROM {relation.sql} LIMIT 0".encode())
            found = tuple(map(_column, cursor.description or ()))
            if relation.table is None:
                return found
            cursor.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND attnotnull",
                [relation.table],
            )
            never_null = {row[0] for row in cursor.fetchall()}
            return tuple(replace(column, nullable=column.name not in never_null) for column in found)

    def largest(self, relation: Relation, condition: str, column: SourceColumn) -> str | None:
        """The largest value of a column as text."""
        row = self._row(relation, f"SELECT max({quoted(column.name)})::text FROM {relation.sql}{_where(condition)}")
        return None if row is None or row[0] is None else str(row[0])

    def count(self, relation: Relation, condition: str) -> int:
        """Rows that fit a condition."""
        row = self._row(relation, f"SELECT count(*) FROM {relation.sql}{_where(condition)}")
        return int(row[0]) if row else 0

    def bounds(self, relation: Relation, condition: str, column: SourceColumn, parts: int) -> list[str]:
        """Cuts of a column, from a sample of a plain table's pages, or from all rows of anything else."""
        share = self._share(relation, condition)
        sample = f" TABLESAMPLE SYSTEM ({share:.6f})" if share < 100 else ""
        name = quoted(column.name)
        fractions = ", ".join(f"{part / parts:.6f}" for part in range(1, parts))
        row = self._row(
            relation,
            f"SELECT percentile_disc(ARRAY[{fractions}]) WITHIN GROUP (ORDER BY {name})::text[]"
            f" FROM {relation.sql}{sample}{_where(condition)}",
        )
        found = [str(value) for value in (row[0] if row and row[0] else ()) if value is not None]
        return list(dict.fromkeys(found))

    def within(self, column: SourceColumn, window: Window) -> str:
        """The condition of a window."""
        return within(quoted(column.name), window, literal, nullable=column.nullable)

    def part(self, column: SourceColumn, lower: str | None, upper: str | None) -> str:
        """The condition of a part."""
        return part(quoted(column.name), lower, upper, literal)

    def ways(self, relation: Relation, columns: Mapping[str, SourceColumn | None], condition: str) -> Iterator[Way]:
        """By pages, in groups, row by row."""
        line = _line(columns.values())
        version, pages = self._pages_per_block(relation, condition)
        if pages:
            yield Way(f"in blocks of {pages} pages", self._by_pages(relation, line, condition, pages), blocks=True)
        if version >= 110000:  # sha256()
            yield Way("in blocks", self._in_groups(relation, line, condition), blocks=True)
        values = ", ".join(
            f"{'NULL' if column is None else quoted(column.name)}::text AS {quoted(name)}"
            for name, column in columns.items()
        )
        yield Way(
            "row by row",
            f'SELECT {values}, count(*) OVER () AS "{COUNT}" FROM {relation.sql}{_where(condition)}',
            blocks=False,
        )

    def _by_pages(self, relation: Relation, line: str, condition: str, pages: int) -> str:
        """Blocks of some pages each. NULL is an empty field, '' one with quotes."""
        size = f"pg_relation_size({literal(relation.table or '')}::regclass) / current_setting('block_size')::bigint"
        here = f"ctid >= format('(%s,0)', n * {pages})::tid AND ctid < format('(%s,0)', n * {pages} + {pages})::tid"
        return (
            "SELECT n AS number, last + 1 AS blocks, rows, longest,"
            " encode(sha256(convert_to(block, 'UTF8')), 'hex') AS digest, block"
            # asked once: a table that grows has another size at the end of the statement
            f" FROM (SELECT {size} / {pages} AS last OFFSET 0) AS size, generate_series(0, last) AS n, LATERAL ("
            "SELECT count(*) AS rows, max(octet_length(line)) AS longest, string_agg(line, chr(10)) AS block"
            f" FROM (SELECT {line} AS line FROM ONLY {relation.sql}"
            f"{_where(all_of([here, condition]))} OFFSET 0) AS lines) AS b"
        )

    def _in_groups(self, relation: Relation, line: str, condition: str) -> str:
        """Blocks of about as many characters; one without rows where there are none."""
        return (
            # Sling asks for one row first; it gets this one without the others having to be made
            "SELECT -1 AS number, 0 AS blocks, 0 AS rows, NULL AS longest, NULL AS digest, NULL AS block UNION ALL"
            " SELECT row_number() OVER () - 1, count(*) OVER (), coalesce(rows, 0), longest,"
            " encode(sha256(convert_to(block, 'UTF8')), 'hex'), block FROM (SELECT 1) AS one LEFT JOIN ("
            "SELECT count(*) AS rows, max(octet_length(line)) AS longest, string_agg(line, chr(10)) AS block"
            f" FROM (SELECT line, sum(length(line)) OVER (ROWS UNBOUNDED PRECEDING) / {GROUP} AS part"
            f" FROM (SELECT {line} AS line FROM {relation.sql}{_where(condition)} OFFSET 0) AS lines) AS parts"
            " GROUP BY part) AS b ON TRUE"
        )

    def _pages_per_block(self, relation: Relation, condition: str) -> tuple[int, int]:
        """The server's version, and pages that hold about `PAGES` bytes, what is stored out of line included.

        0 where pages cannot be read (before PostgreSQL 14, or no plain table) or most rows are not wanted.
        """
        with self._asking(relation) as cursor:
            cursor.execute("SELECT current_setting('server_version_num')::int")
            (version,) = cursor.fetchone() or (0,)
            if relation.table is None or version < 140000:
                return version, 0
            cursor.execute(
                "SELECT pg_relation_size(c.oid), pg_table_size(c.oid), current_setting('block_size')::int,"
                " reltuples FROM pg_class AS c WHERE c.oid = %s::regclass AND c.relkind = 'r'"
                " AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid)",
                [relation.table],
            )
            heap, whole, page, rows = cursor.fetchone() or (0, 0, 1, 0)
            if not heap:
                return version, 0
            pages = max(1.0, PAGES / page * heap / whole)
            if condition:
                cursor.execute(f"EXPLAIN (FORMAT JSON) SELECT FROM {relation.sql}{_where(condition)}".encode())
                ((plan,),) = cursor.fetchall()
                share = plan[0]["Plan"]["Plan Rows"] / max(rows, 1)
                if share < _FEW:
                    return version, 0
                pages /= min(share, 1)
            return version, int(pages)

    def _share(self, relation: Relation, condition: str) -> float:
        """Percentage of a plain table's pages that holds about `_SAMPLE` of its rows; 100 for anything else."""
        if relation.table is None or condition:
            return 100.0
        row = self._row(
            relation,
            f"SELECT reltuples FROM pg_class WHERE oid = {literal(relation.table)}::regclass AND relkind = 'r'",
        )
        return min(100.0, 100 * _SAMPLE / row[0]) if row and row[0] > 0 else 100.0

    def _row(self, relation: Relation, sql: str) -> tuple[Any, ...] | None:
        with self._asking(relation) as cursor:
            cursor.execute(sql.encode())
            return cursor.fetchone()

    @contextmanager
    def _asking(self, relation: Relation) -> Iterator[psycopg.Cursor[Any]]:
        """A read-only cursor with a time limit; the server's refusals as our errors."""
        try:
            with (
                psycopg.connect(**self._connection.driver(), connect_timeout=_CONNECT_TIMEOUT) as connection,
                connection.cursor() as cursor,
            ):
                # within the transaction, for a pooler hands the session on; dates and floats as Sling's driver has them
                cursor.execute(
                    "SET TRANSACTION READ ONLY; SET LOCAL DateStyle = 'ISO'; SET LOCAL extra_float_digits = 2;"
                    f" SET LOCAL TimeZone = 'UTC'; SET LOCAL statement_timeout = {self._timeout * 1000}".encode()
                )
                yield cursor
        except psycopg.Error as error:
            reason = redact(str(error).strip(), self.secrets())
            message = f"{relation.label}: connection {self.connection}: {reason}"
            if (error.sqlstate or "").startswith(_REFUSED) or any(sign in reason for sign in _REFUSALS):
                raise SourceRefusedError(message) from None
            raise ExtractError(message) from None


def _column(described: psycopg.Column) -> SourceColumn:
    """A column of an answer, with its type in PostgreSQL's words and in those of a contract."""
    shown = described.type_display
    name = shown.split("(")[0]
    contract = _TYPES.get(name, "string")
    if (
        name == "numeric"
        and described.precision is not None
        and 0 <= (described.scale or 0) <= described.precision <= 38
    ):
        contract = f"decimal({described.precision},{described.scale or 0})"
    return SourceColumn(described.name, shown, contract)


def _line(columns: Iterable[SourceColumn | None]) -> str:
    """A line of CSV; an empty field is NULL, and one with quotes is a text. OFFSET 0 behind it has it made once."""
    fields = ["''" if column is None else _field(column) for column in columns]
    return " || ',' || ".join([*fields, "'1'"])


def _field(column: SourceColumn) -> str:
    text = f"{quoted(column.name)}::text"
    if column.contract_type == "string":
        # with "C", for a collation that ignores some differences may take other characters for a quote
        return f"""coalesce({_QUOTE} || replace({text} COLLATE "C", {_QUOTE}, {_QUOTE} || {_QUOTE}) || {_QUOTE}, '')"""
    return f"coalesce({text}, '')"  # a number, date or time, in which nothing has to be quoted


def _where(condition: str) -> str:
    return f" WHERE {condition}" if condition else ""
