"""The completeness history: a row per day and table, which the daily report writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from include.elt.warehouse import COMPLETENESS, DAYS, Completeness
from include.elt.warehouse.databricks.loadlog import make_schema
from include.elt.warehouse.databricks.session import MissingTableError, Session
from include.elt.warehouse.databricks.table import Table
from include.elt.warehouse.databricks.text import listed, literal, quoted

_COLUMNS = {
    "day": "date",
    "table_name": "string",
    "rows": "bigint",
    "rows_usual": "bigint",
    "updated_at": "timestamp",
    "findings": "string",
    "run_id": "string",
    "measured_at": "timestamp",
}


def rows(sql: Session, tables: Iterable[str]) -> dict[str, int]:
    """Rows of those tables and views that are there and can be read."""
    found = {}
    for table in tables:
        try:
            found[table] = sql.one(f"SELECT count(*) FROM {sql.qualified(table)}")
        except MissingTableError:
            continue
    return found


def earlier(sql: Session, day: date) -> dict[str, tuple[int, ...]]:
    """Rows on the last days before one by table, the newest first."""
    history = Table(sql, COMPLETENESS)
    if not history.exists:
        return {}
    newest = f"row_number() OVER (PARTITION BY table_name ORDER BY {quoted('day')} DESC)"
    before = f"{quoted('day')} < {_date(day)} AND {quoted('rows')} IS NOT NULL"
    found: dict[str, tuple[int, ...]] = {}
    for table, number, _ in sql.rows(
        f"SELECT * FROM (SELECT table_name, {quoted('rows')}, {newest} AS place FROM {history.quoted} WHERE {before})"
        f" WHERE place <= {DAYS} ORDER BY table_name, place"
    ):
        found[table] = (*found.get(table, ()), number)
    return found


def write(sql: Session, day: date, run_id: str, found: Sequence[Completeness]) -> None:
    """Write the rows of a day, in one statement; they take the place of earlier ones of that day."""
    history = Table(sql, COMPLETENESS)
    if not history.exists:
        make_schema(sql, COMPLETENESS)
        shape = ", ".join(f"{quoted(name)} {data_type}" for name, data_type in _COLUMNS.items())
        sql.run(f"CREATE TABLE IF NOT EXISTS {history.quoted} ({shape})")
    lines = []
    for each in found:
        updated_at = each.updated_at.isoformat() if each.updated_at else None
        findings = "; ".join(each.findings) or None
        values = [each.table, each.rows, each.rows_usual, updated_at, findings]
        lines.append(f"({', '.join('NULL' if value is None else literal(str(value)) for value in values)})")
    given = ("table_name", "rows", "rows_usual", "updated_at", "findings")
    casts = ", ".join(f"CAST(v.{quoted(name)} AS {_COLUMNS[name]}) AS {quoted(name)}" for name in given)
    sql.run(
        f"INSERT INTO {history.quoted} REPLACE WHERE {quoted('day')} = {_date(day)}"
        f" SELECT {_date(day)} AS {quoted('day')}, {casts}, {literal(run_id)} AS run_id,"
        f" current_timestamp() AS measured_at FROM VALUES {', '.join(lines)} AS v({listed(given)})"
    )


def _date(day: date) -> str:
    return f"CAST({literal(day.isoformat())} AS date)"
