"""PostgreSQL tables and views.

Sling runs a query in which the server itself casts every column of the contract to text, so that no type is guessed on
the way. The server counts the rows before and after.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from include.elt.cast import CastResult, TextFile
from include.elt.connections.postgres import PostgresConnection
from include.elt.contract import Contract
from include.elt.csvfile import Survey, survey
from include.elt.errors import DataError, ExtractError, SourceRefusedError
from include.elt.replication import Stream
from include.elt.settings import Settings
from include.elt.sling import SlingRun, redact
from include.elt.sources.files import check_text
from include.elt.sql import quoted

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 30
"""Seconds."""

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
    """

    def __init__(self, stream: Stream, contract: Contract, settings: Settings, connection: PostgresConnection) -> None:
        self.stream = stream
        self.contract = contract
        self.settings = settings
        self.connection = connection
        self._sling: SlingRun | None = None

    def kill(self) -> None:
        """End a running Sling process."""
        if self._sling is not None:
            self._sling.kill()

    def deliver(self, work: Path, null: str) -> PostgresDelivery:
        """Let Sling write the table as text, and count it before and after."""
        before = self._count()
        log.info("%s: %s rows in %s", self.stream.id, f"{before:,}", self.stream.name)
        text = work / "text.csv"
        sling = self._sling = SlingRun(
            self.settings.sling(),
            work / "sling",
            {"SOURCE": self.connection.sling(), "LAKE": {"type": "file", "null_as": null}},
            secrets=[self.connection.password],
            variables=self.connection.variables(),
        )
        sling.home.mkdir()
        config = {
            "mode": "full-refresh",
            "sql": self.query(),
            "object": f"file://{text}",
            "columns": dict.fromkeys(self.contract.names, "string"),
        }
        sling.run("SOURCE", "LAKE", self.stream.id, config, self.settings.extract_timeout)
        check_text(self.stream, text, self.contract.names)
        delivered = survey(text, self.contract.names, ",", null)
        after = self._count()
        return PostgresDelivery(
            TextFile(text, self.contract.names, null, "", delivered.longest),
            self.stream,
            self.connection.name,
            delivered,
            (min(before, after), max(before, after)),
        )

    def query(self) -> str:
        """The query that Sling runs: the contract's columns as text, in its order."""
        columns = ", ".join(f"{quoted(name)}::text AS {quoted(name)}" for name in self.contract.names)
        return f"SELECT {columns} FROM {quoted(self.stream.name)}"

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
