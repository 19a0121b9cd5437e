"""PostgreSQL tables through Sling into the lake, against a real server."""

from __future__ import annotations

import threading
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.elt.errors import DataError, ExtractError, SourceRefusedError

TEXTS = [
    "",
    " ",
    "NULL",
    "null",
    "\\N",
    "  padded\t",
    "0012",
    "1e5",
    'quo"te',
    "comma, semi;",
    "LF\nCR\rCRLF\r\n",
    "\\",
    "\\\\n",
    "emoji 😀 ü",
    "\u2028\u0085\ufeff",
    "#comment",
    "x" * 100_000,
    "{incremental_value}",
]


class TestValues:
    def test_text_arrives_as_it_is(self, bench: Any) -> None:
        bench.server.execute(f"CREATE TABLE {bench.table} (id bigint, t text)")
        with psycopg.connect(**bench.server.arguments, autocommit=True) as connection:
            connection.cursor().executemany(
                f"INSERT INTO {bench.table} VALUES (%s, %s)".encode(), [*enumerate(TEXTS), (99, None)]
            )
        assert bench.read({"id": "bigint", "t": "string"}) == [*enumerate(TEXTS), (99, None)]

    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))), max_size=200))
    def test_any_text_arrives_as_it_is(self, bench: Any, texts: list[str]) -> None:
        bench.server.execute(f"DROP TABLE IF EXISTS {bench.table}")
        bench.server.execute(f"CREATE TABLE {bench.table} (id bigint, t text)")
        with psycopg.connect(**bench.server.arguments, autocommit=True) as connection:
            connection.cursor().executemany(f"INSERT INTO {bench.table} VALUES (%s, %s)".encode(), [*enumerate(texts)])
        assert bench.read({"id": "bigint", "t": "string"}) == [*enumerate(texts)]

    @pytest.mark.parametrize(
        ("sql_type", "value", "data_type", "expected"),
        [
            ("smallint", "(-32768)", "smallint", -32768),
            ("bigint", "9223372036854775807", "bigint", 2**63 - 1),
            ("numeric", "12345678901234567890.123456789", "decimal(38,9)", Decimal("12345678901234567890.123456789")),
            ("numeric", "0.0000000001", "decimal(38,10)", Decimal("0.0000000001")),
            ("numeric(10,2)", "1.10", "decimal(10,2)", Decimal("1.10")),
            ("double precision", "0.1", "double", 0.1),
            ("double precision", "1e308", "double", 1e308),
            ("double precision", "'-infinity'", "double", float("-inf")),
            ("boolean", "true", "boolean", True),
            ("date", "'0001-01-01'", "date", date(1, 1, 1)),
            ("date", "'9999-12-31'", "date", date(9999, 12, 31)),
            ("timestamp", "'2024-02-29 23:59:59.123456'", "timestamp_ntz", datetime(2024, 2, 29, 23, 59, 59, 123456)),
            ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "string", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            ("bytea", "'\\x00ff'", "string", "\\x00ff"),
            ("integer[]", "'{1,NULL,3}'", "string", "{1,NULL,3}"),
            ("text[]", """'{"a,b","NULL",NULL}'""", "string", '{"a,b","NULL",NULL}'),
            (
                "json",
                """'{"b": 12345678901234567890, "a":  1.10}'""",
                "string",
                '{"b": 12345678901234567890, "a":  1.10}',
            ),
            ("jsonb", """'{"b": 1.10}'""", "string", '{"b": 1.10}'),
            ("time", "'10:11:12.5'", "string", "10:11:12.5"),
            ("timetz", "'10:11:12.5+02'", "string", "10:11:12.5+02"),
            ("interval", "'1 day 02:03:04'", "string", "1 day 02:03:04"),
            ("inet", "'10.0.0.1/8'", "string", "10.0.0.1/8"),
            ("int4range", "'[1,5)'", "string", "[1,5)"),
            ("money", "'1.10'", "string", "$1.10"),
        ],
    )
    def test_a_value_arrives_as_it_is(
        self, bench: Any, sql_type: str, value: str, data_type: str, expected: object
    ) -> None:
        bench.server.execute(f"CREATE TABLE {bench.table} AS SELECT 1::bigint AS id, {value}::{sql_type} AS v")
        bench.server.execute(f"INSERT INTO {bench.table} VALUES (2, NULL)")
        assert bench.read({"id": "bigint", "v": data_type}) == [(1, expected), (2, None)]

    @pytest.mark.parametrize(
        ("value", "data_type"),
        [
            ("'NaN'::numeric", "decimal(10,2)"),
            ("1.005::numeric", "decimal(10,2)"),
            ("'infinity'::date", "date"),
            ("'0044-03-15 BC'::date", "date"),
            ("'infinity'::timestamptz", "timestamp"),
            ("2.7::double precision", "bigint"),
            ("3000000000::bigint", "int"),
        ],
    )
    def test_what_does_not_fit_is_named(self, bench: Any, value: str, data_type: str) -> None:
        bench.server.execute(f"CREATE TABLE {bench.table} AS SELECT 1::bigint AS id, NULL AS v WHERE false")
        bench.server.execute(f"DROP TABLE {bench.table}")
        bench.server.execute(f"CREATE TABLE {bench.table} AS SELECT 1::bigint AS id, {value} AS v")
        with pytest.raises(DataError, match=r"orders: 1 row does not fit.*\n  row 1: column v: '.*' is not an? "):
            bench.source({"id": "bigint", "v": data_type}).run("manual__1")
        assert not list(bench.lake.root.rglob("*.parquet"))

    def test_an_instant_is_the_same_whatever_the_server_thinks(self, bench: Any) -> None:
        bench.server.execute(
            f"CREATE TABLE {bench.table} AS SELECT 1::bigint AS id, timestamptz '2024-07-01 12:00:00.5+02' AS v"
        )
        bench.server.execute("ALTER DATABASE shop SET timezone = 'Asia/Kolkata'")
        try:
            [(_, instant)] = bench.read({"id": "bigint", "v": "timestamp"})
        finally:
            bench.server.execute("ALTER DATABASE shop RESET timezone")
        assert instant == "2024-07-01 10:00:00.5+00"


