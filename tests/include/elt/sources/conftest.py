"""A PostgreSQL server and benches that extract from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
