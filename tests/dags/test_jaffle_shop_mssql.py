"""The whole pipeline from SQL Server's stand-in: the same tables as from files, and the password nowhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from tests.support.tds import Standin, running_standin

pytestmark = [pytest.mark.slow, pytest.mark.tds_standin, pytest.mark.timeout(600)]

TABLES = {
    "raw_customers": "id bigint NOT NULL PRIMARY KEY, first_name nvarchar(50), last_name nvarchar(50)",
    "raw_orders": "id bigint NOT NULL PRIMARY KEY, user_id bigint, order_date date, status varchar(20)",
    "raw_payments": "id bigint NOT NULL PRIMARY KEY, order_id int, payment_method varchar(50), amount int",
}


@pytest.fixture
def shop(deployment: Any) -> Iterator[Standin]:
    """A stand-in that holds the sample shop, and its connection in the deployment's environment."""
    with running_standin("optional") as standin:
        for table, columns in TABLES.items():
            standin.execute(f"CREATE TABLE dbo.{table} ({columns})")
            with (deployment.files / f"{table}.csv").open(newline="", encoding="utf-8") as stream:
                _, *rows = csv.reader(stream)
            standin.insert(f"dbo.{table}", rows)
        connection_of_airflow = {
            "conn_type": "mssql",
            "host": "127.0.0.1",
            "port": standin.port,
            "login": standin.user,
            "password": standin.password,
            "schema": standin.database,
            "extra": {"certificate": str(standin.certificate)},
        }
        deployment.settings |= {
            "SHOP_SOURCE": "mssql",
            "AIRFLOW_CONN_SHOP_MSSQL": json.dumps(connection_of_airflow),
        }
        yield standin


def test_the_shop_from_sql_server_is_the_shop_from_files(deployment: Any, shop: Standin, first_run: Any) -> None:
    outcome = deployment.run()

    assert outcome.state == "success", outcome.log[-5000:]
    assert deployment.checksums() == first_run[0].checksums()
    assert outcome.assets["raw.raw_orders"]["rows_read"] == 500
    assert {entry.tls for entry in shop.journal} == {"TLSv1.2"}

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


def test_a_wrong_password_is_not_tried_again(deployment: Any, shop: Standin) -> None:
    connection = json.loads(deployment.settings["AIRFLOW_CONN_SHOP_MSSQL"])
    deployment.settings["AIRFLOW_CONN_SHOP_MSSQL"] = json.dumps(connection | {"password": "wr0ng/pass"})

    outcome = deployment.run()

    assert outcome.state == "failed"
    assert outcome.with_state("failed") == {f"shop.{table}.extract" for table in TABLES}
    assert "127.0.0.1 refuses reader for the database shop: Login failed" in outcome.log
    assert "wr0ng" not in outcome.log
    assert len(shop.journal) == len(TABLES)
