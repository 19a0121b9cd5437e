"""PostgreSQL tables and views.

Sling runs a query in which the server itself casts every column of the contract to text, so that no type is guessed on
the way. The server counts the rows before and after.

Sling's cost is per record, whatever is in it (about 5 µs, Sling 1.4.11). So a larger table travels in blocks:
the server writes the rows of some pages as CSV and hands Sling each block as one record of one text column. One
statement is one snapshot, a range of pages is found without an index, and the server streams. What has no pages (views,
partitioned tables) or no range scan over them (PostgreSQL before 14) travels row by row.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from uuid import uuid4

import psycopg

from include.elt.cast import CastResult
from include.elt.connections.postgres import PostgresConnection
from include.elt.contract import Contract
from include.elt.csvfile import LARGEST_FIELD, Survey, survey
from include.elt.errors import DataError, ExtractError, SourceRefusedError
from include.elt.modes import Reading, Window
from include.elt.replication import Stream
from include.elt.settings import Settings
from include.elt.sling import SlingRun, redact
from include.elt.sources.files import check_text
from include.elt.sql import literal, quoted
from include.elt.text import TextFile

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 30
"""Seconds."""

SMALL = 20_000
"""Rows from which on a table travels in blocks; below, nothing would be gained."""

BLOCK = 128 * 1024
"""Bytes on disk of a block. Compressed values grow on their way, and a value in PostgreSQL ends at 1 GB."""

_TOO_LARGE = ("invalid memory alloc request size", "out of memory", "field larger than field limit")
"""What PostgreSQL, or Python's CSV reader, says of a block of very wide rows."""

_BLOCK = "block"
"""Name of the one column of blocks."""

_REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "permission denied",
    "is not permitted to log in",
)
"""Parts of messages that tell of something another try does not mend; a failed log-in has no SQLSTATE."""


class PostgresSource:
    """A stream that reads one table or view.

    Args:
        stream: the stream; its name is `schema.table`.
        contract: the columns that are read. The table may have others.
        settings: Sling binary and timeout.
        connection: the database.
        blocks: whether the table travels in blocks; None for what suits its size.
    """

    def __init__(
        self,
        stream: Stream,
        contract: Contract,
        settings: Settings,
        connection: PostgresConnection,
        blocks: bool | None = None,
    ) -> None:
        self.stream = stream
        self.contract = contract
        self.settings = settings
        self.connection = connection
        self.blocks = blocks
        self._sling: SlingRun | None = None

    def kill(self) -> None:
        """End a running Sling process."""
        if self._sling is not None:
            self._sling.kill()

    def deliver(self, work: Path, null: str, reading: Reading) -> PostgresDelivery:  # noqa: ARG002
        """Let Sling write the table as text, and count it before and after."""
        before = self._count()
        pages = self._pages_per_block() if self.blocks is None or self.blocks else 0
        if (self.blocks is None and before < SMALL) or len(self.contract.columns) == 1:
            pages = 0  # with one column a NULL would be an empty line, which is no record
        way = f"in blocks of {pages} pages" if pages else "row by row"
        log.info("%s: %s rows in %s, %s", self.stream.id, f"{before:,}", self.stream.name, way)
        text, header = work / "text.csv", self.contract.names
        if pages and self._deliver_blocks(work, pages, text):
            null = ""
        else:
            self._run_sling(work, self.query(), text, header, null)
        delivered = survey(text, header, ",", null or None)
        after = self._count()
        return PostgresDelivery(
            TextFile((text,), header, null, "", delivered.longest),
            self.stream,
            self.connection.name,
            delivered,
            (min(before, after), max(before, after)),
        )

    def _deliver_blocks(self, work: Path, pages: int, text: Path) -> bool:
        """Let Sling write the table in blocks, and unwrap them; False where a block is too large."""
        blocks = work / "blocks.csv"
        try:
            self._run_sling(work, self.query_of_blocks(pages), blocks, (_BLOCK,), uuid4().hex)
            _unwrap(blocks, text, self.contract.names)
        except (ExtractError, csv.Error) as error:
            if not any(sign in str(error) for sign in _TOO_LARGE):
                raise
            log.warning("%s: its rows are too wide for blocks; row by row instead", self.stream.name)
            return False
        finally:
            blocks.unlink(missing_ok=True)
        return True

    def query(self) -> str:
        """The query for the way row by row: the contract's columns as text, in its order."""
        columns = ", ".join(f"{quoted(name)}::text AS {quoted(name)}" for name in self.contract.names)
        return f"SELECT {columns} FROM {quoted(self.stream.name)}"

    def query_of_blocks(self, pages: int) -> str:
        """The query for the way in blocks: CSV of some pages per record. NULL is an empty field, '' one with quotes.

        Args:
            pages: pages of the table per block.
        """
        fields = " || chr(44) || ".join(
            f"""coalesce('"' || replace({quoted(name)}::text, '"', '""') || '"', '')""" for name in self.contract.names
        )
        table = quoted(self.stream.name)
        size = f"pg_relation_size({literal(table)}::regclass) / current_setting('block_size')::bigint"
        return (
            f"SELECT coalesce((SELECT string_agg({fields}, chr(10)) FROM ONLY {table}"
            f" WHERE ctid >= format('(%s,0)', page)::tid AND ctid < format('(%s,0)', page + {pages})::tid), '')"
            f" AS {_BLOCK} FROM generate_series(0, {size}, {pages}) AS page"
        )

    def _run_sling(self, work: Path, query: str, target: Path, header: tuple[str, ...], null: str) -> None:
        """Let Sling write the answer to a query as text."""
        sling = self._sling = SlingRun(
            self.settings.sling(),
            Path(mkdtemp(prefix="sling-", dir=work)),
            {"SOURCE": self.connection.sling(), "LAKE": {"type": "file", "null_as": null}},
            secrets=[self.connection.password],
            variables=self.connection.variables(),
        )
        config = {
            "mode": "full-refresh",
            "sql": query,
            "object": f"file://{target}",
            "columns": dict.fromkeys(header, "string"),
        }
        sling.run("SOURCE", "LAKE", self.stream.id, config, self.settings.extract_timeout)
        check_text(self.stream, target, header)

    def _pages_per_block(self) -> int:
        """Pages that hold about `BLOCK` bytes, what is stored out of line included; 0 where pages cannot be read."""
        with self._asking() as cursor:
            cursor.execute(
                "SELECT c.relkind = 'r' AND current_setting('server_version_num')::int >= 140000"
                " AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid),"
                " pg_relation_size(c.oid), pg_table_size(c.oid), current_setting('block_size')::int"
                " FROM pg_class AS c WHERE c.oid = %s::regclass",
                [quoted(self.stream.name)],
            )
            possible, heap, whole, page = cursor.fetchone() or (False, 0, 0, 1)
        return max(1, int(BLOCK / page * heap / whole)) if possible and heap else 0

    def _count(self) -> int:
        """Rows of the table now; refuses a table without the contract's columns."""
        with self._asking() as cursor:
            cursor.execute(f"SELECT * FROM {quoted(self.stream.name)} LIMIT 0".encode())
            there = [column.name for column in cursor.description or ()]
            missing = [name for name in self.contract.names if name not in there]
            if missing:
                raise DataError(
                    f"{self.stream.name}: no column {', '.join(missing)}; the contract {self.contract.table} wants it."
                    f" The table has {', '.join(there)}"
                )
            cursor.execute(f"SELECT count(*) FROM {quoted(self.stream.name)}".encode())
            row = cursor.fetchone()
            return int(row[0]) if row else 0

    @contextmanager
    def _asking(self) -> Iterator[psycopg.Cursor[Any]]:
        """A read-only cursor with a time limit; the server's refusals as our errors."""
        options = f"-c default_transaction_read_only=on -c statement_timeout={self.settings.extract_timeout * 1000}"
        try:
            with (
                psycopg.connect(
                    **self.connection.driver(), connect_timeout=_CONNECT_TIMEOUT, options=options
                ) as connection,
                connection.cursor() as cursor,
            ):
                yield cursor
        except psycopg.Error as error:
            reason = redact(str(error).strip(), [self.connection.password])
            message = f"{self.stream.name}: connection {self.connection.name}: {reason}"
            if any(sign in reason for sign in _REFUSALS):
                raise SourceRefusedError(message) from None
            raise ExtractError(message) from None


