"""`query`: look into the DuckDB file, read-only."""

from __future__ import annotations

import re
import sys

import duckdb
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from include.elt.local.console import make_console
from include.elt.local.errors import StartError
from include.elt.paths import shown
from include.elt.settings import load_settings

MAX_ROWS = 100
"""Rows that are shown."""

_NUMBERS = ("INT", "DECIMAL", "DOUBLE", "FLOAT", "HUGEINT")


def query_warehouse(sql: str) -> int:
    """The command.

    Args:
        sql: a query in DuckDB's SQL.

    Returns:
        The exit code: 0, or 1 when DuckDB refuses the query.

    Raises:
        SettingsError: a setting is not allowed.
        StartError: the file does not exist or is in use.
    """
    settings = load_settings()
    file = settings.duckdb_path
    if not file.is_file():
        raise StartError(f"{shown(file)} does not exist yet; `make run` makes it")
    try:
        connection = duckdb.connect(str(file), read_only=True)
    except duckdb.IOException as error:
        holder = re.search(r"PID (\d+)", str(error))
        if holder is None:
            raise StartError(f"{shown(file)} cannot be opened: {error}") from error
        raise StartError(f"process {holder[1]} is writing to {shown(file)}; try again when it has ended") from error
    with connection:
        try:
            result = connection.execute(sql)
            columns = [(str(name), str(kind)) for name, kind, *_ in result.description or []]
            rows = result.fetchmany(MAX_ROWS + 1)
        except duckdb.Error as error:
            print(error, file=sys.stderr)
            return 1
    _show(make_console(), columns, rows)
    return 0


def _show(console: Console, columns: list[tuple[str, str]], rows: list[tuple[object, ...]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name, kind in columns:
        table.add_column(Text(name), justify="right" if kind.startswith(_NUMBERS) else "left")
    for row in rows[:MAX_ROWS]:
        table.add_row(*(Text("NULL", style="dim") if value is None else Text(str(value)) for value in row))
    console.print(table)
    if len(rows) > MAX_ROWS:
        console.print(f"the first {MAX_ROWS} rows; there are more")
    else:
        console.print(f"{len(rows)} row{'' if len(rows) == 1 else 's'}")
