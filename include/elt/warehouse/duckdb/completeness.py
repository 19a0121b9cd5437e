"""The completeness history: a row per day and table, which the daily report writes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import date

import duckdb

from include.elt.sql import literal, quoted
from include.elt.warehouse import COMPLETENESS, DAYS, Completeness
from include.elt.warehouse.duckdb.table import one

log = logging.getLogger(__name__)

_COLUMNS = {
    "day": "DATE NOT NULL",
    "table_name": "VARCHAR NOT NULL",
    "rows": "BIGINT",
    "rows_usual": "BIGINT",
    "updated_at": "TIMESTAMP WITH TIME ZONE",
    "findings": "VARCHAR",
    "run_id": "VARCHAR NOT NULL",
    "measured_at": "TIMESTAMP WITH TIME ZONE NOT NULL",
}


def rows(sql: duckdb.DuckDBPyConnection, tables: Iterable[str]) -> dict[str, int]:
    """Rows of those tables and views that are there and can be read."""
    there = {
        f"{schema}.{name}"
        for schema, name in sql.execute(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = current_database()"
        ).fetchall()
    }
    found = {}
    for table in tables:
        if table not in there:
            continue
        try:
            found[table] = one(sql, f"SELECT count(*) FROM {quoted(table)}")
        except (duckdb.BinderException, duckdb.CatalogException) as error:  # a view of something that is gone
            log.warning("%s cannot be counted: %s", table, error)
    return found


def earlier(sql: duckdb.DuckDBPyConnection, day: date) -> dict[str, tuple[int, ...]]:
    """Rows on the last days before one by table, the newest first."""
    if not _exists(sql):
        return {}
    listed = sql.execute(
        f"SELECT table_name, rows FROM {COMPLETENESS} WHERE day < {literal(day.isoformat())} AND rows IS NOT NULL"
        f" QUALIFY row_number() OVER (PARTITION BY table_name ORDER BY day DESC) <= {DAYS}"
        " ORDER BY table_name, day DESC"
    ).fetchall()
    found: dict[str, tuple[int, ...]] = {}
    for table, number in listed:
        found[table] = (*found.get(table, ()), number)
    return found


def write(sql: duckdb.DuckDBPyConnection, day: date, run_id: str, found: Sequence[Completeness]) -> None:
    """Write the rows of a day, in one transaction; they take the place of earlier ones of that day."""
    lines = []
    for each in found:
        updated_at = each.updated_at.isoformat() if each.updated_at else None
        findings = "; ".join(each.findings) or None
        values = [day.isoformat(), each.table, each.rows, each.rows_usual, updated_at, findings, run_id]
        lines.append(", ".join("NULL" if value is None else literal(str(value)) for value in values))
    sql.execute("BEGIN")
    sql.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(COMPLETENESS.split('.')[0])}")
    columns = ", ".join(f"{name} {data_type}" for name, data_type in _COLUMNS.items())
    sql.execute(f"CREATE TABLE IF NOT EXISTS {COMPLETENESS} ({columns})")
    sql.execute(f"DELETE FROM {COMPLETENESS} WHERE day = {literal(day.isoformat())}")
    rows_of_day = ", ".join(f"({line}, now())" for line in lines)
    sql.execute(f"INSERT INTO {COMPLETENESS} ({', '.join(_COLUMNS)}) VALUES {rows_of_day}")
    sql.execute("COMMIT")


def _exists(sql: duckdb.DuckDBPyConnection) -> bool:
    name = f"schema_name || '.' || table_name = {literal(COMPLETENESS)} AND database_name = current_database()"
    return sql.execute(f"SELECT 1 FROM duckdb_tables() WHERE {name}").fetchone() is not None
