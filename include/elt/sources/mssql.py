"""How SQL Server is asked.

A table whose primary key is one column is read in blocks of `ROWS` rows, each a range of that key, so that the server
needs an index and nothing else. Anything else travels row by row: of a key of several columns the first one may be the
same for a million rows.

A statement of SQL Server is no snapshot unless the database has `READ_COMMITTED_SNAPSHOT` or is a readable secondary; a
row is read once all the same, for its key does not change. A query may hold no ORDER BY and no WITH: Sling asks for its
first row as `SELECT TOP 1 * FROM (query) AS t`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pymssql

from include.elt.connections.mssql import MssqlConnection
from include.elt.errors import DataError, ExtractError, SourceRefusedError
from include.elt.modes import Window
from include.elt.replication import Stream
from include.elt.settings import Settings
from include.elt.sling import redact
from include.elt.sources.database import COUNT, Relation, SourceColumn, Way, part, within

ROWS = 500
"""Rows of a block."""

_REFUSED = frozenset((916, 102, 156, 207, 208, 209, 229, 230, 262, 297, 300, 1033, 4104, 8155, 8156))
"""Errors that another try does not mend: rights, tables, columns, syntax, and what cannot be a derived table."""

_NO_ENTRY = re.compile(r"error message 20018, severity 1[14]:")
"""The server itself refuses a log-in. The number does not tell: pymssql gives that of an earlier failure, too."""

_LATER = re.compile("script upgrade|paused|shut|Only administrators", re.IGNORECASE)
"""Reasons for which a log-in fails now and not for good."""

_CONTRACT = {
    "tinyint": "smallint",  # 0 to 255
    "smallint": "smallint",
    "int": "int",
    "bigint": "bigint",
    "bit": "boolean",
    "real": "double",
    "float": "double",
    "money": "decimal(19,4)",
    "smallmoney": "decimal(10,4)",
    "date": "date",
    "datetime": "timestamp_ntz",
    "smalldatetime": "timestamp_ntz",
}
"""Contract type by SQL Server's; anything else is text. datetime2 and datetimeoffset may have more digits than ours."""

_STYLES = {
    "money": 2,  # all four digits
    "smallmoney": 2,
    "real": 3,  # all digits
    "float": 3,
    "date": 23,
}
_TIMES = ("time", "datetime", "smalldatetime", "datetime2", "datetimeoffset")
_ISO = 121

_BYTES = ("binary", "varbinary", "timestamp", "image", "geometry", "geography", "hierarchyid")
"""What becomes hexadecimal digits; a `timestamp` is a rowversion, and only a binary of it becomes text."""

_MOMENT = re.compile(r"([\d-]{10})(?:[ T]([\d:]{5,8})(?:\.(\d+))?)? ?(Z|[+-]\d\d(?::?\d\d)?)?")


