"""A bench whose source is a table of a SQL Server, real or the stand-in; the same tests run on both.

The stand-in proves what is ours: what is sent, how it travels, what becomes of errors. Only the real server proves that
SQL Server understands what we send and means by it what we think.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from include.elt.connections.mssql import MssqlConnection
from include.elt.settings import Settings
from include.elt.sources.mssql import Mssql
from tests.support.postgres_bench import PostgresBench
from tests.support.tds import Standin, running_standin

COMPOSE = Path(__file__).with_name("mssql") / "compose.yml"
URL = "MSSQL_TEST_URL"
"""Environment variable: `mssql://user:password@host:port/database?encrypt=true&trust_server_certificate=true`. Who logs
in there has to be allowed to make schemas and tables in that database, which is of no use for anything else.
"""

REQUIRED = "MSSQL_REAL_REQUIRED"
"""Environment variable: `1` where a missing server is a failure."""


class Server(Protocol):
    """What a test asks of either server."""

    connection: MssqlConnection

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run T-SQL; the rows of a query, as a driver gives them."""

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Put Python values into a table."""


class DrivenServer:
    """A server that is asked through a driver.

    Args:
        connection: how the product reaches it.
    """

    def __init__(self, connection: MssqlConnection) -> None:
        self.connection = connection

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(self.connection.connect(60)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        with closing(self.connection.connect(60)) as connection, connection.cursor() as cursor:
            for row in rows:
                cursor.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})", tuple(map(_sent, row)))


def _sent(value: Any) -> Any:
    """A value as an argument: pymssql would cut a datetime at its milliseconds, and a datetime takes no more."""
    if not isinstance(value, datetime):
        return value
    return value.isoformat("T", "microseconds" if value.microsecond % 1000 else "milliseconds")


class StandinServer(DrivenServer):
    """The stand-in, which is changed beside the wire and asked through it."""

    def __init__(self, standin: Standin) -> None:
        super().__init__(connection_to(standin))
        self.standin = standin

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        if sql.lstrip().upper().startswith("SELECT"):
            return super().execute(sql)
        return self.standin.execute(sql)

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        self.standin.insert(table, rows)


def connection_to(standin: Standin, **other: Any) -> MssqlConnection:
    """The stand-in as the product sees it."""
    given = MssqlConnection(
        name="shop_mssql",
        host="127.0.0.1",
        port=standin.port,
        user=standin.user,
        password=standin.password,
        database=standin.database,
        encrypt="disable",
        trust_server_certificate=False,
        certificate="",
        hostname_in_certificate="",
        app_name="dbx-project",
        application_intent="ReadWrite",
    )
    return replace(given, **other)


@contextmanager
def a_standin() -> Iterator[StandinServer]:
    """The stand-in."""
    with running_standin() as standin:
        yield StandinServer(standin)


@contextmanager
def a_real_server() -> Iterator[DrivenServer]:
    """The server of `MSSQL_TEST_URL`, or one in a container; without either the test is skipped, visibly."""
    if url := os.environ.get(URL):
        yield DrivenServer(_connection(url))
    elif _has_docker():
        with _container() as server:
            yield server
    else:
        say = pytest.fail if os.environ.get(REQUIRED) == "1" else pytest.skip
        say(f"no Docker here and {URL} is not set: nothing was tried with a real SQL Server")


def _connection(url: str) -> MssqlConnection:
    from airflow.sdk import Connection

    parts = urlsplit(url)
    return MssqlConnection.from_airflow(
        Connection(
            conn_id="shop_mssql",
            conn_type="mssql",
            host=parts.hostname,
            port=parts.port or 1433,
            login=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            schema=unquote(parts.path.strip("/")),
            extra=dict(parse_qsl(parts.query)),
        )
    )


@cache
def _has_docker() -> bool:
    """Whether there is a Docker that runs: its program alone is not enough."""
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "compose", "ls"], capture_output=True, check=False, timeout=60)
    return asked.returncode == 0


@contextmanager
def _container() -> Iterator[DrivenServer]:
    password = f"Aa1-{secrets.token_urlsafe(16)}"
    project = f"elt-mssql-{os.getpid()}"

    def compose(*arguments: str) -> str:
        command = ["docker", "compose", "--project-name", project, "--file", str(COMPOSE), *arguments]
        environment = os.environ | {"MSSQL_SA_PASSWORD": password}
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    try:
        compose("up", "--detach", "--wait")
        port = compose("port", "mssql", "1433").strip().rpartition(":")[2]
        options = "encrypt=true&trust_server_certificate=true"
        master = DrivenServer(_connection(f"mssql://sa:{password}@127.0.0.1:{port}/master?{options}"))
        master.execute("CREATE DATABASE shop")
        yield DrivenServer(replace(master.connection, database="shop"))
    finally:
        compose("down", "--volumes")


class MssqlBench(PostgresBench):
    """A bench whose source is a table of the server."""

    server: Any
    connection: Any

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.made: list[tuple[str, str]] = []

    @property
    def tds(self) -> Any:
        """The stand-in behind the server, for faults and its journal."""
        return self.server.standin

    def dialect(self, settings: Settings, **other: Any) -> Mssql:
        return Mssql(replace(self.connection, **other), settings)

    def create(self, columns: str, rows: Sequence[Sequence[Any]] = (), table: str | None = None) -> None:
        """Make the table, or another one, anew."""
        self._make("TABLE", table or self.table, f"({columns})")
        if rows:
            self.server.insert(table or self.table, rows)

    def create_view(self, query: str, view: str | None = None) -> None:
        """Make a view in the table's place, or another one."""
        self._make("VIEW", view or self.table, f"AS {query}")

    def _make(self, kind: str, name: str, what: str) -> None:
        self.server.execute(f"DROP {kind} IF EXISTS {name}")
        self.server.execute(f"CREATE {kind} {name} {what}")
        self.made.append((kind, name))
