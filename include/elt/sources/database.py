"""Tables, views and queries of a database; what PostgreSQL and SQL Server have in common.

The server itself casts every column to text. The rows travel in blocks (`blocks.py`), in one or several parts at the
same time. Where rows are too wide for blocks they travel one by one, and the server counts them in the same statement.

How the SQL of all that is spelt is the matter of a `Dialect`.
"""

from __future__ import annotations

import csv
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol
from uuid import uuid4

from include.elt.cast import CastResult
from include.elt.contract import Column, Contract
from include.elt.csvfile import survey
from include.elt.early import Early, later
from include.elt.errors import DataError, ExtractError
from include.elt.modes import Reading, Window
from include.elt.replication import Stream
from include.elt.settings import Settings
from include.elt.sling import SlingRun
from include.elt.sources.blocks import BLOCK, END, TOO_LARGE, unwrap
from include.elt.sources.files import check_text
from include.elt.text import Place, TextFile

log = logging.getLogger(__name__)

COUNT = "elt__rows"
"""Column of a query row by row: how many rows the statement has in all."""

_TOO_LARGE = (TOO_LARGE, "record on line", "bufio.Scanner: token too long")
"""What we or Sling say of a block of very wide rows."""

_SAMPLE = "10"
"""Records that Sling holds in memory to guess types before it writes the first one; all types are given. Its own
choice, 900, would be all blocks of a million rows."""


@dataclass(frozen=True)
class SourceColumn:
    """A column of a source.

    Attributes:
        name: as the source spells it.
        data_type: its type in the source's own words.
        contract_type: the contract type that holds every value of it.
        nullable: whether it may be NULL, as far as is known.
    """

    name: str
    data_type: str
    contract_type: str
    nullable: bool = True


@dataclass(frozen=True)
class Relation:
    """What is read of a database.

    Attributes:
        label: what a message calls it.
        sql: it in a FROM clause.
        table: schema and name, quoted, where it is a table or view; None for a query.
        where: the stream's own condition.
    """

    label: str
    sql: str
    table: str | None
    where: str | None


@dataclass(frozen=True)
class Way:
    """One way to read rows.

    Attributes:
        name: for the log, e.g. `in blocks of 16 pages`.
        sql: the query.
        blocks: whether it gives `BLOCK`, or each row with `COUNT`.
    """

    name: str
    sql: str
    blocks: bool


class Dialect(Protocol):
    """How a kind of database is asked."""

    @property
    def connection(self) -> str:
        """Id of the connection, for messages."""

    def sling(self) -> Mapping[str, Any]:
        """Properties of the Sling connection."""

    def variables(self) -> Mapping[str, str]:
        """Environment variables of the Sling process."""

    def secrets(self) -> Sequence[str]:
        """What must never be printed."""

    @property
    def encoding(self) -> str:
        """Encoding of a block's text under its SHA-256."""

    @property
    def quote(self) -> str:
        """The character around texts in a block."""

    def too_large(self, message: str) -> bool:
        """Whether an error says that a block is larger than the server can make."""

    def relation(self, stream: Stream, window: Window | None) -> Relation:
        """What a stream reads; in a query the placeholders are filled with the window."""

    def columns(self, relation: Relation) -> tuple[SourceColumn, ...]:
        """The columns of a relation, in their order.

        Raises:
            SourceRefusedError: it is not there, or we may not read it.
            ExtractError: the server cannot be reached.
        """

    def largest(self, relation: Relation, condition: str, column: SourceColumn) -> str | None:
        """The largest value of a column, among the rows that fit a condition, as text; None where there is none."""

    def count(self, relation: Relation, condition: str) -> int:
        """Rows that fit a condition."""

    def bounds(self, relation: Relation, condition: str, column: SourceColumn, parts: int) -> list[str]:
        """Values, ascending and different, that cut the rows into about equal parts; fewer where there are few."""

    def within(self, column: SourceColumn, window: Window) -> str:
        """The condition of a window; one without an upper limit holds NULL alone."""

    def part(self, column: SourceColumn, lower: str | None, upper: str | None) -> str:
        """The condition of a part: from `lower` on, below `upper`; the part without a lower limit holds NULL."""

    def ways(self, relation: Relation, columns: Mapping[str, SourceColumn | None], condition: str) -> Iterator[Way]:
        """Ways to read the rows that fit a condition, the best one first and row by row as the last.

        Args:
            relation: what is read.
            columns: the wanted columns in order, by the name they are to have; None is read as NULL.
            condition: SQL condition, `""` for all rows.
        """


