"""Fill the sources of compose.yml with the sample data: `python -m include.sample_data.seed postgres | s3 | mssql …`.

What is filled already stays as it is, so it can run at every start. Where each is and how to get in, environment
variables say; `SOURCES` has them.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from include.elt.paths import SAMPLE_DATA
from include.sample_data import web

SHOP_TABLES = {
    "raw_customers": ("id integer PRIMARY KEY", "first_name varchar(100)", "last_name varchar(100)"),
    "raw_orders": ("id integer PRIMARY KEY", "user_id integer", "order_date date", "status varchar(50)"),
    "raw_payments": ("id integer PRIMARY KEY", "order_id integer", "payment_method varchar(50)", "amount integer"),
}
"""The shop's tables, in words that PostgreSQL and SQL Server both know."""

READER = "reader"
BUCKET, PREFIX = "shop", "files"


def rows_of(table: str, folder: Path = SAMPLE_DATA) -> Iterator[Sequence[str]]:
    """The rows of a table of the shop, as text."""
    with (folder / f"{table}.csv").open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        next(reader)
        yield from reader


def seed_postgres(environ: Mapping[str, str]) -> str:
    """Make the databases `shop` and `web`, and the user `reader` that may only read them.

    Args:
        environ: `SEED_POSTGRES_HOST`, `_PORT`, `_USER`, `_PASSWORD`, and `SEED_READER_PASSWORD`.

    Returns:
        What was done.
    """
    server = make_conninfo(
        host=environ["SEED_POSTGRES_HOST"],
        port=environ.get("SEED_POSTGRES_PORT", "5432"),
        user=environ["SEED_POSTGRES_USER"],
        password=environ["SEED_POSTGRES_PASSWORD"],
    )
    done = []
    with psycopg.connect(server, dbname="postgres", autocommit=True) as connection:
        there = {row[0] for row in connection.execute("SELECT datname FROM pg_database").fetchall()}
        for name in {"shop", "web"} - there:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [READER]).fetchall():
            connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(READER)))
        # Each time, so that a new password of .env counts. The server would log a literal, if it logs statements.
        connection.execute("SET log_statement = 'none'")
        connection.execute(
            sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
                sql.Identifier(READER), sql.Literal(environ["SEED_READER_PASSWORD"])
            )
        )
    with psycopg.connect(server, dbname="shop") as connection:
        for table, columns in SHOP_TABLES.items():
            if connection.execute("SELECT to_regclass(%s)", [f"public.{table}"]).fetchone() == (None,):
                connection.execute(f"CREATE TABLE public.{table} ({', '.join(columns)})".encode())
                with connection.cursor().copy(f"COPY public.{table} FROM STDIN".encode()) as copy:
                    for row in rows_of(table):
                        copy.write_row(row)
                done.append(f"shop.{table}")
        _may_read(connection, "public")
    with psycopg.connect(server, dbname="web") as connection:
        if not connection.execute("SELECT FROM pg_namespace WHERE nspname = 'web'").fetchall():
            web.create(connection)
            done.append("web")
        _may_read(connection, "web")
    return ", ".join(done) or "filled already"


def _may_read(connection: psycopg.Connection[Any], schema: str) -> None:
    names = {"schema": sql.Identifier(schema), "reader": sql.Identifier(READER)}
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {schema} TO {reader}").format(**names))
    connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {reader}").format(**names))


def seed_s3(environ: Mapping[str, str]) -> str:
    """Make the bucket `shop` with the shop's files under `files/`.

    Args:
        environ: `SEED_S3_ENDPOINT`, `SEED_S3_ACCESS_KEY`, `SEED_S3_SECRET_KEY`.

    Returns:
        What was done.
    """
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=environ["SEED_S3_ENDPOINT"],
        aws_access_key_id=environ["SEED_S3_ACCESS_KEY"],
        aws_secret_access_key=environ["SEED_S3_SECRET_KEY"],
        region_name="us-east-1",
    )
    if BUCKET not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=BUCKET)
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/").get("Contents", [])
    there = {each["Key"] for each in listed}
    done = []
    for table in SHOP_TABLES:
        key = f"{PREFIX}/{table}.csv"
        if key not in there:
            client.put_object(Bucket=BUCKET, Key=key, Body=(SAMPLE_DATA / f"{table}.csv").read_bytes())
            done.append(key)
    return ", ".join(done) or "filled already"


def seed_mssql(environ: Mapping[str, str]) -> str:
    """Make the database `shop` with the shop's tables.

    Args:
        environ: `SEED_MSSQL_HOST`, `_PORT`, `_USER`, `_PASSWORD`.

    Returns:
        What was done.
    """
    import pymssql

    def connect(database: str) -> Any:
        return pymssql.connect(
            server=environ["SEED_MSSQL_HOST"],
            port=environ.get("SEED_MSSQL_PORT", "1433"),
            user=environ.get("SEED_MSSQL_USER", "sa"),
            password=environ["SEED_MSSQL_PASSWORD"],
            database=database,
            login_timeout=30,
            autocommit=database == "master",
        )

    done = []
    with closing(connect("master")) as connection, connection.cursor() as cursor:
        cursor.execute("IF DB_ID('shop') IS NULL CREATE DATABASE shop")
    with closing(connect("shop")) as connection, connection.cursor() as cursor:
        for table, columns in SHOP_TABLES.items():
            cursor.execute("SELECT OBJECT_ID(%s)", (f"dbo.{table}",))
            if cursor.fetchone()[0] is None:
                cursor.execute(f"CREATE TABLE dbo.{table} ({', '.join(columns).replace('varchar', 'nvarchar')})")
                marks = ", ".join(["%s"] * len(columns))
                cursor.executemany(f"INSERT INTO dbo.{table} VALUES ({marks})", [tuple(row) for row in rows_of(table)])  # noqa: S608
                done.append(f"shop.dbo.{table}")
        connection.commit()
    return ", ".join(done) or "filled already"


SOURCES: dict[str, Callable[[Mapping[str, str]], str]] = {
    "postgres": seed_postgres,
    "s3": seed_s3,
    "mssql": seed_mssql,
}


def main(names: Sequence[str]) -> int:
    """Fill the named sources; returns the exit code."""
    unknown = sorted(set(names) - SOURCES.keys())
    if unknown or not names:
        print(f"usage: python -m include.sample_data.seed {' | '.join(SOURCES)} …", file=sys.stderr)
        return 2
    for name in names:
        print(f"{name}: {SOURCES[name](os.environ)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
