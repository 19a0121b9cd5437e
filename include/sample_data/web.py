"""Fill a PostgreSQL database with a small web shop, and let days pass in it.

    export PGHOST=… PGUSER=… PGPASSWORD=… PGDATABASE=…
    python -m include.sample_data.web                        # the schema `web` with five days of history
    python -m include.sample_data.web --users 100000 --days 30
    python -m include.sample_data.web --next-day             # what happened the day after

The same seed gives the same rows, on any machine and server; no clock is asked. A day brings everything that makes
copying a table hard: rows that change, rows without an update key that change all the same, rows that come late, rows
that disappear, and texts that a format could trip over.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg

from include.sample_data.generate import FIRST_NAMES, LAST_NAMES, Dice

FIRST_DAY = date(2026, 1, 1)
COUNTRIES = ("AT", "BR", "CZ", "DE", "DK", "FR", "JP", "MX", "NO", "PL", "TR", "US")
KINDS = ("view", "view", "view", "search", "add_to_cart", "purchase")
PAGES = ("/", "/jaffles", "/cups?size=L&colour=rot%20weiß", "/about us", '/"quoted"', "/new\nline")
SITES = ("north", "south", "test")
ARTICLES = 40

TABLES = """
CREATE SCHEMA web;

CREATE TABLE web.users (
    id uuid PRIMARY KEY,
    email text NOT NULL UNIQUE,
    display_name text,
    country text NOT NULL,
    is_subscribed boolean NOT NULL,
    credit numeric(12, 2) NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz -- NULL: came from the old shop, and was not changed by its user since
);
CREATE INDEX ON web.users (updated_at);

CREATE TABLE web.events (
    id bigint PRIMARY KEY,
    user_id uuid NOT NULL,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    occurred_at timestamptz NOT NULL,
    ingested_at timestamptz NOT NULL
);
CREATE INDEX ON web.events (occurred_at);

CREATE TABLE web.inventory (
    site text,
    sku text,
    on_hand integer NOT NULL,
    reserved integer NOT NULL,
    unit_cost numeric(12, 4) NOT NULL,
    is_orderable boolean NOT NULL,
    counted_by text,
    counted_at timestamptz NOT NULL,
    PRIMARY KEY (site, sku)
);