class Mssql:
    """The dialect of SQL Server; see `Dialect`.

    Args:
        connected: the database.
        settings: timeouts.
    """

    encoding = "utf-16-le"
    quote = '"'

    def __init__(self, connected: MssqlConnection, settings: Settings) -> None:
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
        """Environment variables of the Sling process: none."""
        return {}

    def secrets(self) -> Sequence[str]:
        """The password."""
        return [self._connection.password]

    def too_large(self, message: str) -> bool:
        """Whether an error says that a block is larger than SQL Server can make."""
        return "2,147,483,64" in message or "2147483647" in message

    def relation(self, stream: Stream, window: Window | None) -> Relation:
        """What a stream reads."""
        if stream.sql is None:
            table = ".".join(map(_name, stream.name.split(".")))
            return Relation(stream.label, table, table, stream.where)
        fill = partial(self._filled, stream)
        if window is None or window.upper is None or "{incremental_" not in stream.sql:
            return fill("1 = 1", "NULL")
        # a literal has to be of the column's type: SQL Server takes no text with six digits for a datetime
        described = self.columns(fill("1 = 1", "NULL"))
        column = next((each for each in described if each.name.lower() == window.column.lower()), None)
        if column is None:
            raise SourceRefusedError(f"{stream.label}: the query has no column {window.column}, the update key")
        value = "NULL" if window.lower is None else _literal(window.lower, column)
        return fill(f"({self.within(column, window)})", value)

    @staticmethod
    def _filled(stream: Stream, condition: str, value: str) -> Relation:
        """A query with its placeholders filled."""
        sql = (stream.sql or "").strip().rstrip(";").replace("{incremental_where_cond}", condition)
        return Relation(stream.label, f"({sql.replace('{incremental_value}', value)}) AS q", None, stream.where)

    def columns(self, relation: Relation) -> tuple[SourceColumn, ...]:
        """The columns of a relation."""
        rows = self._rows(
            relation,
            # the server leaves the type of geometry and its like to the other column
            "SELECT [name], COALESCE([system_type_name], [user_type_name]), [is_nullable], [error_number],"
            " [error_message] FROM"
            f" sys.dm_exec_describe_first_result_set({_text(f'SELECT * FROM {relation.sql}')}, NULL, 0)"
            " ORDER BY [column_ordinal]",
        )
        for _, _, _, number, message in rows:
            if number is not None:
                raise self._error(relation, number, f"{message} (error {number})")
        return tuple(SourceColumn(name, kind, _contract(kind), bool(null)) for name, kind, null, _, _ in rows)

    def largest(self, relation: Relation, condition: str, column: SourceColumn) -> str | None:
        """The largest value of a column as text."""
        ((value,),) = self._rows(
            relation,
            f"SELECT {_convert('m.[v]', column)} FROM (SELECT MAX({_name(column.name)}) AS [v]"
            f" FROM {relation.sql}{_where(condition)}) AS m",
        )
        return None if value is None else str(value)

    def count(self, relation: Relation, condition: str) -> int:
        """Rows that fit a condition."""
        ((count,),) = self._rows(relation, f"SELECT COUNT_BIG(*) FROM {relation.sql}{_where(condition)}")
        return int(count)

    def bounds(self, relation: Relation, condition: str, column: SourceColumn, parts: int) -> list[str]:
        """Cuts of a column, found by ranking its values."""
        rows = self._rows(
            relation,
            f"SELECT {_convert('c.[lo]', column)} FROM (SELECT MIN(k.[k]) AS [lo], k.[part] FROM"
            f" (SELECT {_name(column.name)} AS [k], NTILE({parts}) OVER (ORDER BY {_name(column.name)}) AS [part]"
            f" FROM {relation.sql}{_where(condition)}) AS k GROUP BY k.[part]) AS c"
            " WHERE c.[part] > 1 AND c.[lo] IS NOT NULL ORDER BY c.[part]",
        )
        return list(dict.fromkeys(str(value) for (value,) in rows))

    def within(self, column: SourceColumn, window: Window) -> str:
        """The condition of a window."""
        return within(_name(column.name), window, partial(_literal, column=column), nullable=column.nullable)

    def part(self, column: SourceColumn, lower: str | None, upper: str | None) -> str:
        """The condition of a part."""
        return part(_name(column.name), lower, upper, partial(_literal, column=column))

    def ways(self, relation: Relation, columns: Mapping[str, SourceColumn | None], condition: str) -> Iterator[Way]:
        """By ranges of the primary key, row by row."""
        for column in filter(None, columns.values()):
            if _base(column.data_type) == "sql_variant":
                raise SourceRefusedError(
                    f"{relation.label}: the column {column.name} is a sql_variant, whose values have types of their"
                    " own; give it one with CAST in a sql for the stream, or leave it out with select"
                )
        key = self._key(relation)
        if key is not None:
            yield Way(
                f"in blocks of {ROWS} rows", self._by_key(relation, key, columns.values(), condition), blocks=True
            )
        none = "CONVERT(nvarchar(1), NULL)"
        values = ", ".join(
            f"{_convert(_name(column.name), column) if column else none} AS {_name(name)}"
            for name, column in columns.items()
        )
        yield Way(
            "row by row",
            f"SELECT {values}, COUNT_BIG(*) OVER () AS {_name(COUNT)} FROM {relation.sql}{_where(condition)}",
            blocks=False,
        )

    def _by_key(self, relation: Relation, key: str, columns: Iterable[SourceColumn | None], condition: str) -> str:
        """Blocks of some rows each, in the order of the key; one without rows where there are none."""
        fields = ["''" if column is None else _field(column) for column in columns]
        line = " + ',' + ".join([*fields, "'1'"])
        also = f" AND ({condition})" if condition else ""
        where = _where(condition)
        return (
            "SELECT ISNULL(b.[number], 0) AS [number], ISNULL(b.[blocks], 1) AS [blocks], ISNULL(b.[rows], 0) AS"
            " [rows], b.[longest], CONVERT(nvarchar(64), HASHBYTES('SHA2_256', b.[block]), 2) AS [digest], b.[block]"
            # one row at least: the statement has been answered, and there is nothing
            " FROM (SELECT 1 AS [one]) AS o LEFT JOIN (SELECT elt__r.[number], elt__r.[blocks], a.[rows], a.[longest],"
            " a.[block] FROM (SELECT k.[lo], LEAD(k.[lo]) OVER (ORDER BY k.[lo]) AS [hi],"
            " ROW_NUMBER() OVER (ORDER BY k.[lo]) - 1 AS [number], COUNT(*) OVER () AS [blocks]"
            f" FROM (SELECT {key} AS [lo], ROW_NUMBER() OVER (ORDER BY {key}) - 1 AS [n] FROM {relation.sql}{where})"
            f" AS k WHERE k.[n] % {ROWS} = 0) AS elt__r"
            f" CROSS JOIN (SELECT MAX({key}) AS [top] FROM {relation.sql}{where}) AS elt__m CROSS APPLY ("
            "SELECT COUNT_BIG(*) AS [rows], MAX(LEN(l.[line])) AS [longest],"
            " STRING_AGG(l.[line], CHAR(10)) AS [block]"
            f" FROM (SELECT CONVERT(nvarchar(max), {line}) AS [line] FROM {relation.sql}"
            # the first upper limit is one that an index can seek, the second one draws the line
            f" WHERE {key} >= elt__r.[lo] AND {key} <= ISNULL(elt__r.[hi], elt__m.[top])"
            f" AND ({key} < elt__r.[hi] OR elt__r.[hi] IS NULL){also}) AS l) AS a) AS b ON 1 = 1"
        )

    def _key(self, relation: Relation) -> str | None:
        """The column that is the primary key; None for what has none, or one of several columns."""
        if relation.table is None:
            return None
        schema, table = (_text(part[1:-1].replace("]]", "]")) for part in relation.table.split("."))
        rows = self._rows(
            relation,
            "SELECT u.COLUMN_NAME FROM INFORMATION_SCHEMA.TABLE_CONSTRAINTS AS c"
            " INNER JOIN INFORMATION_SCHEMA.KEY_COLUMN_USAGE AS u ON u.CONSTRAINT_SCHEMA = c.CONSTRAINT_SCHEMA"
            " AND u.CONSTRAINT_NAME = c.CONSTRAINT_NAME AND u.TABLE_NAME = c.TABLE_NAME"
            f" WHERE c.CONSTRAINT_TYPE = 'PRIMARY KEY' AND c.TABLE_SCHEMA = {schema} AND c.TABLE_NAME = {table}",
        )
        return _name(rows[0][0]) if len(rows) == 1 else None

    def _rows(self, relation: Relation, sql: str) -> list[tuple[Any, ...]]:
        with self._asking(relation) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    @contextmanager
    def _asking(self, relation: Relation) -> Iterator[Any]:
        """A cursor of Airflow's hook; the server's refusals as our errors."""
        try:
            connection = self._connection.connect(self._timeout)
        except pymssql.Error as error:
            raise self._no_entry(relation, error) from None
        try:
            with closing(connection), connection.cursor() as cursor:
                yield cursor
        except pymssql.Error as error:
            number, text = _told(error)
            raise self._error(relation, number, f"{_words(text)} (error {number})") from None

    def _no_entry(self, relation: Relation, error: Exception) -> ExtractError:
        """What became of a log-in, as an error that tells whether another try may help."""
        at, (_, text) = self._connection, _told(error)
        refused = _NO_ENTRY.search(text) and not _LATER.search(text)
        # of a second refusal in one process pymssql has no words of the server
        words = redact(_words(text.partition("DB-Lib")[0] if refused else text), self.secrets())
        what = f"{at.host} refuses {at.user} for the database" if refused else f"no connection to {at.host} for"
        message = f"{relation.label}: connection {self.connection}: {what} {at.database}: {words or 'Login failed'}"
        return SourceRefusedError(message) if refused else ExtractError(message)

    def _error(self, relation: Relation, number: int, reason: str) -> ExtractError:
        """What the server says, as an error that tells whether another try may help."""
        message = f"{relation.label}: connection {self.connection}: {redact(reason, self.secrets())}"
        return SourceRefusedError(message) if number in _REFUSED else ExtractError(message)


