"""Sources: how the rows of a stream become text, and what is known of them independently of Sling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from include.elt.cast import CastResult
from include.elt.connections import AirflowConnection
from include.elt.contract import Contract
from include.elt.early import Early, later
from include.elt.errors import SettingsError
from include.elt.modes import Reading, Window
from include.elt.replication import LOCAL, Replication, Stream
from include.elt.settings import Settings
from include.elt.text import Place, Text


class Delivery(Protocol):
    """Text that a source has delivered, and the knowledge to judge it."""

    @property
    def contract(self) -> Contract:
        """The contract of this extraction: the raw table's, or what `meta.on_schema_change` made of it."""

    @property
    def text(self) -> Text:
        """The text of the rows, with the columns of the contract."""

    @property
    def rows(self) -> int:
        """Rows that were to be read, counted independently of Sling."""

    @property
    def exact(self) -> bool:
        """Whether every value was compared already, so that the cast need not count characters."""

    @property
    def window(self) -> Window | None:
        """The range that was read, both limits known; None for everything."""

    @property
    def keys(self) -> Text | None:
        """The primary keys of all rows that the source holds, read after the rows; None where nobody asked."""

    @property
    def source_rows(self) -> int | None:
        """Rows of the whole source up to the window's end; None where nobody asked."""

    @property
    def source_columns(self) -> tuple[tuple[str, str], ...]:
        """Name and type of each column of the source, in its own words; empty where it has no types."""

    def describe(self) -> dict[str, Any]:
        """Where the rows came from, for the manifest."""

    def locate(self, rows: Iterable[int]) -> Mapping[int, Place]:
        """Where rows of the text stand in the source, where it has files; for messages and rejects."""

    def compare(self) -> None:
        """Compare what was delivered with the source. Runs beside the cast.

        Raises:
            ExtractError: it is not the same, or the source was changed meanwhile.
        """

    def accept(self, result: CastResult) -> None:
        """Check the counts of the cast.

        Raises:
            ExtractError: they are not those of the source.
        """


class Source(Protocol):
    """One stream of a source."""

    def deliver(self, work: Path, null: str, reading: Reading, early: Early = later) -> Delivery:
        """Write the rows of a reading as text.

        Args:
            work: folder of the extraction.
            null: text that is to stand for NULL.
            reading: which rows.
            early: is given pieces of the text that are proven already, from any thread, where there are such.

        Raises:
            DataError: the source does not fit the contract.
            ExtractError: it cannot be read.
        """

    def kill(self) -> None:
        """End a running Sling process."""


def open_source(
    replication: Replication,
    stream: Stream,
    contract: Contract,
    settings: Settings,
    look_up: Callable[[str], AirflowConnection],
) -> Source:
    """The source of a stream, by the kind of its connection.

    Args:
        replication: names the connection.
        stream: the stream.
        contract: columns of its raw table.
        settings: Sling binary, timeouts.
        look_up: gives the Airflow connection of an id.

    Raises:
        SettingsError: there is no source for that type of connection, or the connection lacks something.
    """
    if replication.source == LOCAL:
        from include.elt.sources.files import FileSource

        return FileSource(stream, contract, settings)
    connection = look_up(replication.source)
    if stream.is_file and connection.conn_type != "aws":
        raise SettingsError(
            f"the connection {replication.source} has the type {connection.conn_type!r}; {stream.name} needs aws"
        )
    if connection.conn_type == "postgres":
        from include.elt.connections.postgres import PostgresConnection
        from include.elt.sources.database import DatabaseSource
        from include.elt.sources.postgres import Postgres

        dialect = Postgres(PostgresConnection.from_airflow(connection), settings)
        return DatabaseSource(stream, contract, settings, dialect)
    if connection.conn_type == "mssql":
        from include.elt.connections.mssql import MssqlConnection
        from include.elt.sources.database import DatabaseSource
        from include.elt.sources.mssql import Mssql

        return DatabaseSource(stream, contract, settings, Mssql(MssqlConnection.from_airflow(connection), settings))
    if connection.conn_type == "aws":
        from include.elt.sources.s3 import open_s3

        return open_s3(stream, contract, settings, connection)
    raise SettingsError(
        f"the connection {replication.source} has the type {connection.conn_type!r};"
        " a replication reads postgres, mssql or aws (S3)"
    )
