"""The completeness history in DuckDB: a row per day and table, never two, and nothing on a fresh installation."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import duckdb
import pytest

from include.elt.contract import read_contracts
from include.elt.errors import LoadError, WarehouseBusyError
from include.elt.warehouse import COMPLETENESS, DAYS, Completeness, Counted
from include.elt.warehouse.duckdb.table import contract_type
from tests.support.elt import Bench
from tests.support.processes import held

DAY = date(2026, 3, 1)
AT = datetime(2026, 3, 1, 5, tzinfo=UTC)


def row(table: str = "raw.orders", rows: int | None = 7, *findings: str) -> Completeness:
    return Completeness(table, rows, 6, AT, findings)


def written(bench: Bench, columns: str = "day, table_name, rows") -> list[Any]:
    return bench.query(f"SELECT {columns} FROM {COMPLETENESS} ORDER BY day, table_name")


def make(bench: Bench) -> None:
    for statement in (
        "CREATE SCHEMA raw",
        "CREATE SCHEMA anna_marts",
        "CREATE TABLE raw.orders AS SELECT * FROM range(7)",
        'CREATE TABLE raw."odd ""name" AS SELECT 1 AS x',
        "CREATE VIEW anna_marts.orders AS SELECT * FROM raw.orders WHERE range < 3",
    ):
        bench.query(statement)


def test_a_fresh_installation_has_no_rows_and_no_file(bench: Bench) -> None:
    counted = bench.warehouse().count_all({"raw.orders": "raw.orders"}, DAY)
    bench.warehouse().write_completeness(DAY, "run 1", [])
    bench.warehouse().write_completeness(DAY, "run 1", [row(rows=None)])

    assert counted == {"raw.orders": Counted(None, ())}
    assert not bench.database.exists(), "a warehouse that is lost is not made anew by a report"


def test_tables_and_views_are_counted_under_the_name_that_they_have_everywhere(bench: Bench) -> None:
    make(bench)
    tables = {"raw.orders": "raw.orders", "marts.orders": "anna_marts.orders", "raw.gone": "raw.gone"}
    tables |= {'raw.odd "name': 'raw.odd "name'}

    counted = bench.warehouse().count_all(tables, DAY)

    assert {name: each.rows for name, each in counted.items()} == {
        "raw.orders": 7,
        "marts.orders": 3,
        "raw.gone": None,
        'raw.odd "name': 1,
    }


def test_a_view_of_something_that_is_gone_does_not_keep_the_others_from_being_counted(bench: Bench) -> None:
    make(bench)
    bench.query("ALTER TABLE raw.orders RENAME TO renamed")

    counted = bench.warehouse().count_all({name: name for name in ("anna_marts.orders", "raw.renamed")}, DAY)

    assert (counted["anna_marts.orders"].rows, counted["raw.renamed"].rows) == (None, 7)


def test_a_row_says_what_was_found(bench: Bench) -> None:
    make(bench)
    bench.warehouse().write_completeness(DAY, "it's run 1", [row("raw.o'x", 7, "late: 37 h", "shrank: 7 rows")])

    assert written(bench, "day, table_name, rows, rows_usual, updated_at, findings, run_id") == [
        (DAY, "raw.o'x", 7, 6, AT, "late: 37 h; shrank: 7 rows", "it's run 1")
    ]
    assert written(bench, "measured_at <= now(), measured_at > now() - INTERVAL 1 HOUR") == [(True, True)]


def test_a_day_that_is_counted_again_has_its_new_rows_only(bench: Bench) -> None:
    make(bench)
    warehouse = bench.warehouse()
    warehouse.write_completeness(date(2026, 2, 28), "run 0", [row(rows=5)])
    for run, rows in (("run 1", 7), ("run 1", 7), ("run 2", 8)):
        warehouse.write_completeness(DAY, run, [row(rows=rows), row("marts.orders", None, "gone")])

    assert written(bench) == [
        (date(2026, 2, 28), "raw.orders", 5),
        (DAY, "marts.orders", None),
        (DAY, "raw.orders", 8),
    ]
    assert warehouse.count_all({"raw.orders": "raw.orders"}, DAY)["raw.orders"] == Counted(7, (5,)), (
        "today is not before"
    )


def test_the_newest_days_come_first_and_a_day_without_rows_does_not_count(bench: Bench) -> None:
    make(bench)
    warehouse = bench.warehouse()
    for day in range(1, DAYS + 6):
        warehouse.write_completeness(date(2026, 2, day), f"run {day}", [row(rows=None if day == 25 else day)])

    earlier = warehouse.count_all({"raw.orders": "raw.orders"}, DAY)["raw.orders"].earlier

    assert earlier == tuple(range(24, 24 - DAYS, -1))


def test_a_write_that_fails_leaves_the_day_as_it_was(bench: Bench) -> None:
    make(bench)
    bench.warehouse().write_completeness(DAY, "run 1", [row()])
    with pytest.raises(LoadError, match=r"ops\.completeness could not be written and is as before"):
        bench.warehouse().write_completeness(DAY, "run 2", [row(rows=2**63)])

    assert written(bench) == [(DAY, "raw.orders", 7)]


def test_a_file_that_somebody_holds_is_waited_for_and_named(bench: Bench) -> None:
    make(bench)
    with held(bench, 60), pytest.raises(WarehouseBusyError, match="is held by process"):
        bench.warehouse().count_all({"raw.orders": "raw.orders"}, DAY)


def test_the_columns_are_those_that_the_dbt_project_describes(bench: Bench) -> None:
    make(bench)
    bench.warehouse().write_completeness(DAY, "run 1", [row()])
    with duckdb.connect(str(bench.database)) as sql:
        described = sql.execute(f"DESCRIBE {COMPLETENESS}").fetchall()

    declared = read_contracts()[COMPLETENESS]
    assert [(name, contract_type(kind)) for name, kind, *_ in described] == [
        (column.name, column.data_type) for column in declared.columns
    ]
