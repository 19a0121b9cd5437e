"""Servers of PostgreSQL and SQL Server, and benches that extract from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mssql_bench import MssqlBench, StandinServer, a_real_server, a_standin
from tests.support.postgres import Server, running_server
from tests.support.postgres_bench import PostgresBench, connection_to


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests; each takes a schema of its own name, see `schema`."""
    with running_server() as server:
        yield server


@pytest.fixture
def schema(tmp_path: Path, server: Server) -> str:
    """An empty schema."""
    name = f"t{abs(hash(tmp_path)):x}"
    server.execute(f"CREATE SCHEMA {name}")
    return name


@pytest.fixture(params=[0, -2, -1], ids=["best way", "in groups", "row by row"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, server: Server, schema: str) -> PostgresBench:
    """A bench for each way; all have to be the same in everything. The best one for a plain table is by pages."""
    return PostgresBench(tmp_path, connection_to(server), f"{schema}.orders", request.param, server)


@pytest.fixture
def free(tmp_path: Path, server: Server, schema: str) -> PostgresBench:
    """A bench that chooses the way itself."""
    return PostgresBench(tmp_path, connection_to(server), f"{schema}.orders", server=server)


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(a_standin, marks=pytest.mark.tds_standin, id="stand-in"),
        pytest.param(a_real_server, marks=pytest.mark.mssql_real, id="real"),
    ],
)
def mssql_server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A SQL Server: the stand-in and, where there is one, a real server."""
    with request.param() as server:
        yield server


@pytest.fixture(params=[0, -1], ids=["best way", "row by row"])
def ways(request: pytest.FixtureRequest, tmp_path: Path, mssql_server: Any) -> Iterator[MssqlBench]:
    """A bench for each way to read SQL Server; both have to be the same in everything."""
    yield from _mssql_bench(tmp_path, mssql_server, request.param)


@pytest.fixture
def mssql(tmp_path: Path, mssql_server: Any) -> Iterator[MssqlBench]:
    """A bench that chooses the way itself."""
    yield from _mssql_bench(tmp_path, mssql_server)


@pytest.fixture(scope="session")
def standin_server() -> Iterator[StandinServer]:
    """The stand-in, for what only it can do: fail on demand, and tell what it was asked."""
    with a_standin() as server:
        yield server


@pytest.fixture
def faulty(tmp_path: Path, standin_server: StandinServer) -> Iterator[MssqlBench]:
    """A bench with the stand-in, its journal empty."""
    standin_server.standin.forget()
    yield from _mssql_bench(tmp_path, standin_server)


def _mssql_bench(folder: Path, server: Any, way: int | None = None) -> Iterator[MssqlBench]:
    bench = MssqlBench(folder, server.connection, "dbo.orders", way, server)
    yield bench
    for kind, name in reversed(bench.made):
        server.execute(f"DROP {kind} IF EXISTS {name}")