class DatabaseSource:
    """A stream that reads a table, a view or a query.

    Args:
        stream: the stream.
        contract: columns of its raw table.
        settings: Sling binary and timeout.
        dialect: the database.
        way: index of the only way to use; for tests. By default the best one that works.
    """

    def __init__(
        self, stream: Stream, contract: Contract, settings: Settings, dialect: Dialect, way: int | None = None
    ) -> None:
        self.stream = stream
        self.contract = contract
        self.settings = settings
        self.dialect = dialect
        self.way = way
        self._slings: list[SlingRun] = []
        self._killed = False

    def kill(self) -> None:
        """End the running Sling processes."""
        self._killed = True
        for sling in self._slings:
            sling.kill()

    def deliver(self, work: Path, null: str, reading: Reading, early: Early = later) -> DatabaseDelivery:
        """Let Sling write the rows of a reading as text."""
        relation = self.dialect.relation(self.stream, reading.window)
        columns = self.dialect.columns(relation)
        contract = self._agreed(columns, merges=reading.merges)
        there = {column.name.lower(): column for column in columns}
        window = self._closed(relation, reading.window, there)
        if window != reading.window:
            relation = self.dialect.relation(self.stream, window)
        conditions = [self.dialect.within(there[window.column], window)] if window else []
        wanted = [there.get(name) for name in contract.names]
        key = there[self.stream.primary_key[0]]
        # Parts are read at different moments. Without an upper limit a later one could push the watermark beyond what
        # an earlier one saw, so a full refresh of a stream that goes on from its watermark is one statement.
        parallel = 1 if window is None and self.stream.has_ranges else self.stream.meta.parallel
        read = self._read(relation, work, null, contract, wanted, conditions, key, parallel, early)
        keys = source_rows = None
        if self.stream.meta.deletes != "ignore" and reading.mode == "incremental":
            only = contract.only(self.stream.primary_key)
            everything = self.dialect.relation(self.stream, None)
            key_columns = [there[name] for name in only.names]
            keys = self._read(everything, work, null, only, key_columns, [], key, 1, later).text
        if self.stream.meta.reconcile is not None and reading.mode != "backfill":  # which says nothing of the rest
            until = replace(window, lower=None) if window else None
            whole = self.dialect.relation(self.stream, until)
            limit = self.dialect.within(there[until.column], until) if until else ""
            source_rows = self.dialect.count(whole, all_of([whole.where, limit]))
        return DatabaseDelivery(
            read.text,
            read.rows,
            read.characters,
            self.stream,
            self.dialect.connection,
            contract,
            window,
            keys,
            source_rows,
            tuple((column.name, column.data_type) for column in columns),
        )

    def _agreed(self, columns: Sequence[SourceColumn], *, merges: bool) -> Contract:
        """The contract of this extraction: that of the raw table, or what `meta.on_schema_change` makes of it."""
        label, policy = self.stream.label, self.stream.meta.on_schema_change
        names = [column.name.lower() for column in columns]
        if twins := sorted({name for name in names if names.count(name) > 1 and name in self.contract.names}):
            raise DataError(f"{label}: the column {twins[0]} is there twice, in upper and lower case; choose with sql")
        chosen = self.stream.selected(names)
        missing = [name for name in self.contract.names if name not in chosen]
        extra = [column for column in columns if column.name.lower() in set(chosen) - set(self.contract.names)]
        if missing and (policy != "ignore" or {*missing} & {*self.stream.primary_key, self.stream.update_key}):
            renamed = f" Was it renamed to {extra[0].name}?" if len(missing) == len(extra) == 1 else ""
            raise DataError(
                f"{label}: no column {', '.join(missing)}; the contract {self.contract.table} wants it.{renamed}"
                f" The source has {', '.join(column.name for column in columns)}"
            )
        if extra and policy == "fail":
            raise DataError(
                f"{label}: the source has {', '.join(f'{each.name} ({each.data_type})' for each in extra)}, which the"
                f" contract {self.contract.table} does not. Add it there, or leave it out: select for the stream, or"
                " meta.on_schema_change: ignore"
            )
        if missing:
            log.warning("%s: no column %s; it stays NULL", label, ", ".join(missing))
            if merges:  # what the raw table holds of it is kept
                return self.contract.only(tuple(name for name in self.contract.names if name not in missing))
        if extra and policy in ("add", "ask"):
            found = [Column(each.name.lower(), each.contract_type) for each in extra]
            log.warning(
                "%s: new in the source, for the raw table: %s; add it to the contract in %s",
                *(label, ", ".join(f"{each.name} {each.data_type}" for each in found), self.contract.file.name),
            )
            return replace(self.contract, columns=(*self.contract.columns, *found))
        return self.contract

    def _closed(self, relation: Relation, window: Window | None, there: Mapping[str, SourceColumn]) -> Window | None:
        """The window with its upper limit: the largest update key that the source holds now."""
        if window is None or window.upper is not None:
            return window
        return replace(window, upper=self.dialect.largest(relation, relation.where or "", there[window.column]))

    def _read(
        self,
        relation: Relation,
        work: Path,
        null: str,
        contract: Contract,
        columns: Sequence[SourceColumn | None],
        conditions: list[str],
        key: SourceColumn,
        parallel: int,
        early: Early,
    ) -> _Text:
        """Let Sling write rows as text, several parts of them at the same time."""
        header = contract.names
        canonical = frozenset(
            wanted.name
            for wanted, column in zip(contract.columns, columns, strict=True)
            if column and wanted.holds(column.contract_type)
        )
        everything = all_of([relation.where, *conditions])
        bounds = self.dialect.bounds(relation, everything, key, parallel) if parallel > 1 else []
        limits = [None, *bounds, None]
        parts = [
            all_of([everything, self.dialect.part(key, lower, upper) if bounds else ""])
            for lower, upper in pairwise(limits)
        ]

        def take(text: TextFile, rows: int) -> None:
            early(contract, replace(text, canonical=canonical), rows)

        def read(condition: str) -> _Text:
            part = Path(mkdtemp(prefix="part-", dir=work))
            return self._read_part(part, relation, null, header, columns, condition, take)

        with ThreadPoolExecutor(len(parts)) as pool:
            running = [pool.submit(read, condition) for condition in parts]
            try:
                texts = [each.result() for each in running]
            except BaseException:  # the first error tells; the other parts are of no use any more
                self.kill()
                raise
        if len({text.text.null for text in texts}) > 1:  # one part went row by row: all have to, to be read as one
            texts = [self._read_part(work, relation, null, header, columns, everything, take, last_way=True)]
        whole = _Text.joined(texts)
        return replace(whole, text=replace(whole.text, canonical=canonical))

    def _read_part(
        self,
        work: Path,
        relation: Relation,
        null: str,
        header: tuple[str, ...],
        columns: Sequence[SourceColumn | None],
        condition: str,
        take: Callable[[TextFile, int], None],
        *,
        last_way: bool = False,
    ) -> _Text:
        """Let one Sling process write rows as text, in the best way that works."""
        ways = list(self.dialect.ways(relation, dict(zip(header, columns, strict=True)), condition))
        if self.way is not None:
            ways = [ways[self.way]]
        for way in ways[-1:] if last_way else ways:
            log.info("%s: %s %s", self.stream.id, relation.label, way.name)
            try:
                if way.blocks:
                    return self._read_blocks(work, way.sql, header, take)
                return self._read_rows(work, way.sql, header, null)
            except (ExtractError, csv.Error) as error:
                if way is ways[-1] or not self._is_too_large(str(error)):
                    raise
                log.warning("%s: rows too wide to travel %s; another way is taken", relation.label, way.name)
        raise AssertionError("the last way returns or raises")

    def _is_too_large(self, message: str) -> bool:
        return self.dialect.too_large(message) or any(sign in message for sign in _TOO_LARGE)

    def _read_blocks(
        self, work: Path, sql: str, header: tuple[str, ...], take: Callable[[TextFile, int], None]
    ) -> _Text:
        """Let Sling write blocks, and unwrap their lines."""
        blocks, ended = work / "blocks.csv", threading.Event()

        def unwrapped() -> Iterator[_Text]:
            encoding, quote = self.dialect.encoding, self.dialect.quote
            for piece in unwrap(blocks, work, header, self.stream.label, encoding, quote, ended.is_set):
                text = TextFile((piece.file,), (*header, END), "", "", piece.longest, quote=quote)
                take(text, piece.rows)
                yield _Text(text, piece.rows, None)

        try:
            with ThreadPoolExecutor(1) as beside:
                pieces = beside.submit(lambda: list(unwrapped()))
                try:  # an error of Sling explains what is missing, so it is told first
                    self._run_sling(work, sql, blocks, BLOCK, uuid4().hex)
                finally:
                    ended.set()
            return _Text.joined(pieces.result())
        finally:
            blocks.unlink(missing_ok=True)

    def _read_rows(self, work: Path, sql: str, header: tuple[str, ...], null: str) -> _Text:
        """Let Sling write each row as a record."""
        text, columns = work / "text.csv", (*header, COUNT)
        self._run_sling(work, sql, text, columns, null)
        found = survey(text, columns, ",", null)
        with text.open(encoding="utf-8", newline="\n") as lines:
            records = csv.DictReader(lines, strict=True)
            first = next(records, None)
        told = int(first[COUNT]) if first else 0
        if told != found.rows:
            raise ExtractError(
                f"{self.stream.label}: the server counted {told:,} rows, but Sling delivered {found.rows:,};"
                " nothing was loaded"
            )
        characters = found.characters - found.rows * len(str(told))
        return _Text(TextFile((text,), columns, null, "", found.longest), found.rows, characters)

    def _run_sling(self, work: Path, query: str, target: Path, header: tuple[str, ...], null: str) -> None:
        """Let Sling write the answer to a query as text."""
        sling = SlingRun(
            self.settings.sling(),
            Path(mkdtemp(prefix="sling-", dir=work)),
            {"SOURCE": self.dialect.sling(), "LAKE": {"type": "file", "null_as": null}},
            secrets=self.dialect.secrets(),
            variables={**self.dialect.variables(), "SLING_SAMPLE_SIZE": _SAMPLE},
        )
        self._slings.append(sling)
        if self._killed:
            raise ExtractError(f"{self.stream.label}: the extraction was stopped")
        target.unlink(missing_ok=True)
        config = {
            "mode": "full-refresh",
            "sql": query,
            "object": f"file://{target}",
            "columns": dict.fromkeys(header, "string"),
        }
        sling.run("SOURCE", "LAKE", self.stream.id, config, self.settings.extract_timeout)
        check_text(self.stream, target, header)


