"""The subset of T-SQL that the stand-in reads. What the grammar does not know is refused by name, never guessed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.support.tds.errors import SqlError, refusal
from tests.support.tds.types import MAX, SqlType, declared

# -- expressions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant:
    value: Any
    type: SqlType | None


@dataclass(frozen=True)
class Variable:
    name: str  # with its @ or @@


@dataclass(frozen=True)
class Column:
    path: tuple[str, ...]


@dataclass(frozen=True)
class Star:
    table: str = ""


@dataclass(frozen=True)
class Unary:
    operator: str  # -, NOT
    operand: Any


@dataclass(frozen=True)
class Binary:
    operator: str
    left: Any
    right: Any


@dataclass(frozen=True)
class IsNull:
    operand: Any
    negated: bool


@dataclass(frozen=True)
class Case:
    whens: tuple[tuple[Any, Any], ...]
    otherwise: Any


@dataclass(frozen=True)
class Convert:
    operand: Any
    type: SqlType
    style: int | None


@dataclass(frozen=True)
class Collate:
    operand: Any
    collation: str


@dataclass(frozen=True)
class Call:
    name: str
    arguments: tuple[Any, ...]
    distinct: bool = False
    within: tuple[Order, ...] = ()
    over: tuple[Order, ...] | None = None


@dataclass(frozen=True)
class Order:
    expression: Any
    descending: bool


# -- sources and queries ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    path: tuple[str, ...]
    alias: str


@dataclass(frozen=True)
class Derived:
    query: Query
    alias: str


@dataclass(frozen=True)
class Series:
    first: Any
    last: Any
    alias: str


@dataclass(frozen=True)
class Described:
    sql: Any
    alias: str


@dataclass(frozen=True)
class Join:
    kind: str  # INNER, LEFT, CROSS, CROSS APPLY, OUTER APPLY
    left: Any
    right: Any
    on: Any


@dataclass(frozen=True)
class Query:
    items: tuple[tuple[Any, str], ...]  # expression and alias
    source: Any = None
    where: Any = None
    groups: tuple[Any, ...] = ()
    orders: tuple[Order, ...] = ()
    top: Any = None


# -- statements ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Insert:
    table: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    query: Query | None


@dataclass(frozen=True)
class Update:
    table: tuple[str, ...]
    changes: tuple[tuple[str, Any], ...]
    where: Any


@dataclass(frozen=True)
class Delete:
    table: tuple[str, ...]
    where: Any


@dataclass(frozen=True)
class NewColumn:
    name: str
    type: SqlType
    nullable: bool


@dataclass(frozen=True)
class Key:
    name: str
    columns: tuple[str, ...]
    primary: bool


@dataclass(frozen=True)
class CreateTable:
    table: tuple[str, ...]
    columns: tuple[NewColumn, ...]
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class CreateView:
    view: tuple[str, ...]
    query: Query


@dataclass(frozen=True)
class AlterTable:
    table: tuple[str, ...]
    add: NewColumn


@dataclass(frozen=True)
class Drop:
    kind: str
    path: tuple[str, ...]
    if_exists: bool


@dataclass(frozen=True)
class SetOption:
    name: str


@dataclass(frozen=True)
class Use:
    database: str


@dataclass(frozen=True)
class WaitFor:
    seconds: float


# -- reading ---------------------------------------------------------------------------------------------------------

_TOKENS = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?\*/)
    |(?P<wide>N'(?:[^']|'')*')|(?P<text>'(?:[^']|'')*')|(?P<binary>0x[0-9a-f]*)
    |(?P<float>(?:\d+\.?\d*|\.\d+)e[+-]?\d+)|(?P<decimal>\d+\.\d*|\.\d+)|(?P<integer>\d+)
    |(?P<quoted>\[(?:[^\]]|\]\])*\]|"(?:[^"]|"")*")|(?P<variable>@@?\w+)|(?P<word>[^\W\d][\w$#]*)
    |(?P<sign><>|!=|<=|>=|[(),.;+\-*/%=<>])""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)

_RESERVED = {
    "ALTER", "AND", "AS", "ASC", "BEGIN", "BETWEEN", "BY", "CASE", "COLLATE", "COMMIT", "CREATE", "CROSS",
    "DELETE", "DESC", "DISTINCT", "DROP", "ELSE", "END", "EXCEPT", "EXISTS", "FETCH", "FOR", "FROM", "FULL",
    "GROUP", "HAVING", "IF", "IN", "INNER", "INSERT", "INTERSECT", "INTO", "IS", "JOIN", "LEFT", "LIKE",
    "MERGE", "NOT", "NULL", "OFFSET", "ON", "OPTION", "OR", "ORDER", "OUTER", "OVER", "PERCENT", "PIVOT",
    "RIGHT", "ROLLBACK", "SELECT", "SET", "TABLE", "THEN", "TOP", "TRUNCATE", "UNION", "UNPIVOT", "UPDATE",
    "USE", "VALUES", "WAITFOR", "WHEN", "WHERE", "WITH", "WITHIN", "EXEC", "EXECUTE", "DECLARE", "LIMIT",
}  # fmt: skip
_AGGREGATES = {"COUNT", "COUNT_BIG", "MIN", "MAX", "SUM", "STRING_AGG"}
_OPTIONS = {
    "ARITHABORT", "ANSI_NULLS", "ANSI_WARNINGS", "ANSI_PADDING", "ANSI_NULL_DFLT_ON",
    "CONCAT_NULL_YIELDS_NULL", "CURSOR_CLOSE_ON_COMMIT", "IMPLICIT_TRANSACTIONS", "LOCK_TIMEOUT", "NOCOUNT",
    "NUMERIC_ROUNDABORT", "QUOTED_IDENTIFIER", "TEXTSIZE", "TRANSACTION", "XACT_ABORT", "DEADLOCK_PRIORITY",
}  # fmt: skip
"""What may be SET. Only options that leave alone what the stand-in answers, or whose other value it refuses."""


@dataclass
class _Token:
    kind: str
    text: str

    @property
    def upper(self) -> str:
        return self.text.upper() if self.kind in ("word", "sign") else ""


def _tokens(sql: str) -> list[_Token]:
    tokens, position = [], 0
    while position < len(sql):
        found = _TOKENS.match(sql, position)
        if not found:
            raise SqlError(102, f"Incorrect syntax near '{sql[position : position + 20]}'.", 15)
        if found.lastgroup != "space":
            tokens.append(_Token(str(found.lastgroup), found[0]))
        position = found.end()
    return tokens


def parse(sql: str) -> list[Any]:
    """The statements of a batch."""
    return _Parser(_tokens(sql)).batch()


@dataclass
class _Parser:
    tokens: list[_Token]
    position: int = field(default=0)

    # -- tokens

    def peek(self, ahead: int = 0) -> _Token:
        place = self.position + ahead
        return self.tokens[place] if place < len(self.tokens) else _Token("end", "")

    def next(self) -> _Token:
        token = self.peek()
        self.position += 1
        return token

    def at(self, *words: str) -> bool:
        """Whether the next tokens are these."""
        return all(self.peek(ahead).upper == word for ahead, word in enumerate(words))

    def accept(self, *words: str) -> bool:
        if self.at(*words):
            self.position += len(words)
            return True
        return False

    def expect(self, *words: str) -> None:
        for word in words:
            if not self.accept(word):
                raise self.unexpected()

    def either(self, one: str, other: str) -> None:
        if not self.accept(other):
            self.expect(one)

    def unexpected(self) -> SqlError:
        token = self.peek()
        if token.kind == "word" and token.upper in _RESERVED:
            return SqlError(156, f"Incorrect syntax near the keyword '{token.text.lower()}'.", 15)
        return SqlError(102, f"Incorrect syntax near '{token.text}'.", 15)

    def name(self) -> str:
        token = self.peek()
        if token.kind == "quoted":
            self.position += 1
            close = "]" if token.text[0] == "[" else '"'
            return token.text[1:-1].replace(close * 2, close)
        if token.kind == "word" and token.upper not in _RESERVED:
            self.position += 1
            return token.text
        raise self.unexpected()

    def path(self) -> tuple[str, ...]:
        parts = [self.name()]
        while self.accept("."):
            parts.append(self.name())
        return tuple(parts)

    def names(self) -> tuple[str, ...]:
        """Names in brackets; an ASC behind a name says nothing new."""
        self.expect("(")
        names = []
        while True:
            names.append(self.name())
            self.accept("ASC")
            if not self.accept(","):
                break
        self.expect(")")
        return tuple(names)

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        if self.peek().kind != "integer":
            raise self.unexpected()
        return sign * int(self.next().text)

    def separated(self, read: Any) -> tuple[Any, ...]:
        found = [read()]
        while self.accept(","):
            found.append(read())
        return tuple(found)

    # -- statements

    def batch(self) -> list[Any]:
        statements = []
        while self.peek().kind != "end":
            if not self.accept(";"):
                statements.append(self.statement())
        return statements

    def statement(self) -> Any:
        if self.at("SELECT"):
            query = self.query()
            if self.peek().kind != "end" and not self.at(";") and self.peek().upper not in _RESERVED:
                raise self.unexpected()
            return query
        word = self.peek().upper
        reader = {
            "INSERT": self.insert,
            "UPDATE": self.update,
            "DELETE": self.delete,
            "CREATE": self.create,
            "ALTER": self.alter,
            "DROP": self.drop,
            "SET": self.option,
            "USE": self.use,
            "WAITFOR": self.wait,
        }.get(word)
        if reader is None:
            raise refusal(f"a statement that starts with {self.peek().text}")
        return reader()

    def insert(self) -> Insert:
        self.expect("INSERT")
        self.accept("INTO")
        table = self.path()
        columns = self.names() if self.at("(") else ()
        if self.at("SELECT"):
            return Insert(table, columns, (), self.query())
        self.expect("VALUES")

        def row() -> tuple[Any, ...]:
            self.expect("(")
            values = self.separated(self.expression)
            self.expect(")")
            return values

        return Insert(table, columns, self.separated(row), None)

    def update(self) -> Update:
        self.expect("UPDATE")
        table = self.path()
        self.expect("SET")

        def change() -> tuple[str, Any]:
            column = self.name()
            self.expect("=")
            return column, self.expression()

        changes = self.separated(change)
        if self.at("FROM"):
            raise refusal("UPDATE … FROM")
        return Update(table, changes, self.expression() if self.accept("WHERE") else None)

    def delete(self) -> Delete:
        self.expect("DELETE")
        self.accept("FROM")
        return Delete(self.path(), self.expression() if self.accept("WHERE") else None)

    def create(self) -> Any:
        self.expect("CREATE")
        if self.accept("VIEW"):
            view = self.path()
            self.expect("AS")
            return CreateView(view, self.query())
        if not self.accept("TABLE"):
            raise refusal(f"CREATE {self.peek().text}")
        return self.table()

    def table(self) -> CreateTable:
        path, columns, keys = self.path(), [], []
        self.expect("(")
        while True:
            if self.peek().upper in ("CONSTRAINT", "PRIMARY", "UNIQUE"):
                keys.append(self.key(path, ()))
            else:
                column, own = self.column(path)
                columns.append(column)
                keys += own
            if not self.accept(","):
                break
        self.expect(")")
        return CreateTable(path, tuple(columns), tuple(keys))

    def key(self, table: tuple[str, ...], columns: tuple[str, ...]) -> Key:
        name = self.name() if self.accept("CONSTRAINT") else ""
        primary = self.accept("PRIMARY", "KEY")
        if not primary and not self.accept("UNIQUE"):
            raise refusal(f"the constraint {self.peek().text}")
        _ = self.accept("CLUSTERED") or self.accept("NONCLUSTERED")
        columns = columns or self.names()
        return Key(name or f"{'PK' if primary else 'UQ'}_{table[-1]}_{'_'.join(columns)}", columns, primary)

    def column(self, table: tuple[str, ...]) -> tuple[NewColumn, list[Key]]:
        name, kind = self.name(), self.type()
        nullable, keys = True, []
        while True:
            if self.accept("COLLATE"):
                kind = SqlType(kind.name, kind.length, collation=_collation(self.name()))
            elif self.accept("NOT", "NULL"):
                nullable = False
            elif self.accept("NULL"):
                nullable = True
            elif self.peek().upper in ("CONSTRAINT", "PRIMARY", "UNIQUE"):
                keys.append(self.key(table, (name,)))
            else:
                break
        return NewColumn(name, kind, nullable), keys

    def alter(self) -> AlterTable:
        self.expect("ALTER", "TABLE")
        table = self.path()
        if not self.accept("ADD"):
            raise refusal(f"ALTER TABLE … {self.peek().text}")
        column, keys = self.column(table)
        if keys:
            raise refusal("ALTER TABLE … ADD with a key")
        return AlterTable(table, column)

    def drop(self) -> Drop:
        self.expect("DROP")
        kind = self.next().upper
        if kind not in ("TABLE", "VIEW"):
            raise refusal(f"DROP {kind}")
        return Drop(kind, if_exists=self.accept("IF", "EXISTS"), path=self.path())

    def option(self) -> SetOption:
        self.expect("SET")
        words = []
        while (self.peek().kind in ("word", "integer") and self.peek().upper not in _RESERVED - {"ON"}) or self.at(","):
            if self.at("SET"):
                break
            words.append(self.next().text.upper())
        if self.accept("-"):
            words.append(f"-{self.integer()}")
        options, value = words[: words.index("ON") if "ON" in words else -1], words[-1] if words else ""
        unknown = [word for word in options if word not in _OPTIONS and word != "," and options[0] != "TRANSACTION"]
        changing = {"IMPLICIT_TRANSACTIONS": "ON", "ANSI_NULLS": "OFF", "CONCAT_NULL_YIELDS_NULL": "OFF"}
        changing |= {"QUOTED_IDENTIFIER": "OFF", "ANSI_PADDING": "OFF"}
        if not options or unknown or any(changing.get(option) == value for option in options):
            raise refusal(f"SET {' '.join(words)}")
        return SetOption(" ".join(words))

    def use(self) -> Use:
        self.expect("USE")
        return Use(self.name())

    def wait(self) -> WaitFor:
        self.expect("WAITFOR", "DELAY")
        token = self.next()
        found = re.fullmatch(r"'(\d\d):(\d\d):(\d\d(?:\.\d{1,3})?)'", token.text)
        if not found:
            raise refusal(f"WAITFOR DELAY {token.text}")
        return WaitFor(int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]))

    # -- queries

    def query(self) -> Query:
        """A SELECT."""
        self.expect("SELECT")
        if self.at("DISTINCT"):
            raise refusal("DISTINCT")
        top = None
        if self.accept("TOP"):
            bracket = self.accept("(")
            top = Constant(self.integer(), SqlType("int"))
            if bracket:
                self.expect(")")
            if self.at("PERCENT") or self.at("WITH"):
                raise refusal("TOP … PERCENT, WITH TIES")
        items = self.separated(self.item)
        source = self.source() if self.accept("FROM") else None
        where = self.expression() if self.accept("WHERE") else None
        groups = self.separated(self.expression) if self.accept("GROUP", "BY") else ()
        orders = self.orders() if self.accept("ORDER", "BY") else ()
        for word in ("INTO", "HAVING", "OFFSET", "UNION", "EXCEPT", "INTERSECT", "FOR"):
            if self.at(word):
                raise refusal(word)
        return Query(items, source, where, groups, orders, top)

    def item(self) -> tuple[Any, str]:
        if self.accept("*"):
            return Star(), ""
        expression = self.expression()
        if isinstance(expression, Star):
            return expression, ""
        if self.at("="):
            raise refusal("an alias with =")
        if self.accept("AS") or self.peek().kind == "quoted" or self.plain_word():
            return expression, self.name()
        return expression, ""

    def plain_word(self) -> bool:
        return self.peek().kind == "word" and self.peek().upper not in _RESERVED

    def orders(self) -> tuple[Order, ...]:
        def order() -> Order:
            expression = self.expression()
            descending = self.accept("DESC")
            self.accept("ASC")
            return Order(expression, descending)

        return self.separated(order)

    def source(self) -> Any:
        left = self.one_source()
        while True:
            if self.at(","):
                raise refusal("a comma between tables; write CROSS JOIN")
            if self.accept("CROSS", "APPLY"):
                left = Join("CROSS APPLY", left, self.one_source(), None)
            elif self.accept("CROSS", "JOIN"):
                left = Join("CROSS", left, self.one_source(), None)
            elif self.at("JOIN") or self.at("INNER") or self.at("LEFT"):
                kind = "LEFT" if self.accept("LEFT") else "INNER"
                _ = self.accept("INNER") or self.accept("OUTER")
                self.expect("JOIN")
                right = self.one_source()
                self.expect("ON")
                left = Join(kind, left, right, self.expression())
            elif self.at("RIGHT") or self.at("FULL"):
                raise refusal(f"{self.peek().text} JOIN")
            else:
                return left

    def one_source(self) -> Any:
        if self.accept("("):
            query = self.query()
            self.expect(")")
            self.accept("AS")
            alias = self.name()  # a derived table must have one
            if self.at("("):
                raise refusal("a list of columns behind a table's alias")
            return Derived(query, alias)
        path = self.path()
        if path[-1].upper() == "GENERATE_SERIES" and len(path) == 1 and self.accept("("):
            first = self.expression()
            self.expect(",")
            last = self.expression()
            self.expect(")")
            return Series(first, last, self.alias(path[-1]))
        if ".".join(path).lower() == "sys.dm_exec_describe_first_result_set" and self.accept("("):
            sql = self.expression()
            self.expect(",", "NULL", ",")
            if self.integer():
                raise refusal("browse information")
            self.expect(")")
            return Described(sql, self.alias(path[-1]))
        alias = self.alias(path[-1])
        return Named(path, alias)

    def alias(self, otherwise: str) -> str:
        if self.accept("AS") or self.peek().kind == "quoted" or self.plain_word():
            return self.name()
        return otherwise

    # -- expressions

    def expression(self) -> Any:
        left = self.conjunction()
        while self.accept("OR"):
            left = Binary("OR", left, self.conjunction())
        return left

    def conjunction(self) -> Any:
        left = self.negation()
        while self.accept("AND"):
            left = Binary("AND", left, self.negation())
        return left

    def negation(self) -> Any:
        return Unary("NOT", self.negation()) if self.accept("NOT") else self.predicate()

    def predicate(self) -> Any:
        left = self.sum()
        for sign in ("=", "<>", "!=", "<=", ">=", "<", ">"):
            if self.accept(sign):
                return Binary("<>" if sign == "!=" else sign, left, self.sum())
        if self.accept("IS"):
            negated = self.accept("NOT")
            self.expect("NULL")
            return IsNull(left, negated)
        if self.accept("BETWEEN"):
            low = self.sum()
            self.expect("AND")
            return Binary("AND", Binary(">=", left, low), Binary("<=", left, self.sum()))
        for word in ("IN", "LIKE"):
            if self.at(word):
                raise refusal(word)
        return left

    def sum(self) -> Any:
        left = self.product()
        while self.at("+") or self.at("-"):
            left = Binary(self.next().text, left, self.product())
        return left

    def product(self) -> Any:
        left = self.signed()
        while self.at("*") or self.at("/") or self.at("%"):
            left = Binary(self.next().text, left, self.signed())
        return left

    def signed(self) -> Any:
        if self.accept("-"):
            return Unary("-", self.signed())
        self.accept("+")
        operand = self.primary()
        while self.accept("COLLATE"):
            operand = Collate(operand, _collation(self.name()))
        return operand

    def primary(self) -> Any:
        token = self.peek()
        constant = _constant(token)
        if constant is not None:
            self.position += 1
            return constant
        if token.kind == "variable":
            return Variable(self.next().text.lower())
        if self.accept("("):
            if self.at("SELECT"):
                raise refusal("a query as a value")
            inner = self.expression()
            self.expect(")")
            return inner
        if self.accept("NULL"):
            return Constant(None, None)
        if self.accept("CASE"):
            return self.case()
        if token.kind == "word" and self.peek(1).upper == "(":
            return self.call()
        if token.upper in ("LEFT", "RIGHT") and self.peek(1).upper == "(":
            return self.call()
        path = [self.name()]
        while self.accept("."):
            if self.accept("*"):
                return Star(path[-1])
            path.append(self.name())
        return Column(tuple(path))

    def case(self) -> Case:
        operand = None if self.at("WHEN") else self.expression()
        whens = []
        while self.accept("WHEN"):
            test = self.expression()
            self.expect("THEN")
            whens.append((test if operand is None else Binary("=", operand, test), self.expression()))
        otherwise = self.expression() if self.accept("ELSE") else Constant(None, None)
        self.expect("END")
        return Case(tuple(whens), otherwise)

    def call(self) -> Any:
        name = self.next().text.upper()
        self.expect("(")
        if name == "CAST":
            operand = self.expression()
            self.expect("AS")
            kind = self.type(30)
            self.expect(")")
            return Convert(operand, kind, None)
        if name == "CONVERT":
            kind = self.type(30)
            self.expect(",")
            operand = self.expression()
            style = self.integer() if self.accept(",") else None
            self.expect(")")
            return Convert(operand, kind, style)
        distinct = self.accept("DISTINCT")
        arguments: tuple[Any, ...] = ()
        if name in ("COUNT", "COUNT_BIG") and self.accept("*"):
            arguments = (Star(),)
        elif not self.at(")"):
            arguments = self.separated(self.expression)
        self.expect(")")
        within: tuple[Order, ...] = ()
        if self.accept("WITHIN"):
            self.expect("GROUP", "(", "ORDER", "BY")
            within = self.orders()
            self.expect(")")
        over = None
        if self.accept("OVER"):
            self.expect("(")
            over = self.orders() if self.accept("ORDER", "BY") else ()
            self.expect(")")
        if distinct and name not in _AGGREGATES:
            raise SqlError(156, "Incorrect syntax near the keyword 'distinct'.", 15)
        return Call(name, arguments, distinct, within, over)

    def type(self, length: int = 1) -> SqlType:
        """A declared type; `length` is that of a text or binary type without one."""
        name, arguments = self.name(), []
        if self.accept("("):
            while not self.accept(")"):
                if (token := self.next()).text != ",":
                    arguments.append(token.text)
        kind = declared(name, arguments)
        if kind.length is not None and not arguments and kind.length == 1:
            return SqlType(kind.name, length)
        return kind


def _collation(name: str) -> str:
    if name.upper().endswith("_BIN2"):
        return "binary"
    if name.upper() in ("DATABASE_DEFAULT", "SQL_LATIN1_GENERAL_CP1_CI_AS"):
        return "default"
    raise refusal(f"the collation {name}")


def _constant(token: _Token) -> Constant | None:
    """A literal with the type SQL Server gives it."""
    text = token.text
    if token.kind in ("text", "wide"):
        value = text[text.index("'") + 1 : -1].replace("''", "'")
        units = len(value.encode("utf-16-le")) // 2
        name, limit = ("nvarchar", 4000) if token.kind == "wide" else ("varchar", 8000)
        return Constant(value, SqlType(name, MAX if units > limit else max(1, units)))
    if token.kind == "binary":
        data = bytes.fromhex(text[2:] if len(text) % 2 == 0 else "0" + text[2:])
        return Constant(data, SqlType("varbinary", max(1, len(data))))
    if token.kind == "integer" and int(text) < 2**31:
        return Constant(int(text), SqlType("int"))
    if token.kind in ("integer", "decimal"):
        number = Decimal(text)
        _, digits, exponent = number.as_tuple()
        scale = max(0, -int(exponent))
        precision = max(len(digits), scale, 1)
        return Constant(number, SqlType("decimal", precision=precision, scale=scale))
    if token.kind == "float":
        return Constant(float(text), SqlType("float"))
    return None
