"""Parquet: every value arrives exactly, or an error names file, column and row."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.elt.errors import DataError, ExtractError
from tests.support.elt import Bench

NAME = "orders.parquet"
BIG = 2**63


def write(bench: Bench, table: pa.Table, **options: Any) -> None:
    pq.write_table(table, bench.root / NAME, **options)


def values(bench: Bench, array: pa.Array, data_type: str = "string", options: Any = None, **writing: Any) -> list[Any]:
    write(bench, pa.table({"id": range(len(array)), "v": array}), **writing)
    columns = {"id": "bigint", "v": data_type}
    return [row[1] for row in bench.extract(name=NAME, columns=columns, options=options).rows]


def nanos(*numbers: int | None, zone: str | None = None) -> pa.Array:
    return pa.array(numbers, pa.timestamp("ns", zone))


DAY = 1704067200_000_000_000
EXACT: dict[str, tuple[pa.Array, str, list[Any]]] = {
    "bool": (pa.array([True, False, None]), "boolean", [True, False, None]),
    "int64": (pa.array([BIG - 1, -BIG, 2**53 + 1]), "bigint", [BIG - 1, -BIG, 2**53 + 1]),
    "uint64": (pa.array([2 * BIG - 1, 0], pa.uint64()), "decimal(20,0)", [Decimal(2 * BIG - 1), Decimal(0)]),
    "float as double": (pa.array([0.1, None], pa.float32()), "double", [0.10000000149011612, None]),
    "float as text": (pa.array([0.1, 16777216], pa.float32()), "string", ["0.10000000149011612", "16777216.0"]),
    "double": (
        pa.array([0.1, 5e-324, 1.7976931348623157e308, 1e22, -0.0]),
        "double",
        [0.1, 5e-324, 1.7976931348623157e308, 1e22, -0.0],
    ),
    "infinity": (pa.array([float("inf"), -float("inf")]), "double", [float("inf"), -float("inf")]),
    "whole doubles": (pa.array([5.0, -7.0]), "int", [5, -7]),
    "decimal": (
        pa.array([Decimal("1.10"), Decimal("-" + "9" * 36 + ".99")], pa.decimal128(38, 2)),
        "decimal(38,2)",
        [Decimal("1.10"), Decimal("-" + "9" * 36 + ".99")],
    ),
    "decimal as text": (pa.array([Decimal("1.10")], pa.decimal128(38, 2)), "string", ["1.10"]),
    "text": (
        pa.array(["", "NULL", "\\N", "a\r\nb\rc", 'q"', "é👍", " x ", "\0", None]),
        "string",
        ["", "NULL", "\\N", "a\r\nb\rc", 'q"', "é👍", " x ", "\0", None],
    ),
    "dictionary": (pa.array(["x", None, "x"]).dictionary_encode(), "string", ["x", None, "x"]),
    "large text": (pa.array(["x" * 3_000_000], pa.large_string()), "string", ["x" * 3_000_000]),
    "bytes": (pa.array([b"\x00\xff", b"", None]), "string", ["00ff", "", None]),
    "fixed bytes": (pa.array([b"ab"], pa.binary(2)), "string", ["6162"]),
    "date": (pa.array([date(1, 1, 1), date(9999, 12, 31)]), "date", [date(1, 1, 1), date(9999, 12, 31)]),
    "microseconds": (pa.array([datetime(2024, 1, 1, 1, 2, 3, 4)]), "timestamp_ntz", [datetime(2024, 1, 1, 1, 2, 3, 4)]),
    "nanoseconds that are microseconds": (
        nanos(DAY + 123_456_000, None),
        "timestamp_ntz",
        [datetime(2024, 1, 1, 0, 0, 0, 123456), None],
    ),
    "nanoseconds as text": (nanos(DAY + 123_456_789), "string", ["2024-01-01 00:00:00.123456789"]),
    "an instant": (
        pa.array([DAY // 1000 + 1], pa.timestamp("us", "Europe/Berlin")),
        "string",
        ["2024-01-01 00:00:00.000001+00"],
    ),
    "an instant in nanoseconds": (
        nanos(DAY + 123_456_000, None, zone="UTC"),
        "string",
        ["2024-01-01 00:00:00.123456+00", None],
    ),
    "time": (pa.array([1, 86_399_999_999], pa.time64("us")), "string", ["00:00:00.000001", "23:59:59.999999"]),
    "time in nanoseconds": (pa.array([1000, None], pa.time64("ns")), "string", ["00:00:00.000001", None]),
    "nothing but NULL": (pa.nulls(2), "date", [None, None]),
    "list": (pa.array([[Decimal("1.10"), None], []], pa.list_(pa.decimal128(38, 2))), "string", ["[1.10,null]", "[]"]),
    "struct": (pa.array([{"b": BIG - 1, "a": 'x"'}, None]), "string", ['{"b":9223372036854775807,"a":"x\\""}', None]),
    "map": (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "string", ['{"k":1}']),
    "list of structs": (pa.array([[{"x": 1.5}]]), "string", ['[{"x":1.5}]']),
}


@pytest.mark.parametrize("kind", EXACT)
def test_a_value_arrives_exactly(bench: Bench, kind: str) -> None:
    array, data_type, expected = EXACT[kind]
    found = values(bench, array, data_type)
    assert [repr(each) for each in found] == [repr(each) for each in expected]


NOT: dict[str, tuple[pa.Array, str, str]] = {
    "unsigned beyond bigint": (pa.array([1, BIG], pa.uint64()), "bigint", r"row 2: column v: '9223372036854775808'"),
    "fraction": (pa.array([1.0, 2.7]), "int", r"row 2: column v: '2\.7' is not an int"),
    "digits": (pa.array([Decimal("1.005")]), "decimal(10,2)", r"row 1: column v: '1\.005'"),
    "nanoseconds": (nanos(DAY, DAY + 1), "timestamp_ntz", r"row 2: column v: '2024-01-01 00:00:00\.000000001'"),
    "instant without zone": (nanos(DAY, zone="UTC"), "timestamp_ntz", r"row 1: column v: '2024-01-01 00:00:00\+00'"),
    "instant in nanoseconds": (
        nanos(DAY, None, DAY + 1, zone="UTC"),
        "timestamp",
        r"row 3: column v: 1704067200000000001 nanoseconds are not whole",
    ),
    "before 1970": (nanos(-1000, -1, zone="UTC"), "timestamp", r"row 2: column v: -1 nanoseconds are not whole"),
    "time in nanoseconds": (pa.array([1000, 1], pa.time64("ns")), "string", r"row 2: column v: 1 nanoseconds"),
    "wide decimal": (pa.array([Decimal("1.1")], pa.decimal256(76, 2)), "string", r"column v: a decimal of 76 digits"),
    "nested nanoseconds": (
        pa.array([[DAY]], pa.list_(pa.timestamp("ns", "UTC"))),
        "string",
        r"column v: a .* with nanoseconds cannot be read exactly",
    ),
}


@pytest.mark.parametrize("kind", NOT)
def test_what_cannot_be_kept_is_named(bench: Bench, kind: str) -> None:
    array, data_type, message = NOT[kind]
    with pytest.raises(DataError, match=message) as caught:
        values(bench, array, data_type)
    assert "orders.parquet" in str(caught.value)


class TestInt96:
    """How Spark writes a timestamp if nobody tells it otherwise."""

    def test_arrives(self, bench: Bench) -> None:
        array = pa.array([datetime(1, 1, 1), datetime(2024, 1, 2, 3, 4, 5, 6), datetime(9999, 12, 31), None])
        options = {"use_deprecated_int96_timestamps": True}
        rows = values(bench, array, "timestamp_ntz", **options)
        assert rows == [datetime(1, 1, 1), datetime(2024, 1, 2, 3, 4, 5, 6), datetime(9999, 12, 31), None]

    def test_digits_beyond_microseconds_are_named(self, bench: Bench) -> None:
        with pytest.raises(DataError, match=r"row 2: column v: .* nanoseconds are not whole"):
            values(bench, nanos(DAY, DAY + 1), "timestamp", use_deprecated_int96_timestamps=True)


def test_a_late_row_of_nanoseconds_is_named(bench: Bench) -> None:
    numbers = [DAY] * 200_000
    numbers[150_000] += 7
    with pytest.raises(DataError, match=r"row 150001: column v: "):
        values(bench, nanos(*numbers, zone="UTC"), "timestamp", row_group_size=40_000)


def test_null_if_and_empty_as_null(bench: Bench) -> None:
    options = {"null_if": "-9", "empty_as_null": True}
    assert values(bench, pa.array([-9, 9]), options=options) == [None, "9"]
    assert values(bench, pa.array(["-9", ""]), options=options) == [None, None]


def test_columns_are_matched_by_name_in_any_order_and_case(bench: Bench) -> None:
    write(bench, pa.table({"B": ["y"], "Id": [1], "a": ["x"]}))
    assert bench.extract(name=NAME).rows == [(1, "x", "y")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["id", "a"], "no 'b'"),
        (["id", "a", "b", "my col"], "unknown 'my col'"),
        (["id", "a", "c"], "no 'b' and unknown 'c'"),
        (["id", "a", "b", "B"], "the column b is there twice"),
        (["id", "a", "b", "b"], "the column b is there twice"),
    ],
)
def test_other_columns_are_refused(bench: Bench, names: list[str], message: str) -> None:
    write(bench, pa.table([pa.array([1])] * len(names), names=names))
    with pytest.raises(DataError, match=rf"orders\.parquet: {message}"):
        bench.extract(name=NAME)


def test_ignore_takes_what_is_common(bench: Bench) -> None:
    bad = pa.array([Decimal("1.1")], pa.decimal256(76, 2))
    write(bench, pa.table({"id": [1], "my col": bad, "a": ["x"], "s": [{"id": 7}]}))
    assert bench.extract(name=NAME, meta={"on_schema_change": "ignore"}).rows == [(1, "x", None)]


def test_files_with_other_types_are_one_stream(bench: Bench) -> None:
    (bench.root / "in").mkdir()
    for number, (kind, a) in enumerate([("INTEGER", "1"), ("VARCHAR", "'x'"), ("VARCHAR", "'y'"), ("FLOAT", "1.5")]):
        file = bench.root / "in" / f"{number}.parquet"
        duckdb.execute(f"COPY (SELECT {a}::{kind} AS a, '' AS b, {number} AS id) TO '{file}'")
    assert [row[1] for row in bench.extract(name="in/").rows] == ["1", "x", "y", "1.5"]


def test_a_folder_like_a_partition_is_no_column(bench: Bench) -> None:
    (bench.root / "id=5").mkdir()
    duckdb.execute(f"COPY (SELECT 1 AS id, 'x' a, 'y' b) TO '{bench.root}/id=5/p.parquet'")
    assert bench.extract(name="id=5/p.parquet").rows == [(1, "x", "y")]


def test_no_rows_is_good(bench: Bench) -> None:
    write(bench, pa.table({"id": pa.array([], pa.int64()), "a": pa.array([], pa.string()), "b": pa.nulls(0)}))
    assert bench.extract(name=NAME).manifest.rows_read == 0


def test_the_order_of_many_rows_is_kept(bench: Bench) -> None:
    (bench.root / "in").mkdir()
    for number in range(3):
        query = f"SELECT range AS id, 'x' AS a, '' AS b FROM range({number * 200_000}, {(number + 1) * 200_000})"
        duckdb.execute(f"COPY ({query}) TO '{bench.root}/in/{number}.parquet' (ROW_GROUP_SIZE 20000)")
    assert [row[0] for row in bench.extract(name="in/").rows] == list(range(600_000))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"id,a,b\n1,x,y\n"], ids=["empty", "cut off", "CSV"])
def test_what_is_no_parquet_is_refused(bench: Bench, data: bytes) -> None:
    bench.write(data, NAME)
    with pytest.raises(DataError, match=r"orders\.parquet: cannot be read as Parquet"):
        bench.extract(name=NAME)


def test_a_damaged_page_is_an_error(bench: Bench) -> None:
    write(
        bench, pa.table({"id": range(1000), "a": [str(n) for n in range(1000)], "b": [""] * 1000}), compression="zstd"
    )
    file = bench.root / NAME
    data = bytearray(file.read_bytes())
    data[60:400] = b"\xff" * 340
    file.write_bytes(data)
    with pytest.raises(ExtractError):
        bench.extract(name=NAME)
    assert not list(bench.lake.root.rglob("*.parquet"))
