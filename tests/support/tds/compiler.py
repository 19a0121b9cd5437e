"""T-SQL as DuckDB's SQL, type by type.

Every expression knows its SQL Server type, so that what the two read differently is written out: integer division, text
that is compared without its trailing spaces and without case, NULLs that come first, dates as counts of 100 ns. What
could differ and is not written out is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Protocol

from tests.support.tds import parser as ast
from tests.support.tds.errors import SqlError, refusal
from tests.support.tds.types import (
    APPROXIMATE,
    BINARIES,
    DAY,
    EXACT,
    INTEGERS,
    MAX,
    MOMENTS,
    NUMBERS,
    PRECEDENCE,
    SECOND,
    SqlType,
    stored_constant,
)

MACROS = f"""
CREATE MACRO tds_fraction(t, n) AS CASE n WHEN 0 THEN '' ELSE
    '.' || lpad(CAST((t % {SECOND}) // CAST(10 ** (7 - n) AS BIGINT) AS VARCHAR), n, '0') END;
CREATE MACRO tds_two(n) AS lpad(CAST(n AS VARCHAR), 2, '0');
CREATE MACRO tds_date(t) AS CAST(DATE '0001-01-01' + CAST(t // {DAY} AS INTEGER) AS VARCHAR);
CREATE MACRO tds_clock(t) AS tds_two((t % {DAY}) // {3600 * SECOND}) || ':' || tds_two((t // {60 * SECOND}) % 60)
    || ':' || tds_two((t // {SECOND}) % 60);
CREATE MACRO tds_offset(m) AS (CASE WHEN m < 0 THEN '-' ELSE '+' END) || tds_two(abs(m) // 60) || ':'
    || tds_two(abs(m) % 60);
CREATE MACRO tds_milliseconds(t) AS (t + 5000) // 10000 * 10000;
CREATE MACRO tds_float(x) AS regexp_replace(printf('%.16e', x), 'e([+-])(\\d\\d)$', 'e\\10\\2');
CREATE MACRO tds_units(x) AS length(x) + length(regexp_replace(x, '[^\\x{{10000}}-\\x{{10FFFF}}]', '', 'g'));
CREATE MACRO tds_equal(x) AS CASE WHEN regexp_matches(x, '[^\\x00-\\x7FÀ-ÅÇ-ÏÑ-ÖÙ-Ýà-åç-ïñ-öù-ýÿ]')
    THEN error('40000:TDS stand-in: a comparison without case of other than Latin letters: outside the subset')
    ELSE lower(rtrim(x, ' ')) END;
CREATE MACRO tds_binary(x) AS CASE WHEN regexp_matches(x, '[\\x00-\\x1F]')
    THEN error('40000:TDS stand-in: a comparison of text with control characters: outside the subset')
    ELSE rtrim(x, ' ') END;
CREATE MACRO tds_guid(x) AS substr(x, 25) || substr(x, 20, 4) || substr(x, 17, 2) || substr(x, 15, 2)
    || substr(x, 12, 2) || substr(x, 10, 2) || substr(x, 7, 2) || substr(x, 5, 2) || substr(x, 3, 2) || substr(x, 1, 2);
CREATE MACRO tds_cut(x, n) AS CASE WHEN tds_units(x) = length(x) THEN left(x, n)
    ELSE error('40000:TDS stand-in: cutting text beyond the first plane: outside the subset') END;
CREATE MACRO tds_short(x, n) AS CASE WHEN length(x) > n
    THEN error('8115:Arithmetic overflow error converting expression to text.') ELSE x END;
CREATE MACRO tds_fits(x, n) AS CASE WHEN tds_units(rtrim(x, ' ')) > n
    THEN error('2628:String or binary data would be truncated.') ELSE x END;
CREATE MACRO tds_divisor(x) AS CASE WHEN x = 0 THEN error('8134:Divide by zero error encountered.') ELSE x END;
CREATE MACRO tds_not_null(x, c) AS CASE WHEN x IS NULL
    THEN error('515:Cannot insert the value NULL into column ''' || c || '''; column does not allow nulls.') ELSE x END;
"""
"""What DuckDB lacks. Messages of `error` start with the number of SQL Server's."""


def literal(value: Any, kind: SqlType) -> str:
    """A stored value as DuckDB's SQL, of its stored type."""
    if value is None:
        text = "NULL"
    elif isinstance(value, bool):
        text = str(value)
    elif isinstance(value, str):
        text = " || chr(0) || ".join("'" + part.replace("'", "''") + "'" for part in value.split("\0"))
    elif isinstance(value, bytes):
        text = "'" + "".join(f"\\x{byte:02X}" for byte in value) + "'"
    elif isinstance(value, dict):
        text = f"{{'utc': {value['utc']}, 'minutes': {value['minutes']}}}"
    else:
        text = f"'{value}'"
    return f"CAST({text} AS {kind.stored})"


@dataclass(frozen=True)
class TableColumn:
    """A column of the catalogue.

    Attributes:
        name: as declared.
        type: as declared.
        physical: its name in DuckDB.
        nullable: whether NULL may be put into it.
    """

    name: str
    type: SqlType
    physical: str
    nullable: bool = True


@dataclass
class Table:
    """A table or a view of the catalogue."""

    schema: str
    name: str
    physical: str
    columns: list[TableColumn]
    keys: list[ast.Key] = field(default_factory=list)
    query: ast.Query | None = None
    system: bool = False

    def column(self, name: str) -> TableColumn:
        found = [column for column in self.columns if column.name.lower() == name.lower()]
        if not found:
            raise SqlError(207, f"Invalid column name '{name}'.")
        return found[0]


class Context(Protocol):
    """What a compiler has to know of the session."""

    def table(self, path: tuple[str, ...]) -> Table: ...
    def variable(self, name: str) -> tuple[Any, SqlType]: ...
    def function(self, name: str) -> tuple[Any, SqlType] | None: ...


@dataclass(frozen=True)
class Value:
    """A compiled expression; `constant` holds what is known before it runs."""

    sql: str
    type: SqlType | None  # None: NULL without a type
    known: bool = False
    constant: Any = None
    nullable: bool = True


@dataclass(frozen=True)
class Output:
    """A column of a result."""

    name: str
    type: SqlType
    physical: str
    nullable: bool = True
    known: bool = False
    constant: Any = None


@dataclass
class _Source:
    alias: str
    schema: str
    physical: str
    columns: list[Output]


@dataclass
class _Scope:
    """The tables that a query's expressions may name, and what may stand where."""

    parent: _Scope | None
    sources: list[_Source] = field(default_factory=list)
    groups: list[str] | None = None  # of a query with aggregates
    inside: str = ""  # an aggregate
    windows: bool = False
    aggregates: bool = False


_NAME = SqlType("nvarchar", 256, collation="catalogue")
_DESCRIBED = [
    Output(name, kind, f"c{place}")
    for place, (name, kind) in enumerate(
        {
            "column_ordinal": SqlType("int"),
            "name": _NAME,
            "is_nullable": SqlType("bit"),
            "system_type_name": _NAME,
            "user_type_name": _NAME,
            "error_number": SqlType("int"),
            "error_message": SqlType("nvarchar", 4000),
        }.items()
    )
]
_DESCRIBED_NAMES = ", ".join(output.physical for output in _DESCRIBED)

_ORDERED = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}


class Compiler:
    """Compiles one statement.

    Args:
        context: tables, variables and functions of the session.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._count = 0
        self._scope = _Scope(None)

    # -- queries

    def query(self, query: ast.Query, derived: str = "") -> tuple[str, list[Output]]:
        """A query as DuckDB's SQL, and its columns.

        Args:
            query: the query.
            derived: alias under which it is a table of another query, where more rules hold.
        """
        outer = self._scope
        scope = self._scope = _Scope(outer)
        try:
            source = self._source(query.source) if query.source else ""
            return self._select(query, scope, source, derived)
        finally:
            self._scope = outer

    def _select(self, query: ast.Query, scope: _Scope, source: str, derived: str) -> tuple[str, list[Output]]:
        where = self._condition(query.where) if query.where else ""
        if query.groups or any(_aggregates(item) for item, _ in query.items):
            scope.groups = []
            for group in query.groups:
                if not isinstance(group, ast.Column):
                    raise refusal("GROUP BY anything but columns")
                column = self.value(group, inside="GROUP BY")
                if column.type is None or not _hashable(column.type):
                    raise refusal(f"GROUP BY {column.type}")
                scope.groups.append(column.sql)
        scope.windows = scope.aggregates = True
        items: list[str] = []
        outputs: list[Output] = []
        for expression, alias in query.items:
            for name, value in self._item(expression, alias):
                items.append(value.sql)
                kind = value.type or SqlType("int")
                physical = f"c{len(outputs)}"
                outputs.append(Output(name, kind, physical, value.nullable, value.known, value.constant))
        if derived:
            self._named_once(derived, outputs)
            if query.orders and query.top is None:
                raise SqlError(
                    1033,
                    "The ORDER BY clause is invalid in views, inline functions, derived tables, subqueries, and common"
                    " table expressions, unless TOP, OFFSET or FOR XML is also specified.",
                    15,
                )
        orders = self._orders(query.orders, items, outputs) if query.orders else ""
        columns = ", ".join(f"{sql} AS {output.physical}" for sql, output in zip(items, outputs, strict=True))
        sql = f"SELECT {columns}"
        sql += f" FROM {source}" if source else ""
        sql += f" WHERE {where}" if where else ""
        sql += f" GROUP BY {', '.join(scope.groups)}" if query.groups and scope.groups else ""
        sql += (f" ORDER BY {orders}" if orders else "") + self._limit(query)
        return sql, outputs

    def _item(self, expression: Any, alias: str) -> Iterator[tuple[str, Value]]:
        if not isinstance(expression, ast.Star):
            value = self.value(expression)
            yield alias or (expression.path[-1] if isinstance(expression, ast.Column) else ""), value
            return
        found = [one for one in self._scope.sources if expression.table.lower() in ("", one.alias.lower())]
        if not found:
            raise SqlError(
                107, f"The column prefix '{expression.table}' does not match with a table name or alias.", 15
            )
        if self._scope.groups is not None:
            raise SqlError(
                8120, "Column '*' is invalid in the select list because it is not contained in an aggregate."
            )
        for source in found:
            for column in source.columns:
                yield column.name, Value(f"{source.physical}.{column.physical}", column.type, nullable=column.nullable)

    @staticmethod
    def _named_once(alias: str, outputs: list[Output]) -> None:
        seen: set[str] = set()
        for place, output in enumerate(outputs, 1):
            if not output.name:
                raise SqlError(8155, f"No column name was specified for column {place} of '{alias}'.")
            if output.name.lower() in seen:
                raise SqlError(8156, f"The column '{output.name}' was specified multiple times for '{alias}'.")
            seen.add(output.name.lower())

    def _orders(self, orders: tuple[ast.Order, ...], items: list[str] = (), outputs: list[Output] = ()) -> str:  # type: ignore[assignment]
        parts = []
        for order in orders:
            expression, value = order.expression, None
            if isinstance(expression, ast.Constant) and outputs:
                if expression.type != SqlType("int") or not 1 <= expression.value <= len(outputs):
                    raise SqlError(108, "The ORDER BY position number is out of range of the number of items.", 15)
                value = Value(items[expression.value - 1], outputs[expression.value - 1].type)
            elif isinstance(expression, ast.Column) and len(expression.path) == 1:
                for sql, output in zip(items, outputs, strict=True):
                    if output.name.lower() == expression.path[0].lower():
                        value = Value(sql, output.type)
            value = value or self.value(expression)
            if value.known:
                raise SqlError(408, "A constant expression was encountered in the ORDER BY list.")
            parts.append(f"{_sortable(value)} {'DESC NULLS LAST' if order.descending else 'ASC NULLS FIRST'}")
        return ", ".join(parts)

    def _limit(self, query: ast.Query) -> str:
        return f" LIMIT {self._whole(query.top, 'TOP')}" if query.top is not None else ""

    def _whole(self, expression: Any, what: str) -> int:
        value = self.value(expression)
        if not value.known or value.type is None or value.type.name not in INTEGERS or value.constant < 0:
            raise refusal(f"{what} of anything but a whole number")
        return int(value.constant)

    # -- sources

    def _source(self, source: Any) -> str:
        if isinstance(source, ast.Join):
            return self._join(source)
        self._count += 1
        physical = f"s{self._count}"
        if isinstance(source, ast.Series):
            first, last = self._whole(source.first, "GENERATE_SERIES"), self._whole(source.last, "GENERATE_SERIES")
            kind = SqlType("int" if max(first, last) < 2**31 else "bigint")
            self._add(source.alias, "", physical, [Output("value", kind, "c0", nullable=False)])
            return f"(SELECT CAST(n AS {kind.stored}) AS c0 FROM range({first}, {last + 1}) AS r(n)) AS {physical}"
        if isinstance(source, ast.Described):
            self._add(source.alias, "", physical, _DESCRIBED)
            return f"(VALUES {', '.join(self._description(self.value(source.sql)))}) AS {physical}({_DESCRIBED_NAMES})"
        if isinstance(source, ast.Derived):
            sql, outputs = self._apart(source.query, source.alias)
            self._add(source.alias, "", physical, outputs)
            return f"({sql}) AS {physical}"
        table = self.context.table(source.path)
        if table.query is not None:
            sql, _ = Compiler(self.context).query(table.query, table.name)
            outputs = [
                Output(column.name, column.type, f"c{place}", column.nullable)
                for place, column in enumerate(table.columns)
            ]
            text = f"({sql}) AS {physical}"
        else:
            outputs = [Output(each.name, each.type, each.physical, each.nullable) for each in table.columns]
            text = f"{table.physical} AS {physical}"
        self._add(source.alias, table.schema, physical, outputs)
        return text

    def _description(self, statement: Value) -> Iterator[str]:
        """Rows of sys.dm_exec_describe_first_result_set."""
        rows: list[tuple[Any, ...]]
        try:
            [query] = ast.parse(statement.constant)
            _, outputs = Compiler(self.context).query(query)
            rows = [(place, out.name, out.nullable, str(out.type)) for place, out in enumerate(outputs, 1)]
            rows = [(*row, None, None, None) for row in rows]
        except SqlError as error:
            rows = [(0, None, None, None, None, error.number, str(error))]
        for row in rows:
            values = (literal(value, out.type) for value, out in zip(row, _DESCRIBED, strict=True))
            yield f"({', '.join(values)})"

    def _apart(self, query: ast.Query, alias: str) -> tuple[str, list[Output]]:
        """A derived table, which sees nothing of the tables beside it."""
        scope, self._scope = self._scope, _Scope(self._scope.parent)
        try:
            return self.query(query, alias)
        finally:
            self._scope = scope

    def _join(self, join: ast.Join) -> str:
        left = self._source(join.left)
        if not join.kind.endswith("APPLY"):
            right = self._source(join.right)
            on = f" ON {self._condition(join.on)}" if join.on is not None else ""
            return f"{left} {join.kind} JOIN {right}{on}"
        if not isinstance(join.right, ast.Derived):
            raise refusal("APPLY of anything but a query")
        self._count += 1
        physical = f"s{self._count}"
        sql, outputs = self.query(join.right.query, join.right.alias)
        self._add(join.right.alias, "", physical, outputs)
        return f"{left} INNER JOIN LATERAL ({sql}) AS {physical} ON true"

    def _add(self, alias: str, schema: str, physical: str, columns: list[Output]) -> None:
        if any(source.alias.lower() == alias.lower() for source in self._scope.sources):
            raise SqlError(1013, f"The objects '{alias}' in the FROM clause have the same exposed names.", 15)
        self._scope.sources.append(_Source(alias, schema, physical, columns))

    def column(self, path: tuple[str, ...]) -> Value:
        """A column that is named."""
        scope: _Scope | None = self._scope
        while scope is not None:
            found = [
                (source, column)
                for source in scope.sources
                if len(path) == 1
                or (
                    source.alias.lower() == path[-2].lower()
                    and (len(path) == 2 or source.schema.lower() == path[-3].lower())
                )
                for column in source.columns
                if column.name.lower() == path[-1].lower()
            ]
            if len(found) > 1:
                raise SqlError(209, f"Ambiguous column name '{path[-1]}'.")
            if found:
                source, column = found[0]
                value = Value(f"{source.physical}.{column.physical}", column.type, nullable=column.nullable)
                if scope.groups is not None and not self._scope.inside and scope is self._scope:
                    if value.sql not in scope.groups:
                        raise SqlError(
                            8120,
                            f"Column '{'.'.join(path)}' is invalid in the select list because it is not contained in"
                            " either an aggregate function or the GROUP BY clause.",
                        )
                elif self._scope.inside not in ("", "GROUP BY") and scope is not self._scope:
                    raise refusal("an aggregate of an outer query's column")
                return value
            scope = scope.parent
        if len(path) > 1:
            raise SqlError(4104, f'The multi-part identifier "{".".join(path)}" could not be bound.')
        raise SqlError(207, f"Invalid column name '{path[-1]}'.")

    # -- conditions

    def _condition(self, expression: Any) -> str:
        """A condition; SQL Server has no boolean values, so this is apart from `value`."""
        before = self._scope.windows, self._scope.aggregates
        self._scope.windows = False
        try:
            return self._predicate(expression)
        finally:
            self._scope.windows, self._scope.aggregates = before

    def _predicate(self, expression: Any) -> str:
        if isinstance(expression, ast.Binary) and expression.operator in ("AND", "OR"):
            left, right = self._predicate(expression.left), self._predicate(expression.right)
            return f"({left} {expression.operator} {right})"
        if isinstance(expression, ast.Unary) and expression.operator == "NOT":
            return f"(NOT {self._predicate(expression.operand)})"
        if isinstance(expression, ast.Binary) and expression.operator in ("=", "<>", *_ORDERED):
            return self._comparison(expression.operator, self.value(expression.left), self.value(expression.right))
        if isinstance(expression, ast.IsNull):
            return f"({self.value(expression.operand).sql} IS {'NOT ' if expression.negated else ''}NULL)"
        raise SqlError(
            4145, "An expression of non-boolean type specified in a context where a condition is expected.", 15
        )

    def _comparison(self, operator: str, left: Value, right: Value) -> str:
        if left.type is None or right.type is None:
            raise refusal("a comparison with NULL")
        if left.type.name == "xml" or right.type.name == "xml":
            raise SqlError(
                305, "The xml data type cannot be compared or sorted, except when using the IS NULL operator."
            )
        if not (left.type.is_text and right.type.is_text):
            numbers = left.type.name in NUMBERS and right.type.name in NUMBERS
            if not numbers or (left.type.name == "bit") != (right.type.name == "bit"):
                kind = _stronger(left.type, right.type)
                left, right = (self.converted(left, kind), self.converted(right, kind))
        else:
            assert left.type is not None
            assert right.type is not None
            collation = _collation(left.type, right.type)
            left, right = _collated(left, collation), _collated(right, collation)
        key = _comparable if operator in ("=", "<>") else _sortable
        return f"({key(left)} {operator} {key(right)})"

    # -- values

    def value(self, expression: Any, inside: str = "") -> Value:
        """An expression with a type."""
        if inside:
            before, self._scope.inside = self._scope.inside, inside
            try:
                return self.value(expression)
            finally:
                self._scope.inside = before
        readers: Mapping[type, Callable[[Any], Value]] = {
            ast.Constant: lambda it: self.constant(it.value, it.type),
            ast.Variable: lambda it: self.constant(*self.context.variable(it.name)),
            ast.Column: lambda it: self.column(it.path),
            ast.Unary: self._unary,
            ast.Binary: self._binary,
            ast.Case: self._case,
            ast.Convert: self._convert,
            ast.Collate: lambda it: _collated(self.value(it.operand), it.collation),
            ast.Call: self._call,
        }
        reader = readers.get(type(expression))
        if reader is None:
            raise SqlError(
                102, f"Incorrect syntax: a condition or * where a value is expected ({type(expression).__name__}).", 15
            )
        return reader(expression)

    @staticmethod
    def constant(value: Any, kind: SqlType | None) -> Value:
        """A value that is known now."""
        if kind is None:
            return Value("NULL", None, known=True)
        if kind.name == "varchar":
            stored_constant(value, kind, kind)  # refuses what code page 1252 lacks
        return Value(literal(value, kind), kind, known=True, constant=value, nullable=value is None)

    def _unary(self, expression: ast.Unary) -> Value:
        operand = self.value(expression.operand)
        if expression.operator != "-" or operand.type is None or operand.type.name not in NUMBERS - {"bit", "tinyint"}:
            raise refusal(f"{expression.operator} of {operand.type}")
        if operand.known:
            negated = operand.constant
            return self.constant(negated.copy_negate() if isinstance(negated, Decimal) else -negated, operand.type)
        return Value(f"(-{operand.sql})", operand.type, nullable=operand.nullable)

    def _binary(self, expression: ast.Binary) -> Value:
        left, right, operator = self.value(expression.left), self.value(expression.right), expression.operator
        if left.type is None or right.type is None:
            raise refusal(f"{operator} with NULL")
        nullable = left.nullable or right.nullable
        if operator == "+" and left.type.is_text and right.type.is_text:
            kind = _joined(left.type, right.type)
            return Value(f"({left.sql} || {right.sql})", kind, nullable=nullable)
        if operator not in ("+", "-", "*", "/", "%") or not {left.type.name, right.type.name} <= INTEGERS.keys():
            raise refusal(f"{left.type} {operator} {right.type}")
        kind = _stronger(left.type, right.type)
        one, two = self.converted(left, kind).sql, self.converted(right, kind).sql
        if operator in "/%":
            operator, two = ("//" if operator == "/" else "%"), f"tds_divisor({two})"
        return Value(f"CAST(({one} {operator} {two}) AS {kind.stored})", kind, nullable=nullable)

    def _case(self, expression: ast.Case) -> Value:
        tests = [self._predicate(test) for test, _ in expression.whens]
        values = [self.value(value) for _, value in expression.whens] + [self.value(expression.otherwise)]
        kind = _common([value.type for value in values])
        sqls = [self.converted(value, kind).sql for value in values]
        whens = " ".join(f"WHEN {test} THEN {sql}" for test, sql in zip(tests, sqls[:-1], strict=True))
        return Value(f"CASE {whens} ELSE {sqls[-1]} END", kind, nullable=any(value.nullable for value in values))

    # -- conversions

    def _convert(self, expression: ast.Convert) -> Value:
        operand, kind = self.value(expression.operand), expression.type
        if operand.type is None:
            return Value(f"CAST(NULL AS {kind.stored})", kind, known=True)
        if kind.is_text and not operand.type.is_text:
            return self._shown(operand, kind, expression.style)
        plain = operand.type.name in NUMBERS or (operand.type.is_text and kind.name not in BINARIES)
        if expression.style not in (None, 0) and not plain:
            raise refusal(f"style {expression.style} from {operand.type} to {kind}")
        if kind.is_text:
            return self._cut(operand, kind)
        return self.converted(operand, kind)

    @staticmethod
    def _cut(value: Value, kind: SqlType) -> Value:
        """Text of one type as text of another: cut where it is longer."""
        if value.type is None or kind.name in ("char", "nchar"):
            raise refusal(f"a conversion to {kind}")
        if value.type.is_wide and not kind.is_wide and not value.known:
            raise refusal(f"a conversion from {value.type} to {kind}")
        kind = replace(kind, collation=value.type.collation)
        shorter = kind.length != MAX and (value.type.length == MAX or (value.type.length or 0) > (kind.length or 0))
        if not shorter:
            if value.known:
                return Compiler.constant(value.constant, kind)
            return Value(value.sql, kind, nullable=value.nullable)
        if value.known and value.constant is not None:
            return Compiler.constant(value.constant[: kind.length], kind)
        sql = f"tds_cut({value.sql}, {kind.length})"
        return Value(sql, kind, nullable=value.nullable)

    def _shown(self, value: Value, kind: SqlType, style: int | None) -> Value:
        """A value as text, in a style."""
        of = value.type
        assert of is not None
        if kind.name in ("char", "nchar"):
            raise refusal(f"a conversion to {kind}")
        x, text = value.sql, ""
        if of.name in INTEGERS or of.name == "decimal":
            text = f"CAST({x} AS VARCHAR)"
        elif of.name == "bit":
            text = f"CAST(CAST({x} AS TINYINT) AS VARCHAR)"
        elif of.name in ("money", "smallmoney") and style == 2:
            text = f"CAST({x} AS VARCHAR)"
        elif of.name in APPROXIMATE and style == 3:
            text = f"tds_float(CAST({x} AS DOUBLE))"
        elif of.name == "uniqueidentifier" or (of.name == "xml" and kind == SqlType("nvarchar", MAX)):
            text = x
        elif of.name in BINARIES and style in (1, 2):
            text = f"{chr(39) + '0x' + chr(39) + ' || ' if style == 1 else ''}hex({x})"
        elif of.name in MOMENTS | {"time"}:
            text = _moment_shown(x, of, style)
        if not text:
            raise refusal(f"a conversion from {of} to {kind} with style {0 if style is None else style}")
        if kind.length != MAX and of.name in BINARIES:
            text = f"left({text}, {kind.length})"
        elif kind.length != MAX and (kind.length or 0) < 41:
            text = f"tds_short({text}, {kind.length})"
        return Value(text, kind, nullable=value.nullable)

    def converted(self, value: Value, kind: SqlType) -> Value:
        """A value implicitly converted to another type, without any loss that SQL Server would not have either."""
        of = value.type
        if of is None:
            return Value(f"CAST(NULL AS {kind.stored})", kind, known=True)
        if of == kind:
            return value
        if value.known:
            return self.constant(stored_constant(value.constant, of, kind), kind)
        known = replace(value, type=kind)
        pair = (of.name, kind.name)
        if of.is_text and kind.is_text:
            if (of.is_wide and not kind.is_wide) or kind.name in ("char", "nchar"):
                raise refusal(f"a conversion from {of} to {kind}")
            return replace(known, type=replace(kind, collation=of.collation))
        if of.name in {*INTEGERS, "bit"} and kind.name in NUMBERS - {"bit"}:
            return replace(known, sql=f"CAST({value.sql} AS {kind.stored})")
        if of.name in EXACT and kind.name in EXACT | APPROXIMATE.keys():
            return replace(known, sql=f"CAST({value.sql} AS {kind.stored})")
        if pair == ("decimal", "int") or pair == ("decimal", "bigint"):
            return replace(known, sql=f"CAST(trunc({value.sql}) AS {kind.stored})")
        if pair == ("real", "float"):
            return replace(known, sql=f"CAST({value.sql} AS DOUBLE)")
        if of.name in ("date", "smalldatetime", "datetime", "datetime2") and kind.name == "datetime2":
            unit = 10 ** (7 - (kind.scale or 0))
            return replace(known, sql=value.sql if unit == 1 else f"(({value.sql} + {unit // 2}) // {unit} * {unit})")
        if of.name in MOMENTS - {"datetimeoffset"} and kind.name == "date":
            return replace(known, sql=f"({value.sql} // {DAY} * {DAY})")
        if of.name == "date" and kind.name in ("datetime", "smalldatetime"):
            return known
        if of.name in BINARIES and kind.name == "varbinary":
            return known
        raise refusal(f"a conversion from {of} to {kind}")

    def assigned(self, value: Value, column: TableColumn) -> str:
        """A value as what is put into a column."""
        kind = column.type
        if value.known or value.type is None:
            if value.type is not None and kind.is_text and not value.type.is_text and value.constant is not None:
                sql = self._shown(value, kind, None).sql
            else:
                constant = None if value.type is None else stored_constant(value.constant, value.type, kind)
                sql = literal(constant, kind)
        elif kind.is_text and not value.type.is_text:
            sql = self._shown(value, kind, None).sql
        elif (
            kind.is_text
            and value.type.is_text
            and value.type.is_wide <= kind.is_wide
            and kind.name in ("varchar", "nvarchar")
        ):
            sql = value.sql if kind.length == MAX else f"tds_fits({value.sql}, {kind.length})"
        else:
            sql = self.converted(value, kind).sql
        if not column.nullable and value.nullable:
            sql = f"tds_not_null({sql}, {literal(column.name, SqlType('nvarchar', 128))})"
        return sql

    # -- functions

    def _call(self, call: ast.Call) -> Value:
        if call.over is not None:
            return self._window(call)
        if call.name in ("COUNT", "COUNT_BIG", "MIN", "MAX", "STRING_AGG"):
            return self._aggregate(call)
        found = self.context.function(call.name) if not call.arguments else None
        if found is not None:
            return self.constant(*found)
        method = getattr(self, f"_call_{call.name.lower()}", None)
        if method is None:
            raise refusal(f"the function {call.name}")
        if call.within:
            raise SqlError(10757, f"The function '{call.name}' may not have a WITHIN GROUP clause.", 15)
        result: Value = method(*[self.value(argument) for argument in call.arguments])
        return result

    def _call_coalesce(self, *values: Value) -> Value:
        if len(values) < 2 or all(value.type is None for value in values):
            raise SqlError(4127, "At least one of the arguments to COALESCE must be an expression that is not NULL.")
        kind = _common([value.type for value in values])
        sqls = ", ".join(self.converted(value, kind).sql for value in values)
        return Value(f"coalesce({sqls})", kind, nullable=all(value.nullable for value in values))

    def _call_isnull(self, value: Value, other: Value) -> Value:
        if value.type is None or other.type is None:
            raise refusal("ISNULL with NULL")
        if value.type.is_text and value.type.length not in (MAX, other.type.length):
            raise refusal("ISNULL of text of other lengths, whose second value is cut; use COALESCE")
        return Value(
            f"coalesce({value.sql}, {self.converted(other, value.type).sql})", value.type, nullable=other.nullable
        )

    def _call_replace(self, value: Value, old: Value, new: Value) -> Value:
        if value.type is None or value.type.length != MAX:
            raise refusal("REPLACE of text that is not (max), which is cut at 8000 bytes")
        if value.type.collation != "binary" and (old.type is None or old.type.collation != "binary"):
            raise refusal(
                "REPLACE without COLLATE Latin1_General_BIN2: another collation replaces full-width forms too"
            )
        return Value(f"replace({value.sql}, {old.sql}, {new.sql})", value.type, nullable=value.nullable)

    def _call_stuff(self, value: Value, start: Value, length: Value, new: Value) -> Value:
        if value.type is None or value.type.length != MAX or (length.constant, new.constant) != (1, ""):
            raise refusal("STUFF but for taking one character out of (max)")
        sql = f"(left({value.sql}, {start.sql} - 1) || substr({value.sql}, {start.sql} + 1))"
        return Value(sql, value.type, nullable=value.nullable)

    def _call_char(self, code: Value) -> Value:
        return self.constant(bytes([self._code(code, 255)]).decode("cp1252"), SqlType("char", 1))

    @staticmethod
    def _code(code: Value, highest: int) -> int:
        if not code.known or not isinstance(code.constant, int) or not 1 <= code.constant <= highest:
            raise refusal("CHAR or NCHAR of anything but a constant code")
        return code.constant

    def _call_len(self, value: Value) -> Value:
        if value.type is None or not value.type.is_text:
            raise refusal(f"LEN of {value.type}")
        kind = SqlType("bigint" if value.type.length == MAX else "int")
        return Value(f"CAST(tds_units(rtrim({value.sql}, ' ')) AS {kind.stored})", kind, nullable=value.nullable)

    def _call_hashbytes(self, algorithm: Value, value: Value) -> Value:
        name = str(algorithm.constant).upper()
        if name not in ("SHA2_256", "SHA2_512", "SHA1", "MD5") or value.type is None:
            raise refusal(f"HASHBYTES({algorithm.constant!r}, {value.type})")
        if not (value.type.is_text or value.type.name in BINARIES):
            raise SqlError(8116, f"Argument data type {value.type} is invalid for argument 2 of hashbytes function.")
        of = "wide" if value.type.is_wide else "narrow" if value.type.is_text else "binary"
        return Value(f"tds_hash_{of}('{name}', {value.sql})", SqlType("varbinary", 8000))

    def _aggregate(self, call: ast.Call) -> Value:
        if self._scope.inside:
            raise SqlError(130, "Cannot perform an aggregate function on an expression containing an aggregate.")
        if not self._scope.aggregates:
            raise SqlError(147, "An aggregate may not appear in the WHERE clause.", 15)
        name = call.name
        if name == "STRING_AGG":
            return self._string_agg(call)
        if len(call.arguments) != 1:
            raise SqlError(174, f"The {name} function requires 1 argument(s).", 15)
        if isinstance(call.arguments[0], ast.Star):
            kind = SqlType("int" if name == "COUNT" else "bigint")
            return Value(f"CAST(count(*) AS {kind.stored})", kind, nullable=False)
        value = self.value(call.arguments[0], inside=name)
        of = value.type
        if of is None:
            raise SqlError(8117, f"Operand data type NULL is invalid for {name.lower()} operator.")
        distinct = "DISTINCT " if call.distinct else ""
        if name.startswith("COUNT"):
            if distinct and not _hashable(of):
                raise refusal(f"{name}(DISTINCT …) of {of}")
            kind = SqlType("int" if name == "COUNT" else "bigint")
            return Value(f"CAST(count({distinct}{value.sql}) AS {kind.stored})", kind, nullable=False)
        if distinct:
            raise refusal(f"{name}(DISTINCT …)")
        if of.name == "bit":
            raise SqlError(8117, f"Operand data type bit is invalid for {name.lower()} operator.")
        which = name.lower()
        if of.name == "uniqueidentifier":
            return Value(f"arg_{which}({value.sql}, tds_guid({value.sql}))", of)
        _sortable(value)
        return Value(f"{which}({value.sql})", of)

    def _string_agg(self, call: ast.Call) -> Value:
        if len(call.arguments) != 2 or call.distinct:
            raise SqlError(174, "The STRING_AGG function requires 2 argument(s).", 15)
        value, separator = (self.value(argument, inside="STRING_AGG") for argument in call.arguments)
        if value.type is None or not value.type.is_text or value.type.length != MAX:
            raise refusal("STRING_AGG of anything but (max), which fails beyond 8000 bytes")
        if not separator.known or separator.type is None or not separator.type.is_text:
            raise SqlError(8733, "Separator parameter for STRING_AGG must be either a string literal or a variable.")
        before, self._scope.inside = self._scope.inside, "STRING_AGG"
        try:
            order = f" ORDER BY {self._orders(call.within)}" if call.within else ""
        finally:
            self._scope.inside = before
        return Value(f"string_agg({value.sql}, {separator.sql}{order})", value.type)

    def _window(self, call: ast.Call) -> Value:
        if not self._scope.windows:
            raise SqlError(4108, "Windowed functions can only appear in the SELECT or ORDER BY clauses.", 15)
        if isinstance(call.arguments[0] if call.arguments else None, ast.Star) and not call.over:
            kind = SqlType("int" if call.name == "COUNT" else "bigint")
            return Value(f"CAST(count(*) OVER () AS {kind.stored})", kind, nullable=False)
        if not call.over:
            raise SqlError(4112, f"The function '{call.name}' must have an OVER clause with ORDER BY.", 15)
        over = f"(ORDER BY {self._orders(call.over)})"
        if call.name == "ROW_NUMBER" and not call.arguments:
            return Value(f"row_number() OVER {over}", SqlType("bigint"), nullable=False)
        if call.name == "NTILE" and len(call.arguments) == 1:
            parts = self._whole(call.arguments[0], "NTILE")
            return Value(f"ntile({parts}) OVER {over}", SqlType("bigint"), nullable=False)
        if call.name == "LEAD" and len(call.arguments) == 1:
            value = self.value(call.arguments[0])
            return Value(f"lead({value.sql}) OVER {over}", value.type)
        raise refusal(f"the window function {call.name}")

    # -- changes

    def insert(self, statement: ast.Insert) -> str:
        """INSERT as DuckDB's SQL."""
        table = self._changeable(statement.table)
        targets = [table.column(name) for name in statement.columns] or table.columns
        rest = [column for column in table.columns if column not in targets]
        defaults = [
            "NULL" if column.nullable else f"tds_not_null(CAST(NULL AS {column.type.stored}), '{column.name}')"
            for column in rest
        ]
        if statement.query is None:
            rows = []
            for row in statement.rows:
                if len(row) != len(targets):
                    raise SqlError(213, "Column name or number of supplied values does not match table definition.")
                values = [self.assigned(self.value(item), column) for item, column in zip(row, targets, strict=True)]
                rows.append(f"({', '.join(values + defaults)})")
            source = f"VALUES {', '.join(rows)}"
        else:
            sql, outputs = self.query(statement.query)
            if len(outputs) != len(targets):
                raise SqlError(121, "The select list for the INSERT statement does not match the insert list.", 15)
            values = [self.assigned(_passed(output), column) for output, column in zip(outputs, targets, strict=True)]
            source = f"SELECT {', '.join(values + defaults)} FROM ({sql}) AS q"
        columns = ", ".join(column.physical for column in [*targets, *rest])
        return f"INSERT INTO {table.physical} ({columns}) {source}"

    def update(self, statement: ast.Update) -> str:
        """UPDATE as DuckDB's SQL."""
        table = self._changeable(statement.table)
        self._source(ast.Named(statement.table, table.name))
        [source] = self._scope.sources
        changes = [
            f"{table.column(name).physical} = {self.assigned(self.value(item), table.column(name))}"
            for name, item in statement.changes
        ]
        where = f" WHERE {self._condition(statement.where)}" if statement.where else ""
        return f"UPDATE {table.physical} AS {source.physical} SET {', '.join(changes)}{where}"

    def delete(self, statement: ast.Delete) -> str:
        """DELETE as DuckDB's SQL."""
        table = self._changeable(statement.table)
        self._source(ast.Named(statement.table, table.name))
        [source] = self._scope.sources
        where = f" WHERE {self._condition(statement.where)}" if statement.where else ""
        return f"DELETE FROM {table.physical} AS {source.physical}{where}"

    def _changeable(self, path: tuple[str, ...]) -> Table:
        table = self.context.table(path)
        if table.query is not None or table.system:
            raise refusal(f"a change of {table.schema}.{table.name}")
        return table


def _aggregates(expression: Any) -> bool:
    """Whether an expression has an aggregate of its own query."""
    if isinstance(expression, ast.Call) and expression.over is None:
        if expression.name in ("COUNT", "COUNT_BIG", "MIN", "MAX", "STRING_AGG"):
            return True
        return any(map(_aggregates, expression.arguments))
    if isinstance(expression, ast.Case):
        return any(map(_aggregates, [value for _, value in expression.whens] + [expression.otherwise]))
    if isinstance(expression, ast.Binary):
        return _aggregates(expression.left) or _aggregates(expression.right)
    return isinstance(expression, ast.Unary | ast.Convert | ast.Collate) and _aggregates(expression.operand)


def _passed(output: Output) -> Value:
    """A column of a subquery; what is known of it stays known."""
    return Value(f"q.{output.physical}", output.type, output.known, output.constant, output.nullable)


def _hashable(kind: SqlType) -> bool:
    """Whether equal stored values are equal to SQL Server, and the other way round."""
    return not (kind.is_text or kind.name in {"datetimeoffset", "xml", *BINARIES})


def _comparable(value: Value) -> str:
    """What two values are compared by."""
    kind = value.type
    assert kind is not None
    if kind.is_text:
        return f"tds_binary({value.sql})" if kind.collation == "binary" else f"tds_equal({value.sql})"
    if kind.name == "datetimeoffset":
        return f"({value.sql}).utc"
    if kind.name in BINARIES:
        raise refusal(f"a comparison of {kind}")
    return value.sql


def _sortable(value: Value) -> str:
    """What values are sorted by."""
    kind = value.type
    if kind is None or kind.name == "xml" or (kind.is_text and kind.collation == "default"):
        raise refusal(f"the order of {kind} without COLLATE Latin1_General_BIN2")
    return f"tds_guid({value.sql})" if kind.name == "uniqueidentifier" else _comparable(value)


def _collated(value: Value, collation: str) -> Value:
    if value.type is None or not value.type.is_text:
        raise SqlError(447, f"Expression type {value.type} is invalid for COLLATE clause.")
    return replace(value, type=replace(value.type, collation=collation))


def _stronger(one: SqlType, two: SqlType) -> SqlType:
    """Which of two types the other is converted to."""
    first, second = sorted((one, two), key=lambda kind: PRECEDENCE.index(kind.name))
    if first.name == second.name and first.name in ("datetime2", "datetimeoffset", "time"):
        return first if (first.scale or 0) >= (second.scale or 0) else second
    if first.name in ("datetime2", "datetimeoffset") and first.name != second.name:
        return replace(first, scale=7)  # so that nothing of the other is lost
    return first


def _joined(one: SqlType, two: SqlType) -> SqlType:
    """The type of text + text."""
    wide = one.is_wide or two.is_wide
    collation = _collation(one, two)
    if MAX in (one.length, two.length):
        return SqlType("nvarchar" if wide else "varchar", MAX, collation=collation)
    length = (one.length or 0) + (two.length or 0)
    if length > (4000 if wide else 8000):
        raise refusal("text + text that may be cut at 8000 bytes")
    return SqlType("nvarchar" if wide else "varchar", length, collation=collation)


def _collation(one: SqlType, two: SqlType) -> str:
    for collation in ("binary", "catalogue"):
        if collation in (one.collation, two.collation):
            return collation
    return "default"


def _common(kinds: list[SqlType | None]) -> SqlType:
    """The type of what is one of several values."""
    known = [kind for kind in kinds if kind is not None]
    if not known:
        raise SqlError(8133, "At least one of the result expressions must be an expression other than NULL.")
    result = known[0]
    for kind in known[1:]:
        if kind == result:
            result = replace(result, collation=_collation(kind, result))
        elif kind.is_text and result.is_text:
            wide, longest = kind.is_wide or result.is_wide, max(kind.length or 0, result.length or 0)
            length = MAX if MAX in (kind.length, result.length) else longest
            result = SqlType("nvarchar" if wide else "varchar", length, collation=_collation(kind, result))
        elif {kind.name, result.name} <= INTEGERS.keys():
            result = _stronger(kind, result)
        else:
            raise refusal(f"one value of {kind} or {result}")
    return result


def _moment_shown(x: str, of: SqlType, style: int | None) -> str:
    """A date or time as text; '' for a style that is not known here."""
    plain = style == 121 or (style is None and of.name not in ("datetime", "smalldatetime"))
    scale = of.scale or 0
    if of.name == "date":
        return f"tds_date({x})" if plain or style in (23, 126) else ""
    if of.name == "time":
        return f"(tds_clock({x}) || tds_fraction({x}, {scale}))" if plain else ""
    if of.name == "datetimeoffset":
        local = f"(({x}).utc + CAST(({x}).minutes AS BIGINT) * {60 * SECOND})"
        shown = f"tds_date({local}) || ' ' || tds_clock({local}) || tds_fraction({local}, {scale})"
        return f"({shown} || ' ' || tds_offset(({x}).minutes))" if plain else ""
    if of.name in ("datetime", "smalldatetime"):
        x, scale = f"tds_milliseconds({x})", 3
        if style == 126:
            fraction = f"CASE WHEN {x} % {SECOND} = 0 THEN '' ELSE tds_fraction({x}, 3) END"
            return f"(tds_date({x}) || 'T' || tds_clock({x}) || {fraction})"
    return f"(tds_date({x}) || ' ' || tds_clock({x}) || tds_fraction({x}, {scale}))" if plain else ""
