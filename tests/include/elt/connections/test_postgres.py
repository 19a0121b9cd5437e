"""Airflow connections of type postgres."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import Connection

from include.elt.connections.postgres import PostgresConnection
from include.elt.errors import SettingsError

FIELDS: dict[str, Any] = {
    "conn_id": "shop_postgres",
    "conn_type": "postgres",
    "host": "db.example",
    "login": "reader",
    "password": "p$@/: %'",
    "schema": "shop",
}


def mapped(**fields: Any) -> PostgresConnection:
    return PostgresConnection.from_airflow(Connection(**FIELDS | fields))


def test_a_connection_is_mapped_for_sling_and_for_the_driver() -> None:
    connection = mapped(port=5433, extra='{"sslmode": "require"}')

    assert connection.sling() == {
        "type": "postgres",
        "host": "db.example",
        "port": 5433,
        "user": "reader",
        "database": "shop",
        "sslmode": "require",
    }
    assert connection.variables() == {"PGPASSWORD": "p$@/: %'"}
    assert connection.driver() == {
        "host": "db.example",
        "port": 5433,
        "user": "reader",
        "password": "p$@/: %'",
        "dbname": "shop",
        "sslmode": "require",
    }


def test_port_and_sslmode_have_defaults() -> None:
    assert (mapped().port, mapped().sslmode) == (5432, "prefer")


def test_the_password_is_not_in_what_is_printed() -> None:
    assert "p$@" not in repr(mapped())


@pytest.mark.parametrize(("field", "name"), [("host", "host"), ("login", "login"), ("schema", "schema")])
def test_what_is_missing_is_named(field: str, name: str) -> None:
    with pytest.raises(SettingsError, match=f"the connection shop_postgres has no {name}"):
        mapped(**{field: None})


def test_an_unknown_sslmode_is_refused() -> None:
    with pytest.raises(SettingsError, match="sslmode='yes'; allowed: disable, allow, prefer"):
        mapped(extra='{"sslmode": "yes"}')