def within(name: str, window: Window, literal: Callable[[str], str], *, nullable: bool) -> str:
    """The condition of a window; see `Dialect.within`.

    Args:
        name: the column, quoted.
        window: the range.
        literal: spells a value of the column.
        nullable: whether the column may be NULL.
    """
    if window.upper is None:
        return f"{name} IS NULL"
    limits = [] if window.lower is None else [f"{name} >= {literal(window.lower)}"]
    limits.append(f"{name} {'<=' if window.closed else '<'} {literal(window.upper)}")
    inside = " AND ".join(limits)
    return f"{inside} OR {name} IS NULL" if nullable else inside


def part(name: str, lower: str | None, upper: str | None, literal: Callable[[str], str]) -> str:
    """The condition of a part; see `Dialect.part`.

    Args:
        name: the column, quoted.
        lower: its smallest value; None for the first part, which holds NULL.
        upper: the smallest value of the next part; None for the last part.
        literal: spells a value of the column.
    """
    limits = [] if lower is None else [f"{name} >= {literal(lower)}"]
    limits += [] if upper is None else [f"{name} < {literal(upper)}"]
    inside = " AND ".join(limits)
    return f"{inside} OR {name} IS NULL" if lower is None else inside


def all_of(conditions: Iterable[str | None]) -> str:
    """Conditions that all have to hold, as one; each in brackets, so that an OR stays its own."""
    given = [condition for condition in conditions if condition]
    return given[0] if len(given) == 1 else " AND ".join(f"({condition})" for condition in given)


