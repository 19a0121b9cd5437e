"""The whole pipeline from PostgreSQL: the same tables as from files, and the password nowhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import psycopg
import pytest

from tests.support.postgres import Server, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TABLES = {
    "raw_customers": "id bigint PRIMARY KEY, first_name text, last_name text",
    "raw_orders": "id bigint PRIMARY KEY, user_id bigint, order_date date, status varchar(20)",
    "raw_payments": "id bigint PRIMARY KEY, order_id integer, payment_method text, amount integer",
}


@pytest.fixture
def shop(deployment: Any) -> Iterator[Server]:
    """A server that holds the sample shop, and its connection in the deployment's environment."""
    with running_server() as server:
        with psycopg.connect(**server.arguments) as connection:
            for table, columns in TABLES.items():
                connection.execute(f"CREATE TABLE {table} ({columns})".encode())
                with (
                    (deployment.files / f"{table}.csv").open(newline="", encoding="utf-8") as stream,
                    connection.cursor().copy(f"COPY {table} FROM STDIN".encode()) as copy,
                ):
                    rows = csv.reader(stream)
                    next(rows)
                    for row in rows:
                        copy.write_row(row)
        connection_of_airflow = {
            "conn_type": "postgres",
            "host": "127.0.0.1",
            "port": server.port,
            "login": server.user,
            "password": server.password,
            "schema": server.database,
            "extra": {"sslmode": "disable"},
        }
        deployment.settings |= {
            "SHOP_SOURCE": "postgres",
            "AIRFLOW_CONN_SHOP_POSTGRES": json.dumps(connection_of_airflow),
        }
        yield server


def test_the_shop_from_postgres_is_the_shop_from_files(deployment: Any, shop: Server, first_run: Any) -> None:
    outcome = deployment.run()

    assert outcome.state == "success"
    assert deployment.checksums() == first_run[0].checksums()
    assert outcome.assets["raw.raw_orders"]["rows_read"] == 500

    spellings = {
        shop.password,
        quote(shop.password, safe=""),
        quote_plus(shop.password),
        json.dumps(shop.password)[1:-1],
    }
    places = [path for path in deployment.folder.rglob("*") if path.is_file()]
    assert {"airflow.db", "warehouse.duckdb", "manifest.json"} <= {path.name for path in places}
    for spelling in spellings:
        assert spelling not in outcome.log
        assert not [path for path in places if spelling.encode() in path.read_bytes()], "the password was written down"


def test_a_wrong_password_is_not_tried_again(deployment: Any, shop: Server) -> None:
    connection = json.loads(deployment.settings["AIRFLOW_CONN_SHOP_POSTGRES"])
    deployment.settings["AIRFLOW_CONN_SHOP_POSTGRES"] = json.dumps(connection | {"password": "wr0ng/pass"})

    outcome = deployment.run()

    assert outcome.state == "failed"
    assert outcome.with_state("failed") == {f"shop.{table}.extract" for table in TABLES}
    assert 'password authentication failed for user "shop"' in outcome.log
    assert "wr0ng" not in outcome.log


def test_a_missing_connection_is_named(deployment: Any, tmp_path: Path) -> None:
    deployment.settings["SHOP_SOURCE"] = "postgres"

    outcome = deployment.run(streams=["raw_orders"])

    assert outcome.state == "failed"
    assert "there is no Airflow connection shop_postgres; make one, or set AIRFLOW_CONN_SHOP_POSTGRES" in outcome.log
