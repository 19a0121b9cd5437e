"""The sample web shop in a database of its own, beside the deployment that loads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

import duckdb
import psycopg

from include.elt.paths import REPLICATIONS
from include.elt.replication import read_replication
from include.sample_data import web
from tests.support.postgres import Server

Rows = list[tuple[Any, ...]]
_SQL = {stream.id: stream.sql for stream in read_replication(REPLICATIONS / "web_postgres.yaml", {}).streams}
STREAMS = {
    "raw_users": (
        "SELECT id::text, email, display_name, country, is_subscribed, credit, created_at, updated_at FROM web.users",
        "SELECT * EXCLUDE (_deleted_at) FROM raw.raw_users WHERE _deleted_at IS NULL",
    ),
    "raw_events": (
        "SELECT id, user_id::text, kind, payload::text, occurred_at, ingested_at FROM web.events",
        "FROM raw.raw_events",
    ),
    "raw_inventory": (
        """SELECT site, sku, on_hand, reserved, unit_cost, is_orderable, counted_at FROM web.inventory
        WHERE site <> 'test'""",
        """SELECT * EXCLUDE (_loaded_at) FROM raw.raw_inventory
        WHERE _loaded_at = (SELECT max(_loaded_at) FROM raw.raw_inventory)""",
    ),
    "raw_active_carts": (
        f"SELECT id, user_id::text, opened_at, items, value FROM ({_SQL['raw_active_carts']}) AS carts",
        "FROM raw.raw_active_carts",
    ),
}
"""By raw table: the query that says what the source holds, and the one that says what has arrived of it."""


@dataclass(frozen=True)
class Shop:
    """A shop and the deployment that loads it.

    Attributes:
        server: where its database is.
        database: its name.
        deployment: settings, warehouse, lake; see tests/conftest.py.
    """

    server: Server
    database: str
    deployment: Any

    @classmethod
    @contextmanager
    def on(
        cls, server: Server, deployment: Any, name: str | None = None, template: str | None = None, **size: int
    ) -> Iterator[Shop]:
        """A new shop, or a copy of another, and the deployment connected with it; dropped at the end."""
        shop = cls(server, name or f"web_{uuid4().hex[:8]}", deployment)
        server.execute(f"CREATE DATABASE {shop.database} TEMPLATE {template or 'template1'}")
        try:
            if template is None:
                with shop.connect() as connection:
                    web.create(connection, **size)
            deployment.settings |= {"AIRFLOW_CONN_WEB_POSTGRES": json.dumps(shop.connection())}
            yield shop
        finally:
            server.execute(f"DROP DATABASE {shop.database} WITH (FORCE)")

    def connection(self) -> dict[str, Any]:
        """The Airflow connection."""
        return {
            "conn_type": "postgres",
            "host": "127.0.0.1",
            "port": self.server.port,
            "login": self.server.user,
            "password": self.server.password,
            "schema": self.database,
            "extra": {"sslmode": "disable"},
        }

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.server.arguments | {"dbname": self.database}, options="-c TimeZone=UTC")

    def next_day(self) -> date:
        """Let a day pass."""
        with self.connect() as connection:
            return web.next_day(connection)

    def ask(self, sql: str) -> Rows:
        """SQL in the shop's own database."""
        with self.connect() as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def source(self, table: str) -> Rows:
        """What the raw table should hold, in the order of its keys."""
        return sorted(self.ask(STREAMS[table][0]), key=_key)

    def rows(self, sql: str) -> Rows:
        """SQL in the warehouse."""
        with duckdb.connect(str(self.deployment.warehouse), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(sql).fetchall()

    def sorted(self, sql: str) -> Rows:
        """SQL in the warehouse, in the order of the keys."""
        return sorted(self.rows(sql), key=_key)

    def raw(self, table: str) -> Rows:
        """What the raw table holds: of users those that exist, of stock levels the last reading."""
        return self.sorted(STREAMS[table][1])

    @staticmethod
    def moment(text: str) -> datetime:
        """A watermark as a time."""
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _key(row: tuple[Any, ...]) -> tuple[str, str]:
    """Two columns are the key of any of the tables."""
    return str(row[0]), str(row[1])