class TestTables:
    COLUMNS = {"id": "bigint", "a": "string"}  # noqa: RUF012

    def test_an_empty_table_is_no_error(self, bench: Any) -> None:
        bench.server.execute(f"CREATE TABLE {bench.table} (id bigint, a text)")
        assert bench.read(self.COLUMNS) == []

    def test_only_the_selected_columns_are_read(self, bench: Any) -> None:
        bench.server.execute(f"CREATE TABLE {bench.table} AS SELECT 'no' AS secret, 'x' AS a, 1::bigint AS id")
        for select in (["id", "a"], ["-secret"]):
            assert bench.read(self.COLUMNS, keys={"select": select}) == [(1, "x")]

    def test_a_view_is_read_like_a_table(self, bench: Any) -> None:
        bench.server.execute(f"CREATE VIEW {bench.table} AS SELECT 1::bigint AS id, 'x'::text AS a")
        assert bench.read(self.COLUMNS) == [(1, "x")]

    def test_odd_names_are_quoted(self, bench: Any) -> None:
        bench.server.execute(f'CREATE TABLE {bench.schema}."Order""s; --" AS SELECT 1::bigint AS id, \'x\' AS a')
        assert bench.read(self.COLUMNS, table=f'{bench.schema}.Order"s; --') == [(1, "x")]

    def test_a_missing_column_is_named(self, bench: Any) -> None:
        bench.server.execute(f"CREATE TABLE {bench.table} (id bigint, b text)")
        with pytest.raises(DataError, match=r"orders: no column a; the contract raw\.orders wants it.*id, b"):
            bench.source(self.COLUMNS).run("manual__1")

    def test_a_table_that_grows_meanwhile_is_one_snapshot(self, bench: Any) -> None:
        bench.server.execute(
            f"CREATE TABLE {bench.table} AS SELECT g::bigint AS id, 'x' AS a FROM generate_series(1, 50000) g"
        )
        ended = threading.Event()

        def grow() -> None:
            with psycopg.connect(**bench.server.arguments, autocommit=True) as connection:
                for number in range(1, 100_000):
                    connection.execute(f"INSERT INTO {bench.table} VALUES (-{number}, 'y')".encode())
                    if ended.is_set():
                        return

        writer = threading.Thread(target=grow)
        writer.start()
        try:
            rows = bench.read(self.COLUMNS)
        finally:
            ended.set()
            writer.join()
        grown = sorted(row[0] for row in rows if row[0] < 0)
        assert len(rows) - len(grown) == 50_000
        assert grown == list(range(-len(grown), 0)), "a later row was read without an earlier one"