CREATE TABLE web.carts (
    id bigint PRIMARY KEY,
    user_id uuid NOT NULL,
    state text NOT NULL,
    opened_at timestamptz NOT NULL
);
CREATE TABLE web.cart_items (
    cart_id bigint REFERENCES web.carts,
    sku text,
    pieces integer NOT NULL,
    unit_price numeric(12, 2) NOT NULL,
    PRIMARY KEY (cart_id, sku)
);
"""

Connection = psycopg.Connection[Any]


def create(connection: Connection, users: int = 200, days: int = 5, seed: int = 1) -> None:
    """Make the schema `web` and play the days from `FIRST_DAY` on. Commits.

    Args:
        connection: to a database that has no such schema yet.
        users: accounts of the first day; each causes one or two events a day.
        days: how many.
        seed: another one gives other rows.
    """
    connection.execute(TABLES.encode())
    dice = Dice(seed)
    # Half of the accounts are those of the old shop, without a time of change.
    _copy(connection, "users", (_user(dice, _moment(FIRST_DAY, dice), old=n % 2 == 0) for n in range(users)))
    _copy(connection, "inventory", (_level(dice, site, n, FIRST_DAY) for site in SITES for n in range(ARTICLES)))
    for n in range(days):
        _play(connection, FIRST_DAY + timedelta(days=n), Dice(seed * 1000 + n))
    connection.commit()


def next_day(connection: Connection, seed: int = 1) -> date:
    """Play the day after the last one, which also changes, adds and removes users and articles. Commits.

    Returns:
        The day.
    """
    last: date = _scalar(connection, "SELECT (max(ingested_at) AT TIME ZONE 'UTC')::date FROM web.events")
    day = last + timedelta(days=1)
    dice = Dice(seed * 1000 + (day - FIRST_DAY).days)
    users = [row[0] for row in connection.execute("SELECT id FROM web.users ORDER BY id").fetchall()]
    changed, silent, deleted, late = (max(1, len(users) // part) for part in (10, 25, 40, 50))
    for user in _some(users, changed, dice):
        connection.execute(
            "UPDATE web.users SET credit = credit + 5, is_subscribed = NOT is_subscribed, display_name = %s,"
            " updated_at = %s WHERE id = %s",
            [dice.pick(("", None, "a, b", 'c "d"', "e\nf")), _moment(day, dice), user],
        )
    # A correction by hand, which leaves the update key alone: it has none, and so the row is read all the same.
    old = [row[0] for row in connection.execute("SELECT id FROM web.users WHERE updated_at IS NULL ORDER BY id")]
    for user in _some(old, silent, dice):
        connection.execute("UPDATE web.users SET credit = credit + 0.01 WHERE id = %s", [user])
    for user in _some(users, deleted, dice):
        connection.execute("DELETE FROM web.users WHERE id = %s", [user])
    # Made yesterday in an app that was offline, so that rows with a later update key have been read already.
    _copy(connection, "users", (_user(dice, _moment(last, dice)) for _ in range(late)))
    connection.execute(
        "UPDATE web.inventory SET on_hand = greatest(0, on_hand + (ascii(right(sku, 1)) + %s) %% 7 - 3),"
        " counted_at = %s",
        [day.toordinal(), _moment(day, dice)],
    )
    _copy(connection, "inventory", [_level(dice, "north", ARTICLES + (day - FIRST_DAY).days, day)])
    connection.execute("DELETE FROM web.inventory WHERE sku = (SELECT min(sku) FROM web.inventory)")
    _play(connection, day, dice)
    connection.commit()
    return day


def _play(connection: Connection, day: date, dice: Dice) -> None:
    """A day on the site: accounts are opened, events arrive, some days late, baskets are opened and ordered."""
    known = _scalar(connection, "SELECT count(*) FROM web.users")
    _copy(connection, "users", (_user(dice, _moment(day, dice)) for _ in range(1 + known // 40)))
    users = [row[0] for row in connection.execute("SELECT id FROM web.users ORDER BY id").fetchall()]
    number = _scalar(connection, "SELECT coalesce(max(id), 0) FROM web.events")
    count = len(users) + dice.below(len(users))
    _copy(connection, "events", (_event(dice, number + 1 + n, dice.pick(users), day) for n in range(count)))
    connection.execute("UPDATE web.carts SET state = 'ordered' WHERE id %% 3 = %s", [day.toordinal() % 3])
    number = _scalar(connection, "SELECT coalesce(max(id), 0) FROM web.carts")
    carts = range(number + 1, number + 2 + len(users) // 20)
    _copy(connection, "carts", ((cart, dice.pick(users), "open", _moment(day, dice)) for cart in carts))
    _copy(
        connection,
        "cart_items",
        (
            (cart, f"sku-{n:03}", 1 + dice.below(5), Decimal(100 + dice.below(9900)) / 100)
            for cart in carts
            for n in range(1 + dice.below(4))
        ),
    )


def _user(dice: Dice, opened: datetime, *, old: bool = False) -> tuple[Any, ...]:
    identity = UUID(int=sum(dice.below(2**32) << 32 * part for part in range(4)), version=4)
    name = f"{dice.pick(FIRST_NAMES)} {dice.pick(LAST_NAMES)}"
    return (
        identity,
        f"{identity.hex[:12]}@example.com",
        None if dice.chance(10) else "" if dice.chance(5) else name,
        dice.pick(COUNTRIES),
        dice.chance(60),
        Decimal(dice.below(10_000)) / 100,
        opened,
        None if old else opened + timedelta(microseconds=dice.below(10**6)),
    )


def _event(dice: Dice, number: int, user: UUID, day: date) -> tuple[Any, ...]:
    """An event that reaches the shop on a day; one of ten happened up to three days before."""
    ingested = _moment(day, dice)
    occurred = ingested - timedelta(minutes=dice.below(3 * 24 * 60)) if dice.chance(10) else ingested
    first = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC)
    kind = dice.pick(KINDS)
    payload: dict[str, Any] = {} if dice.chance(20) else {"page": dice.pick(PAGES)}
    if kind == "purchase":
        payload["amount"] = f"{(100 + dice.below(9900)) / 100:.2f}"
    return number, user, kind, json.dumps(payload, ensure_ascii=False), max(occurred, first), ingested


def _level(dice: Dice, site: str, article: int, day: date) -> tuple[Any, ...]:
    on_hand = dice.below(500)
    return (
        site,
        f"sku-{article:03}",
        on_hand,
        dice.below(20),
        Decimal(dice.below(10**6)) / 10**4,
        dice.chance(90),
        dice.pick(LAST_NAMES),
        _moment(day, dice),
    )


def _moment(day: date, dice: Dice) -> datetime:
    """A time of a day, to the millisecond, so that some share it where there are many."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(milliseconds=dice.below(24 * 3600 * 1000))


def _some(items: Sequence[Any], count: int, dice: Dice) -> Iterator[Any]:
    """Some of the items, each once at most."""
    left = list(items)
    for _ in range(min(count, len(left))):
        yield left.pop(dice.below(len(left)))


def _copy(connection: Connection, table: str, rows: Iterator[tuple[Any, ...]] | Sequence[tuple[Any, ...]]) -> None:
    with connection.cursor().copy(f"COPY web.{table} FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row(row)


def _scalar(connection: Connection, query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def main() -> None:
    """Do what the command line says; which database, libpq's own variables say."""
    parser = argparse.ArgumentParser(
        description="A small web shop in PostgreSQL; libpq's variables say where (PGHOST, …)"
    )
    parser.add_argument("--users", type=int, default=200, help="accounts of the first day (200)")
    parser.add_argument("--days", type=int, default=5, help="days of history (5)")
    parser.add_argument("--seed", type=int, default=1, help="another one gives other rows (1)")
    parser.add_argument("--next-day", action="store_true", help="let a day pass in a shop that is there already")
    given = parser.parse_args()
    with psycopg.connect("") as connection:
        if given.next_day:
            print(f"{next_day(connection, given.seed)} has passed")
        else:
            create(connection, given.users, given.days, given.seed)
            print(f"web: {given.users} users, {given.days} days from {FIRST_DAY} on")


if __name__ == "__main__":
    main()
