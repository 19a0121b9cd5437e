"""What an incremental, a split or a shaped read of SQL Server gives: on the stand-in, and on a real server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pytest

from include.elt.errors import DataError, SourceRefusedError
from include.elt.lake import Manifest
from include.elt.modes import Reading, Window
from include.elt.sources.database import SourceColumn
from include.elt.sql import parquet

COLUMNS = {"id": "bigint", "upd": "timestamp_ntz", "a": "string"}
KEYS: dict[str, Any] = {"mode": "incremental", "update_key": "upd"}


def since(lower: str | None, upper: str | None = None, *, closed: bool = True) -> Reading:
    return Reading("incremental", Window("upd", lower, upper, closed))


def extract(bench: Any, reading: Reading, columns: Mapping[str, str] = COLUMNS, **keys: Any) -> tuple[Manifest, Path]:
    manifest, folder = bench.source(columns, keys=KEYS | keys).run("manual__1", reading)
    assert folder is not None
    return manifest, Path(folder)


def ids(bench: Any, reading: Reading, columns: Mapping[str, str] = COLUMNS, **keys: Any) -> list[int]:
    return sorted(row[0] for row in bench.read(columns, reading, keys=KEYS | keys))


def day(number: int) -> datetime:
    return datetime(2026, 1, number)


@pytest.fixture
def orders(ways: Any) -> Any:
    """Orders 1 | 2, 3 | 4, 5 have the days 1 | 2 | 3; order 6 has none, and is in every window."""
    rows = [*((each, day(each // 2 + 1), "x") for each in range(1, 6)), (6, None, "never")]
    ways.create("id bigint NOT NULL PRIMARY KEY, upd datetime2(3), a nvarchar(20)", rows)
    return ways


class TestWindows:
    def test_both_ends_are_in(self, orders: Any) -> None:
        manifest, _ = extract(orders, since("2026-01-02"))
        assert ids(orders, since("2026-01-02")) == [2, 3, 4, 5, 6]
        assert ids(orders, since("2026-01-02", "2026-01-02")) == [2, 3, 6]
        assert ids(orders, since("2026-01-01", "2026-01-02", closed=False)) == [1, 6]
        assert manifest.window == {
            "column": "upd",
            "lower": "2026-01-02",
            "upper": "2026-01-03 00:00:00.000",
            "closed": True,
        }

    def test_without_a_lower_limit_everything_up_to_now_is_read(self, orders: Any) -> None:
        assert ids(orders, since(None)) == [1, 2, 3, 4, 5, 6]

    def test_a_source_without_any_update_key_gives_its_rows(self, orders: Any) -> None:
        orders.server.execute(f"UPDATE {orders.table} SET upd = NULL")
        manifest, _ = extract(orders, since("2026-01-02"))
        assert (manifest.rows, manifest.window and manifest.window["upper"]) == (6, None)

    def test_an_empty_window_is_a_good_extraction(self, orders: Any) -> None:
        orders.server.execute(f"DELETE FROM {orders.table} WHERE upd IS NULL")
        assert extract(orders, since("2030-01-01"))[0].rows == 0

    def test_a_where_is_kept(self, orders: Any) -> None:
        assert ids(orders, since("2026-01-02"), where="id = 3 OR id = 5 OR orders.id = 1") == [3, 5]

    @pytest.mark.parametrize(
        ("declared", "data_type", "values", "lower", "upper"),
        [
            ("datetime", "timestamp_ntz", [day(1), day(2).replace(microsecond=3000), None],
             "2026-01-02 00:00:00.003000", "2026-01-02 00:00:00.003"),
            ("datetime", "timestamp", [day(1), day(2), None], "2026-01-02 01:00:00+01:00", "2026-01-02 00:00:00.000"),
            ("smalldatetime", "timestamp_ntz", [day(1), day(2), None], "2026-01-02", "2026-01-02 00:00:00.000"),
            ("datetime2(7)", "timestamp_ntz", [day(1), day(2).replace(microsecond=123456), None],
             "2026-01-02 00:00:00.123456", "2026-01-02 00:00:00.1234560"),
            ("datetime2(7)", "string", [day(1), day(2).replace(microsecond=123456), None],
             "2026-01-02 00:00:00.1234560", "2026-01-02 00:00:00.1234560"),
            ("datetimeoffset(3)", "timestamp", ["2026-01-01 00:00:00 +01:00", "2026-01-02 00:00:00.5 -02:00", None],
             "2026-01-02 02:00:00.500000+00:00", "2026-01-02 00:00:00.500-02:00"),
            ("date", "date", [date(2026, 1, 1), date(2026, 1, 2), None], "2026-01-02", "2026-01-02"),
            ("int", "int", [-5, 7, None], "7", "7"),
            ("decimal(9,2)", "decimal(9,2)", [Decimal("-1.25"), Decimal("1.50"), None], "1.5", "1.50"),
            ("nvarchar(9) COLLATE Latin1_General_BIN2", "string", ["it", "it's", None], "it's", "it's"),
        ],
    )  # fmt: skip
    def test_an_update_key_of_any_type(
        self, mssql: Any, declared: str, data_type: str, values: list[Any], lower: str, upper: str
    ) -> None:
        mssql.create(f"id bigint NOT NULL PRIMARY KEY, upd {declared} NULL", list(enumerate(values, 1)))
        columns = {"id": "bigint", "upd": data_type}
        manifest, _ = extract(mssql, since(lower), columns)
        assert (manifest.window or {})["upper"] == upper
        assert ids(mssql, since(lower), columns) == [2, 3]
        assert ids(mssql, since(upper, upper), columns) == [2, 3]
        assert ids(mssql, since(None, lower, closed=False), columns) == [1, 3]

    @pytest.mark.parametrize("declared", ["datetime", "smalldatetime", "datetime2(0)", "date"])
    def test_a_limit_may_be_beyond_what_the_type_holds(self, mssql: Any, declared: str) -> None:
        mssql.create(f"id bigint NOT NULL PRIMARY KEY, upd {declared}", [(1, day(1)), (2, None)])
        columns = {"id": "bigint", "upd": "date" if declared == "date" else "timestamp_ntz"}
        assert ids(mssql, since("0001-01-01", "9999-12-31"), columns) == [1, 2]

    def test_a_limit_between_two_values_of_the_type_is_not_rounded(self, mssql: Any) -> None:
        mssql.create("id bigint NOT NULL PRIMARY KEY, upd smalldatetime NOT NULL", [(1, day(1)), (2, day(2))])
        columns = {"id": "bigint", "upd": "timestamp_ntz"}
        assert ids(mssql, since("2026-01-01 00:00:29", "2026-01-02 00:00:29", closed=False), columns) == [2]

    def test_of_duplicates_the_latest_wins_and_the_others_are_counted(self, ways: Any) -> None:
        rows = [(1, day(2), "old"), (1, day(3), "new"), (1, None, "z")]
        rows += [(2, day(1), "b"), (2, day(1), "c"), (2, day(1), "a")]
        ways.create("id bigint, upd datetime, a nvarchar(9)", rows)
        manifest, _ = extract(ways, since(None))
        assert sorted((row[0], row[2]) for row in ways.read(COLUMNS, since(None), keys=KEYS)) == [(1, "new"), (2, "c")]
        assert (manifest.rows_read, manifest.rows, manifest.rows_duplicate) == (6, 2, 4)


class TestQueries:
    def test_a_query_is_read_like_a_table(self, orders: Any) -> None:
        sql = f"SELECT id, upd, a + N'!' AS a FROM {orders.table} WHERE id < 5;"
        rows = orders.read(COLUMNS, since("2026-01-02"), keys=KEYS | {"sql": sql}, table="some_orders")
        assert sorted((row[0], row[2]) for row in rows) == [(2, "x!"), (3, "x!"), (4, "x!")]

    @pytest.mark.parametrize("declared", ["datetime", "datetime2(7)"])
    def test_slings_placeholders_are_filled(self, mssql: Any, declared: str) -> None:
        mssql.create(
            f"id bigint NOT NULL PRIMARY KEY, upd {declared}", [(1, day(1)), (2, day(2)), (3, None), (4, None)]
        )
        sql = (
            "SELECT id, upd, COALESCE(CONVERT(nvarchar(30), {incremental_value}, 121), N'all') AS a"
            f" FROM {mssql.table} WHERE {{incremental_where_cond}} AND id < 4"
        )
        keys = KEYS | {"sql": sql}
        rows = mssql.read(COLUMNS, since("2026-01-02 00:00:00.000000"), keys=keys, table="some_orders")
        assert sorted((row[0], row[2][:19]) for row in rows) == [(each, "2026-01-02 00:00:00") for each in (2, 3)]
        everything = mssql.read(COLUMNS, since(None), keys=keys, table="some_orders")
        assert sorted((row[0], row[2]) for row in everything) == [(each, "all") for each in (1, 2, 3)]


class TestParts:
    """`meta.parallel`: parts neither overlap nor leave a gap."""

    KEYS = {  # noqa: RUF012
        "negative": ("bigint", "bigint", lambda g: g - 500),
        "skewed": ("bigint", "bigint", lambda g: g if g % 10 == 0 else 7),
        "all the same": ("bigint", "bigint", lambda _: 7),
        "null": ("bigint", "bigint", lambda g: None if g % 3 == 0 else g),
        "far apart": ("bigint", "bigint", lambda g: g * 10**15 * (-1) ** g),
        "tinyint": ("tinyint", "smallint", lambda g: g % 256),
        "decimal": ("decimal(20,3)", "decimal(20,3)", lambda g: Decimal(g * 7 - 5000) / 8),
        "date": ("date", "date", lambda g: date(2026, 1, 1) + timedelta(days=g)),
        "datetime": ("datetime", "timestamp_ntz", lambda g: day(1) + timedelta(milliseconds=g * 37)),
        "datetime2": ("datetime2(7)", "string", lambda g: day(1) + timedelta(microseconds=g)),
        "uuid": ("uniqueidentifier", "string", lambda g: UUID(int=g * (2**127 // 1500) + g)),
        "text": ("nvarchar(20) COLLATE Latin1_General_BIN2", "string", lambda g: f"{chr(33 + g % 90)}'é{g}"),
    }

    @pytest.mark.parametrize("name", KEYS)
    def test_a_key_of_any_kind(self, mssql: Any, name: str) -> None:
        declared, data_type, value = self.KEYS[name]
        mssql.create(f"k {declared}, id bigint NOT NULL", [(value(each), each) for each in range(1, 1501)])
        keys = {"primary_key": ["k", "id"], "meta": {"parallel": 4}}
        source = mssql.source({"k": data_type, "id": "bigint"}, keys=keys).source
        work = mssql.root / "work"
        work.mkdir()
        delivery = source.deliver(work, "<null>", Reading())
        with duckdb.connect() as sql:
            rows = sql.execute(delivery.text.select(["id"])).fetchall()
        assert sorted(int(row[0]) for row in rows) == list(range(1, 1501))
        assert delivery.rows == 1500

    @pytest.mark.parametrize("name", ["negative", "uuid", "text"])
    def test_parts_in_blocks(self, mssql: Any, name: str, caplog: pytest.LogCaptureFixture) -> None:
        declared, data_type, value = self.KEYS[name]
        mssql.create(f"id {declared} NOT NULL PRIMARY KEY, a bigint", [(value(each), each) for each in range(1500)])
        with caplog.at_level("INFO"):
            rows = mssql.read({"id": data_type, "a": "bigint"}, keys={"meta": {"parallel": 3}})
        assert sorted(row[1] for row in rows) == list(range(1500))
        assert caplog.text.count("dbo.orders in blocks of") == 3


class TestSchemaChange:
    COLUMNS = {"id": "bigint", "a": "string"}  # noqa: RUF012

    def read(self, bench: Any, policy: str, reading: Reading | None = None) -> tuple[Manifest, list[Any]]:
        source = bench.source(self.COLUMNS, keys={"meta": {"on_schema_change": policy}})
        manifest, folder = source.run("manual__1", reading or Reading())
        return manifest, sorted(_rows(folder))

    def test_an_added_column(self, mssql: Any) -> None:
        mssql.create("id bigint NOT NULL PRIMARY KEY, a nvarchar(9), b decimal(10,2)", [(1, "x", Decimal("2.50"))])
        with pytest.raises(DataError, match=r"the source has b \(decimal\(10,2\)\), which the contract raw\.orders"):
            self.read(mssql, "fail")
        assert self.read(mssql, "ignore")[1] == [(1, "x")]
        manifest, rows = self.read(mssql, "add")
        assert manifest.columns[-1] == ("b", "decimal(10,2)")
        assert rows == [(1, "x", Decimal("2.50"))]

    def test_a_dropped_column(self, ways: Any) -> None:
        ways.create("id bigint NOT NULL PRIMARY KEY, upd datetime", [(1, day(1))])
        for policy in ("fail", "add"):
            with pytest.raises(DataError, match="no column a; the contract"):
                self.read(ways, policy)
        columns = {"id": "bigint", "upd": "timestamp_ntz", "a": "string"}
        given = KEYS | {"meta": {"on_schema_change": "ignore"}}
        _, folder = ways.source(columns, keys=given).run("manual__1", Reading())
        assert [row[2] for row in _rows(folder)] == [None]
        manifest, _ = ways.source(columns, keys=given).run("manual__1", since(None))
        assert [name for name, _ in manifest.columns] == ["id", "upd"], "a merge keeps what the raw table holds"

    def test_a_renamed_column_is_told_as_such(self, mssql: Any) -> None:
        mssql.create("id bigint NOT NULL PRIMARY KEY, a_new nvarchar(9)")
        with pytest.raises(DataError, match=r"no column a; .* Was it renamed to a_new\?"):
            self.read(mssql, "fail")

    def test_names_in_capitals_are_the_same_names(self, ways: Any) -> None:
        ways.create("[Id] bigint NOT NULL PRIMARY KEY, [A] nvarchar(9)", [(1, "x")])
        assert self.read(ways, "fail")[1] == [(1, "x")]


class TestKeysAndCounts:
    def test_the_keys_of_all_rows_are_read_after_the_rows(self, orders: Any) -> None:
        manifest, folder = extract(orders, since("2026-01-03"), meta={"deletes": "hard"}, where="id <> 2")
        assert manifest.keys is not None
        assert (manifest.rows, manifest.keys.rows) == (3, 5)
        assert sorted(_rows(folder, "keys.parquet")) == [(1,), (3,), (4,), (5,), (6,)]

    def test_keys_of_several_columns(self, mssql: Any) -> None:
        rows = [(part, each, day(1)) for part in (1, 2) for each in range(700)]
        mssql.create("part int NOT NULL, id bigint NOT NULL, upd datetime, PRIMARY KEY (part, id)", rows)
        columns = {"part": "int", "id": "bigint", "upd": "timestamp_ntz"}
        manifest, _ = extract(mssql, since(None), columns, primary_key=["part", "id"], meta={"deletes": "hard"})
        assert manifest.keys is not None
        assert (manifest.rows, manifest.keys.rows, manifest.rows_duplicate) == (1400, 1400, 0)

    def test_the_source_is_counted_up_to_the_end_of_the_window(self, orders: Any) -> None:
        manifest, _ = extract(orders, since("2026-01-03"), meta={"reconcile": "exact"}, where="id <> 2")
        assert manifest.source_rows == 5
        backfill = Reading("backfill", Window("upd", "2026-01-01", "2026-01-02"))
        assert extract(orders, backfill, meta={"reconcile": "exact"})[0].source_rows is None
        assert extract(orders, Reading(), meta={"reconcile": 5})[0].source_rows == 6
        assert extract(orders, Reading())[0].source_rows is None


@pytest.mark.parametrize("data_type", ["timestamp", "binary(8)"])
def test_a_rowversion_is_compared_as_bytes(faulty: Any, data_type: str) -> None:
    dialect = faulty.source({"id": "bigint"}).source.dialect
    column = SourceColumn("upd", data_type, "string", nullable=False)
    window = Window("upd", "00000000000007D1", "00000000000007FF")
    assert dialect.within(column, window) == "[upd] >= 0x00000000000007D1 AND [upd] <= 0x00000000000007FF"
    with pytest.raises(DataError, match="is not hexadecimal"):
        dialect.within(column, Window("upd", "0; --", "00"))


def test_a_query_without_the_update_key_is_refused(mssql: Any) -> None:
    mssql.create("id bigint NOT NULL PRIMARY KEY")
    sql = f"SELECT id, NULL AS a FROM {mssql.table} WHERE {{incremental_where_cond}}"
    source = mssql.source({"id": "bigint"}, table="some_orders", keys={"sql": sql}).source
    with pytest.raises(SourceRefusedError, match="no column upd"):
        source.dialect.relation(source.stream, Window("upd", "2026-01-01", "2026-01-02"))


def _rows(folder: str | Path | None, file: str = "part-00000.parquet") -> list[tuple[Any, ...]]:
    assert folder is not None
    with duckdb.connect() as sql:
        return sql.execute(f"SELECT * FROM {parquet([Path(folder) / file])}").fetchall()