class TestBlocks:
    COLUMNS = {"id": "bigint", "a": "string"}  # noqa: RUF012

    def test_every_page_is_read_once(self, bench: Any) -> None:
        bench.server.execute(
            f"CREATE TABLE {bench.table} AS"
            " SELECT g::bigint AS id, repeat('x', g % 500) AS a FROM generate_series(1, 20000) g"
        )
        bench.server.execute(f"DELETE FROM {bench.table} WHERE id BETWEEN 4000 AND 9000 OR id % 7 = 0")
        bench.server.execute(f"UPDATE {bench.table} SET a = 'moved' WHERE id % 11 = 0")
        expected = bench.server.execute(f"SELECT id, a FROM {bench.table}")
        assert sorted(bench.read(self.COLUMNS)) == sorted(expected)

    def test_partitions_and_children_are_read_too(self, bench: Any) -> None:
        schema = bench.schema
        bench.server.execute(f"CREATE TABLE {schema}.whole (id bigint, a text) PARTITION BY RANGE (id)")
        bench.server.execute(f"CREATE TABLE {schema}.low PARTITION OF {schema}.whole FOR VALUES FROM (0) TO (10)")
        bench.server.execute(f"CREATE TABLE {schema}.high PARTITION OF {schema}.whole FOR VALUES FROM (10) TO (20)")
        bench.server.execute(f"INSERT INTO {schema}.whole VALUES (1, 'x'), (11, 'y')")
        bench.server.execute(f"CREATE TABLE {schema}.parent AS SELECT 1::bigint AS id, 'x'::text AS a")
        bench.server.execute(f"CREATE TABLE {schema}.child () INHERITS ({schema}.parent)")
        bench.server.execute(f"INSERT INTO {schema}.child VALUES (11, 'y')")
        for table in ("whole", "parent"):
            assert sorted(bench.read(self.COLUMNS, table=f"{schema}.{table}")) == [(1, "x"), (11, "y")]

    def test_very_wide_rows_travel_in_smaller_blocks(self, free: Any, caplog: pytest.LogCaptureFixture) -> None:
        free.server.execute(
            f"CREATE TABLE {free.table} AS"
            " SELECT g::bigint AS id, repeat('x', 4000000) AS a FROM generate_series(1, 20) g"
        )
        with caplog.at_level("INFO"):
            rows = free.read(self.COLUMNS, settings={"extract_memory": "2GB"})
        assert sorted((key, len(value)) for key, value in rows) == [(key, 4_000_000) for key in range(1, 21)]
        assert "rows too wide to travel in blocks of" in caplog.text


class TestRefusals:
    """What another try does not mend is told at once, and without the password."""

    @pytest.mark.parametrize(
        ("connection", "message"),
        [
            ({"password": "wr0ng/pass"}, 'password authentication failed for user "shop"'),
            ({"database": "nowhere"}, 'database "nowhere" does not exist'),
            ({"user": "nobody"}, 'authentication failed for user "nobody"'),
        ],
        ids=["password", "database", "user"],
    )
    def test_who_may_not_enter(self, bench: Any, connection: dict[str, str], message: str) -> None:
        with pytest.raises(SourceRefusedError) as caught:
            bench.source({"id": "bigint"}, **connection).run("manual__1")
        assert message in str(caught.value)
        assert "connection shop_postgres" in str(caught.value)
        assert "wr0ng" not in str(caught.value)
        assert bench.server.password not in str(caught.value)

    def test_a_table_that_is_not_there(self, bench: Any) -> None:
        with pytest.raises(SourceRefusedError, match="does not exist"):
            bench.source({"id": "bigint"}).run("manual__1")

    def test_a_missing_right(self, bench: Any) -> None:
        bench.server.execute(f"CREATE TABLE {bench.table} (id bigint)")
        role = f"reader_{bench.schema}"
        bench.server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'reader'")
        with pytest.raises(SourceRefusedError, match="permission denied"):
            bench.source({"id": "bigint"}, user=role, password="reader").run("manual__1")

    def test_a_server_that_is_not_there_may_come_back(self, bench: Any) -> None:
        with pytest.raises(ExtractError, match="onnection refused") as caught:
            bench.source({"id": "bigint"}, port=1).run("manual__1")
        assert not isinstance(caught.value, SourceRefusedError)


def test_a_server_that_goes_away_in_the_middle_leaves_nothing(bench: Any) -> None:
    bench.server.execute(
        f"CREATE TABLE {bench.table} AS SELECT g::bigint AS id, repeat('x', 200) AS a FROM generate_series(1, 300000) g"
    )
    extraction = bench.source({"id": "bigint", "a": "string"})

    ended = threading.Event()

    def cut() -> None:
        reading = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'active'"
            f" AND query LIKE '%::text%' AND query LIKE '%{bench.schema}%' AND pid <> pg_backend_pid()"
        )
        with psycopg.connect(**bench.server.arguments, autocommit=True) as connection:
            while not ended.wait(0.001):  # Sling tries some of its queries again
                connection.execute(reading.encode())

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        with pytest.raises(ExtractError):
            extraction.run("manual__1")
    finally:
        ended.set()
        cutter.join()
    assert not list(bench.lake.root.rglob("*.parquet"))
    assert not bench.work_folders()
    assert len(bench.read({"id": "bigint", "a": "string"})) == 300_000