def _told(error: Exception) -> tuple[int, str]:
    """Number and text of an error, as pymssql hands them on."""
    given = error.args[0] if error.args and isinstance(error.args[0], tuple) else error.args
    number = given[0] if given and isinstance(given[0], int) else 0
    text = given[1] if len(given) > 1 else str(error)
    return number, text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _words(text: str) -> str:
    """What the server says or, where it says nothing, the driver; in one line."""
    server, _, driver = text.partition("DB-Lib error message")
    driver = re.sub(r"General SQL Server error.*|(DB-Lib error message)? \d+, severity \d+:", "", driver)
    return " ".join((server if server.strip() else driver).split())


def _name(name: str) -> str:
    return f"[{name.replace(']', ']]')}]"


def _text(text: str) -> str:
    return "N'" + text.replace("'", "''") + "'"


def _base(data_type: str) -> str:
    return data_type.split("(")[0].strip().lower()


def _contract(data_type: str) -> str:
    base = _base(data_type)
    if base in ("decimal", "numeric"):
        precision, _, scale = data_type[len(base) + 1 : -1].partition(",")
        return f"decimal({precision.strip()},{scale.strip() or 0})"
    if base in ("datetime2", "datetimeoffset") and data_type[-2:-1].isdigit() and int(data_type[-2]) <= 6:
        return "timestamp_ntz" if base == "datetime2" else "timestamp"
    return _CONTRACT.get(base, "string")


