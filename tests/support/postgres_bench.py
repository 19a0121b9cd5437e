"""A bench whose source is a table of a PostgreSQL server."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from include.elt.connections.postgres import PostgresConnection
from include.elt.extract import Extraction
from include.elt.modes import Reading, Span, plan
from include.elt.replication import Replication, Stream
from include.elt.settings import Settings
from include.elt.sources.database import DatabaseSource, Dialect
from include.elt.sources.postgres import Postgres
from include.elt.warehouse import LoadResult
from tests.support.elt import Bench, Row, rows_of
from tests.support.postgres import Server


def connection_to(server: Server) -> PostgresConnection:
    """The server as the product sees it."""
    return PostgresConnection(
        "shop_postgres", "127.0.0.1", server.port, server.user, server.password, server.database, "disable"
    )


class PostgresBench(Bench):
    """A bench whose source is a table of the server."""

    def __init__(
        self,
        root: Path,
        connection: PostgresConnection,
        table: str,
        way: int | None = None,
        server: Server | None = None,
    ) -> None:
        super().__init__(root)
        self.server = server
        self.schema = table.split(".")[0]
        self.connection = connection
        self.table = table
        self.way = way

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
        source = DatabaseSource(stream, contract, values, self.dialect(values, **other), self.way)
        return Extraction(replication, stream, contract, values, source)

    def dialect(self, settings: Settings, **other: Any) -> Dialect:
        """How the server is asked; `other` are fields of the connection."""
        return Postgres(replace(self.connection, **other), settings)

    def read(self, columns: Mapping[str, str], reading: Reading | None = None, **what: Any) -> list[Row]:
        """Extract the table; its rows in the lake."""
        _, location = self.source(columns, **what).run("manual__1", reading or Reading())
        assert location is not None
        return rows_of(Path(location))

    def pipeline(
        self,
        columns: Mapping[str, str],
        keys: Mapping[str, Any],
        span: Span | None = None,
        added: tuple[str, ...] = (),
        **settings: Any,
    ) -> LoadResult:
        """One run of the stream, as its two tasks do it: plan, extract, load."""
        extraction = self.source(columns, settings=settings, keys=keys)
        extraction.contract = extraction.source.contract = replace(extraction.contract, added=added)  # type: ignore[attr-defined]
        warehouse, stream = self.warehouse(lock_timeout=60), extraction.stream
        reading = plan(
            stream, extraction.contract, span or Span(), lambda: warehouse.state(stream.table, stream.update_key)
        )
        manifest, location = extraction.run("manual__1", reading)
        assert location is not None
        return warehouse.load(manifest, Path(location), stream.meta)

    def in_a_process(self, columns: Mapping[str, str], keys: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
        """Arguments of `subprocess.Popen` for a `pipeline` that can be killed."""
        what = {
            "root": str(self.root),
            "connection": asdict(self.connection),
            "table": self.table,
            "columns": dict(columns),
            "keys": dict(keys),
            "settings": settings,
        }
        return {
            "args": [sys.executable, "-m", "tests.support.postgres_bench"],
            "env": os.environ | {"PIPELINE": json.dumps(what)},
            "start_new_session": True,
        }


def main() -> None:
    """Run what `in_a_process` has asked for."""
    what = json.loads(os.environ["PIPELINE"])
    bench = PostgresBench(Path(what["root"]), PostgresConnection(**what["connection"]), what["table"])
    bench.pipeline(what["columns"], what["keys"], **what["settings"])


if __name__ == "__main__":
    main()
