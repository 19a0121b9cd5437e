"""The sample web shop: the same rows from the same seed, and every kind of change when a day passes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from typing import Any

import psycopg
import pytest

from include.elt.paths import ROOT
from include.sample_data import web
from tests.support.postgres import Server, running_server

TABLES = ("users", "events", "inventory", "carts", "cart_items")
Rows = dict[str, dict[Any, tuple[Any, ...]]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def connection(server: Server) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(**server.arguments) as connection:
        connection.execute("DROP SCHEMA IF EXISTS web CASCADE")
        connection.execute("SET TimeZone = 'Asia/Tokyo'")  # where a day is another day
        connection.commit()
        yield connection


def rows(connection: psycopg.Connection[Any]) -> dict[str, list[tuple[Any, ...]]]:
    return {name: connection.execute(f"SELECT * FROM web.{name} ORDER BY 1, 2".encode()).fetchall() for name in TABLES}


def by_key(table: list[tuple[Any, ...]]) -> dict[Any, tuple[Any, ...]]:
    return {row[0]: row for row in table}


def test_the_same_seed_gives_the_same_shop_and_another_one_another(connection: psycopg.Connection[Any]) -> None:
    shops = []
    for seed in (1, 1, 2):
        connection.execute("DROP SCHEMA IF EXISTS web CASCADE")
        web.create(connection, users=60, days=3, seed=seed)
        assert web.next_day(connection, seed) == date(2026, 1, 4)
        shops.append(rows(connection))

    assert shops[0] == shops[1]
    assert all(shops[0][name] != shops[2][name] for name in TABLES)


def test_it_has_what_makes_copying_hard(connection: psycopg.Connection[Any]) -> None:
    web.create(connection)

    users, events = (rows(connection)[name] for name in ("users", "events"))
    names = {user[2] for user in users}
    assert {None, ""} <= names
    assert {user[7] is None for user in users} == {True, False}
    assert {event[4].date() for event in events} >= {date(2026, 1, day) for day in (1, 2, 3, 4, 5)}
    assert any((event[5] - event[4]).days >= 1 for event in events), "none came late"
    assert any("\n" in event[3].get("page", "") for event in events)


def test_a_day_brings_every_kind_of_change(connection: psycopg.Connection[Any]) -> None:
    web.create(connection)
    before = rows(connection)

    web.next_day(connection)

    after = rows(connection)
    was, now = by_key(before["users"]), by_key(after["users"])
    watermark = max(user[7] for user in was.values() if user[7])
    assert was.keys() - now.keys(), "nobody was deleted"
    new = [user for key, user in now.items() if key not in was]
    assert {user[7] > watermark for user in new} == {True, False}, "of the new ones some come late, others do not"
    both = [(was[key], now[key]) for key in was.keys() & now.keys()]
    assert any(old != new and new[7] and new[7] > watermark for old, new in both), "nobody changed"
    assert any(old != new and new[7] is None for old, new in both), "nobody changed without an update key"
    late = [event for event in after["events"] if event not in before["events"]]
    watermark = max(event[4] for event in before["events"])
    assert {event[4] > watermark for event in late} == {True, False}
    articles = {row[1] for row in before["inventory"]}, {row[1] for row in after["inventory"]}
    assert articles[0] - articles[1]
    assert articles[1] - articles[0]
    assert {row[:3] for row in after["inventory"]} != {row[:3] for row in before["inventory"]}
    assert {row[2] for row in after["carts"]} == {"open", "ordered"}


def test_the_command_fills_the_database_that_the_environment_names(
    server: Server, connection: psycopg.Connection[Any]
) -> None:
    given = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        "PGPASSWORD": server.password,
        "PGDATABASE": server.database,
    }
    said = [
        subprocess.run(
            [sys.executable, "-m", "include.sample_data.web", *words],
            cwd=ROOT,
            env=os.environ | given,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for words in (["--users", "50", "--days", "2"], ["--next-day"])
    ]

    assert said == ["web: 50 users, 2 days from 2026-01-01 on\n", "2026-01-03 has passed\n"]
    assert len(rows(connection)["users"]) >= 50