def _convert(expression: str, column: SourceColumn) -> str:
    """SQL of a value as text that loses nothing of it."""
    base = _base(column.data_type)
    if base in _BYTES:
        return f"CONVERT(nvarchar(max), CONVERT(varbinary(max), {expression}), 2)"
    if base == "real":  # so that it reads as the very same number where all numbers are double
        return f"CONVERT(nvarchar(max), CONVERT(float, {expression}), {_STYLES[base]})"
    style = _ISO if base in _TIMES else _STYLES.get(base)
    text = f"CONVERT(nvarchar(max), {expression}{f', {style}' if style else ''})"
    if base == "datetimeoffset":  # the space before the offset is not ISO 8601
        return f"STUFF({text}, LEN({text}) - 6, 1, '')"
    return text


def _field(column: SourceColumn) -> str:
    """A field of a line of CSV; an empty one is NULL, and one with quotes is a text."""
    text = _convert(_name(column.name), column)
    if column.contract_type == "string":
        # another collation takes the full-width quote for a quote
        return f"""ISNULL('"' + REPLACE({text} COLLATE Latin1_General_BIN2, '"', '""') + '"', '')"""
    return f"ISNULL({text}, '')"


def _literal(text: str, column: SourceColumn) -> str:
    """A value of the column's own type, so that the server converts no column and an index is of use."""
    base, data_type = _base(column.data_type), column.data_type
    if base in _BYTES:  # what a rowversion is compared with, too
        if not re.fullmatch("[0-9A-Fa-f]*", text):
            raise DataError(f"the value {text!r} of the column {column.name} is not hexadecimal")
        return f"0x{text}"
    if base in _TIMES and base != "time":
        text, data_type = _moment(text, base, data_type)
    style = _ISO if base in _TIMES else _STYLES.get(base, 0)
    return f"CONVERT({data_type}, {_text(text)}{f', {style}' if style else ''})"


def _moment(text: str, base: str, data_type: str) -> tuple[str, str]:
    """A moment as the type wants it spelt, and the type: datetime2 for one that its own does not reach."""
    found = _MOMENT.fullmatch(text.strip())
    if not found:
        raise DataError(f"the update key's value {text!r} is not a date or time")
    day, clock, digits, offset = found.groups()
    spelt = f"{day} {clock or '00:00:00'}" + (f".{digits[:7]}" if digits else "")
    if base == "datetimeoffset":
        zone = (offset or "Z").replace("Z", "+00:00")
        return f"{spelt} {zone[:3]}:{zone[-2:] if len(zone) > 3 else '00'}", data_type
    if offset:
        moment = datetime.fromisoformat(spelt + offset).astimezone(UTC)
        spelt = moment.replace(tzinfo=None).isoformat(" ")
    if base == "datetime" and spelt >= "1753":
        return spelt[:23], data_type  # SQL Server refuses more than three digits
    # a smalldatetime has no seconds, so that the limit would be rounded
    return spelt, data_type if base == "datetime2" else "datetime2(7)"


def _where(condition: str) -> str:
    return f" WHERE {condition}" if condition else ""
