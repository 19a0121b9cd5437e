"""A stream from SQL Server into DuckDB, run after run: equal to its source, whatever happens in between."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from include.elt.errors import ExtractError, RefusedLoadError
from include.elt.modes import Span
from tests.support.elt import Row
from tests.support.tds import DEADLOCK

COLUMNS = {"id": "bigint", "upd": "timestamp_ntz", "a": "string", "amount": "decimal(12,2)"}
KEYS: dict[str, Any] = {"mode": "incremental", "update_key": "upd"}
NAMES = ", ".join(COLUMNS)
TABLE = "id bigint NOT NULL PRIMARY KEY, upd {} NULL, a nvarchar(50), amount decimal(12,2)"


def start(number: int) -> datetime:
    return datetime(2026, 1, 1) + timedelta(minutes=number // 10)


def create(bench: Any, rows: int = 1000, upd: str = "datetime") -> None:
    values = [(each, start(each), f'order "{each}"', Decimal(each * 33) / 100) for each in range(1, rows + 1)]
    bench.create(TABLE.format(upd), values)


def of_source(bench: Any) -> list[Row]:
    return sorted(bench.server.execute(f"SELECT {NAMES} FROM {bench.table}"))


def of_warehouse(bench: Any) -> list[Row]:
    return sorted(bench.query(f"SELECT {NAMES} FROM raw.orders"))


def live(bench: Any, hour: int) -> None:
    """An hour in the life of a table: equal, late and NULL update keys, new rows, updates, deletes."""
    [(latest,)] = bench.server.execute(f"SELECT MAX(upd) FROM {bench.table}")
    later = (latest + timedelta(minutes=1)).isoformat(" ", "milliseconds")
    for sql in (
        f"UPDATE {bench.table} SET a = a + N'+', upd = '{later}' WHERE id % 97 = {hour}",
        f"UPDATE {bench.table} SET amount = 5.25 WHERE upd IS NULL",
        f"DELETE FROM {bench.table} WHERE id % 89 = {hour}",
    ):
        bench.server.execute(sql)
    new = 10_000 + 10 * hour
    late = latest - timedelta(minutes=30)
    rows = [(new, latest, "equal", 1), (new + 1, late, "late", 2), (new + 2, None, "never", 3)]
    bench.server.insert(bench.table, [(key, upd, a, Decimal(amount)) for key, upd, a, amount in rows])


@pytest.mark.parametrize("upd", ["datetime", "datetime2(3)"])
def test_three_runs(mssql: Any, upd: str) -> None:
    create(mssql, upd=upd)
    keys = KEYS | {"meta": {"lookback": "1 hour", "deletes": "hard", "reconcile": "exact", "parallel": 2}}
    first = mssql.pipeline(COLUMNS, keys)
    assert (first.rows_inserted, first.rows_total) == (1000, 1000)
    for hour in (1, 2):
        live(mssql, hour)
        again = mssql.pipeline(COLUMNS, keys)
        assert of_warehouse(mssql) == of_source(mssql)
        assert again.rows_read < 950
        assert again.rows_total == again.source_rows
    last = mssql.pipeline(COLUMNS, keys)
    assert (last.rows_inserted, last.rows_updated, last.rows_deleted) == (0, 0, 0)


@pytest.mark.parametrize("fault", ["deadlock", "drop"])
@pytest.mark.parametrize("way", [0, -1], ids=["blocks", "row by row"])
def test_three_runs_with_failures_in_mid_stream(faulty: Any, fault: str, way: int) -> None:
    create(faulty, 3000)
    faulty.way = way
    keys = KEYS | {"meta": {"lookback": "1 hour", "deletes": "hard", "reconcile": "exact"}}
    faulty.pipeline(COLUMNS, keys)
    for hour in (1, 2):
        live(faulty, hour)
        before = of_warehouse(faulty)
        pattern = "^SELECT (ISNULL|CONVERT)"
        faulty.tds.fail(pattern, DEADLOCK, 9, 1) if fault == "deadlock" else faulty.tds.drop(pattern, 9, 1)
        with pytest.raises(ExtractError) as caught:
            faulty.pipeline(COLUMNS, keys)
        assert not caught.value.final, "Airflow tries again"
        assert of_warehouse(faulty) == before
        assert any(entry.error or entry.dropped for entry in faulty.tds.journal)
        faulty.tds.forget()
        faulty.pipeline(COLUMNS, keys)
        assert of_warehouse(faulty) == of_source(faulty)
    assert not faulty.work_folders()


@pytest.mark.parametrize("upd", ["datetime", "datetime2(7)"])
def test_the_last_row_is_not_lost_run_after_run(mssql: Any, upd: str) -> None:
    """A datetime of .003 is .00333 to SQL Server and .003 to everybody else."""
    mssql.create(TABLE.format(upd))
    for number, fraction in enumerate((3000, 3000, 3000, 7000, 7000, 10000)):
        at = datetime(2026, 1, 1, 0, 0, 0, fraction)
        mssql.server.insert(mssql.table, [(number, at, "x", Decimal(1))])
        mssql.pipeline(COLUMNS, KEYS)
        assert of_warehouse(mssql) == of_source(mssql)


def test_an_added_column(mssql: Any) -> None:
    create(mssql, 100)
    keys = KEYS | {"meta": {"on_schema_change": "add"}}
    mssql.pipeline(COLUMNS, keys)
    mssql.server.execute(f"ALTER TABLE {mssql.table} ADD extra int NULL")
    mssql.server.execute(f"UPDATE {mssql.table} SET extra = 8, upd = '2026-02-01' WHERE id = 50")
    mssql.pipeline(COLUMNS, keys)
    assert mssql.query("SELECT extra FROM raw.orders WHERE id = 50") == [(8,)]


def test_a_late_row_beyond_the_lookback_is_found_by_reconciliation(mssql: Any) -> None:
    create(mssql, 100)
    keys = KEYS | {"meta": {"reconcile": "exact"}}
    mssql.pipeline(COLUMNS, keys)
    mssql.server.insert(mssql.table, [(1000, datetime(2025, 1, 1), "late", Decimal(1))])
    with pytest.raises(RefusedLoadError, match="101"):
        mssql.pipeline(COLUMNS, keys)
    mssql.pipeline(COLUMNS, keys, span=Span(range=("2025-01-01", "2025-01-01")))
    assert of_warehouse(mssql) == of_source(mssql)
