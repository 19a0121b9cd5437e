"""The seeds of compose.yml's sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from include.sample_data import seed
from tests.support.postgres import Server, running_server

PASSWORD = "r'e$a\"der"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


def environment(server: Server, reader: str = PASSWORD) -> dict[str, str]:
    return {
        "SEED_POSTGRES_HOST": "127.0.0.1",
        "SEED_POSTGRES_PORT": str(server.port),
        "SEED_POSTGRES_USER": server.user,
        "SEED_POSTGRES_PASSWORD": server.password,
        "SEED_READER_PASSWORD": reader,
    }


def test_postgres_is_filled_once(server: Server) -> None:
    assert "raw_orders" in seed.seed_postgres(environment(server, "an older password"))
    assert seed.seed_postgres(environment(server)) == "filled already"

    reader: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "user": "reader", "password": PASSWORD}
    with psycopg.connect(**reader, dbname="shop") as connection:
        assert connection.execute("SELECT count(*) FROM raw_orders").fetchone() == (500,)
        row = connection.execute("SELECT * FROM raw_customers WHERE id = 2").fetchone()
        assert row == (2, "Sofía", "Fischer")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM raw_orders")
    with psycopg.connect(**reader, dbname="web") as connection:
        assert (connection.execute("SELECT count(*) FROM web.users").fetchone() or (0,))[0] > 200


def test_s3_is_filled_once(s3: Any) -> None:
    access, secret = s3.user()
    environ = {"SEED_S3_ENDPOINT": s3.url, "SEED_S3_ACCESS_KEY": access, "SEED_S3_SECRET_KEY": secret}

    first = seed.seed_s3(environ)
    again = seed.seed_s3(environ)

    assert first == "files/raw_customers.csv, files/raw_orders.csv, files/raw_payments.csv"
    assert again == "filled already"


def test_mssql_is_filled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only which statements are sent, to a driver that is none: nothing was tried with a real SQL Server."""
    import pymssql

    sent: list[tuple[str, Any]] = []
    there: set[str] = set()

    class Cursor:
        table = ""

        def __enter__(self) -> Cursor:
            return self

        def __exit__(self, *_: object) -> None: ...

        def execute(self, statement: str, arguments: tuple[str, ...] = ()) -> None:
            sent.append((statement, arguments))
            if arguments:
                self.table = arguments[0]
            elif statement.startswith("CREATE TABLE"):
                there.add(self.table)

        def executemany(self, statement: str, rows: list[Any]) -> None:
            sent.append((statement, rows))

        def fetchone(self) -> tuple[int | None]:
            return (1 if self.table in there else None,)

    class Connection:
        def cursor(self) -> Cursor:
            return Cursor()

        def commit(self) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(pymssql, "connect", lambda **_: Connection())
    environ = {"SEED_MSSQL_HOST": "mssql", "SEED_MSSQL_PASSWORD": "x"}

    assert seed.seed_mssql(environ) == "shop.dbo.raw_customers, shop.dbo.raw_orders, shop.dbo.raw_payments"
    assert seed.seed_mssql(environ) == "filled already"
    statements = [statement for statement, _ in sent]
    assert statements[0] == "IF DB_ID('shop') IS NULL CREATE DATABASE shop"
    assert "nvarchar(100)" in next(each for each in statements if "raw_customers (" in each)
    assert [len(rows) for statement, rows in sent if statement.startswith("INSERT")] == [100, 500, 638]


def test_another_source_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert seed.main(["oracle"]) == 2
    assert "postgres | s3 | mssql" in capsys.readouterr().err


@pytest.mark.parametrize("table", seed.SHOP_TABLES)
def test_the_columns_are_those_of_the_files(table: str) -> None:
    header = (seed.SAMPLE_DATA / f"{table}.csv").read_text(encoding="utf-8").splitlines()[0]

    assert [each.split()[0] for each in seed.SHOP_TABLES[table]] == header.split(",")
