"""A PostgreSQL server and a bench that extracts from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from include.elt.connections.postgres import PostgresConnection
from include.elt.extract import Extraction
from include.elt.modes import Reading
from include.elt.replication import Replication, Stream
from include.elt.sources.database import DatabaseSource
from include.elt.sources.postgres import Postgres
from tests.support.elt import Bench, Row, rows_of
from tests.support.postgres import Server, running_server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests; each takes a table of its own name, see `PostgresBench`."""
    with running_server() as server:
        yield server


class PostgresBench(Bench):
    """A bench whose source is a table of the server."""

    def __init__(self, root: Path, server: Server, way: int | None) -> None:
        super().__init__(root)
        self.way = way
        self.server = server
        self.schema = f"t{abs(hash(root)):x}"
        self.table = f"{self.schema}.orders"
        server.execute(f"CREATE SCHEMA {self.schema}")
        self.connection = PostgresConnection(
            "shop_postgres", "127.0.0.1", server.port, server.user, server.password, server.database, "disable"
        )

    def source(
        self,
        columns: Mapping[str, str],
        table: str | None = None,
        settings: Mapping[str, Any] | None = None,
        keys: Mapping[str, Any] | None = None,
        **other: Any,
    ) -> Extraction:
        """An extraction of the table; `keys` are those of the stream, `other` fields of the connection."""
        given: dict[str, Any] = {"mode": "full-refresh", "object": "raw.orders", "primary_key": ["id"], **(keys or {})}
        stream = Stream(name=table or self.table, **given)
        replication = Replication(name="shop", file=self.root / "shop.yaml", source="shop_postgres", streams=(stream,))
        contract, values = self.contract(columns), self.settings(**settings or {})
        source = DatabaseSource(stream, contract, values, Postgres(replace(self.connection, **other), values), self.way)
        return Extraction(replication, stream, contract, values, source)

    def read(self, columns: Mapping[str, str], reading: Reading | None = None, **what: Any) -> list[Row]:
        """Extract the table; its rows in the lake."""
        _, folder = self.source(columns, **what).run("manual__1", reading or Reading())
        assert folder is not None
        return rows_of(folder)


@pytest.fixture(params=[0, -2, -1], ids=["best way", "in groups", "row by row"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> PostgresBench:
    """A bench for each way; all have to be the same in everything. The best one for a plain table is by pages."""
    return PostgresBench(tmp_path, server, request.param)


@pytest.fixture
def free(tmp_path: Path, server: Server) -> PostgresBench:
    """A bench that chooses the way itself."""
    return PostgresBench(tmp_path, server, None)