def _unwrap(blocks: Path, text: Path, header: tuple[str, ...]) -> None:
    """Write the CSV inside the blocks to a file of its own, under a header.

    Args:
        blocks: CSV with a header and one column, each value some lines of CSV; an empty one has no rows.
        text: the file to write.
        header: the column names of the lines.
    """
    csv.field_size_limit(LARGEST_FIELD)
    with (
        blocks.open(encoding="utf-8", newline="\n") as source,
        text.open("w", encoding="utf-8", newline="") as target,
    ):
        target.write(",".join(header) + "\n")
        records = csv.reader(source, strict=True)
        next(records)
        for record in records:
            if record and record[0]:
                target.write(record[0])
                target.write("\n")


@dataclass(frozen=True)
class PostgresDelivery:
    """What Sling delivered of a table; see `Delivery`.

    Attributes:
        text: the text.
        stream: the stream.
        connection: id of the connection.
        delivered: survey of the text.
        counted: fewest and most rows that the table had, before and after.
    """

    text: TextFile
    stream: Stream
    connection: str
    delivered: Survey
    counted: tuple[int, int]
    exact: bool = False
    window: Window | None = None
    keys: None = None
    source_rows: int | None = None
    source_columns: tuple[tuple[str, str], ...] = ()

    @property
    def rows(self) -> int:
        """Rows that the one statement saw, which lie between the two counts."""
        return self.delivered.rows

    def describe(self) -> dict[str, Any]:
        """The table and its connection."""
        return {"connection": self.connection, "table": self.stream.name, "counted": list(self.counted)}

    def lines_of(self, rows: Iterable[int]) -> Mapping[int, int]:  # noqa: ARG002  (a table has none)
        """A table has no lines."""
        return {}

    def compare(self) -> None:
        """The number of rows has to be one that the table had; it is exact for a table that stood still."""
        fewest, most = self.counted
        if not fewest <= self.delivered.rows <= most:
            counts = f"{fewest:,}" if fewest == most else f"between {fewest:,} and {most:,}"
            raise ExtractError(
                f"{self.stream.name}: Sling delivered {self.delivered.rows:,} rows, but the table has {counts};"
                " nothing was loaded"
            )

    def accept(self, result: CastResult) -> None:
        """The cast has to have read what was delivered."""
        if (self.delivered.rows, self.delivered.characters) != (result.rows_read, result.characters):
            raise ExtractError(
                f"{self.stream.name}: {self.delivered.rows:,} rows with {self.delivered.characters:,} characters were"
                f" delivered, but {result.rows_read:,} rows with {result.characters:,} characters were cast;"
                " nothing was loaded"
            )
