"""A PostgreSQL server and a bench that extracts from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from include.elt.connections.postgres import PostgresConnection
from include.elt.extract import Extraction
from include.elt.replication import Replication, Stream
from include.elt.sources.postgres import PostgresSource
from tests.support.elt import Bench, Row, rows_of
from tests.support.postgres import Server, running_server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests; each takes a table of its own name, see `PostgresBench`."""
    with running_server() as server:
        yield server


class PostgresBench(Bench):
    """A bench whose source is a table of the server."""

    def __init__(self, root: Path, server: Server, *, blocks: bool) -> None:
        super().__init__(root)
        self.blocks = blocks
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
        **other: Any,
    ) -> Extraction:
        """An extraction of the table; `other` are fields of the connection."""
        stream = Stream(name=table or self.table, mode="full-refresh", object="raw.orders", primary_key=["id"])  # type: ignore[arg-type]
        replication = Replication(name="shop", file=self.root / "shop.yaml", source="shop_postgres", streams=(stream,))
        contract, values = self.contract(columns), self.settings(**settings or {})
        source = PostgresSource(stream, contract, values, replace(self.connection, **other), self.blocks)
        return Extraction(replication, stream, contract, values, source)

    def read(self, columns: Mapping[str, str], **what: Any) -> list[Row]:
        """Extract the table; its rows in the lake."""
        _, location = self.source(columns, **what).run("manual__1")
        assert location is not None
        return rows_of(Path(location))


@pytest.fixture(params=[False, True], ids=["row by row", "in blocks"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> PostgresBench:
    """Both ways, which have to be the same in everything."""
    return PostgresBench(tmp_path, server, blocks=request.param)