@dataclass(frozen=True)
class _Text:
    """Text of rows.

    Attributes:
        text: the text.
        rows: its rows, as the server counted them.
        characters: characters of its values; None where each byte is proven already.
    """

    text: TextFile
    rows: int
    characters: int | None

    @classmethod
    def joined(cls, texts: Sequence[_Text]) -> _Text:
        """The text of several parts, all written in the same way."""
        first = texts[0]
        characters = None if first.characters is None else sum(each.characters or 0 for each in texts)
        whole = replace(
            first.text,
            paths=tuple(path for each in texts for path in each.text.paths),
            longest=max(each.text.longest for each in texts),
        )
        return cls(whole, sum(each.rows for each in texts), characters)


@dataclass(frozen=True)
class DatabaseDelivery:
    """What Sling delivered of a relation; see `Delivery`."""

    text: TextFile
    rows: int
    characters: int | None
    stream: Stream
    connection: str
    contract: Contract
    window: Window | None
    keys: TextFile | None
    source_rows: int | None
    source_columns: tuple[tuple[str, str], ...]

    @property
    def exact(self) -> bool:
        """Blocks are proven byte by byte."""
        return self.characters is None

    def describe(self) -> dict[str, Any]:
        """The connection and what is read through it."""
        return {"connection": self.connection, "query" if self.stream.sql else "table": self.stream.name}

    def locate(self, rows: Iterable[int]) -> Mapping[int, Place]:  # noqa: ARG002  (a table has none)
        """A table has no files."""
        return {}

    def compare(self) -> None:
        """What Sling delivered was compared with the server's own figures when it came."""

    def accept(self, result: CastResult) -> None:
        """The cast has to have read what was delivered."""
        counted = (result.rows_read, result.characters if self.characters is not None else None)
        if (self.rows, self.characters) != counted:
            raise ExtractError(
                f"{self.stream.label}: {self.rows:,} rows were delivered, but {result.rows_read:,} rows were cast, or"
                " their characters differ; nothing was loaded"
            )
