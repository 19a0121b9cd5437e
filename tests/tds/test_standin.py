"""The stand-in for SQL Server itself: what it answers to Sling and to pymssql, what it refuses, how it fails on demand.

What is asserted of SQL Server's answers is from its documentation, not from a comparison with a real server.
"""

from __future__ import annotations

import csv
import hashlib
import io
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pymssql
import pytest

from include.elt.errors import ExtractError
from include.elt.settings import load_settings
from include.elt.sling import SlingRun
from tests.support.tds import DEADLOCK, DENIED, SqlError, Standin, running_standin


@pytest.fixture(scope="module")
def server() -> Iterator[Standin]:
    with running_standin() as standin:
        yield standin


@pytest.fixture
def standin(server: Standin) -> Standin:
    """The stand-in without tables, journal and faults."""
    for table in [table for table in server.server.database.tables.values() if not table.system]:
        server.execute(f"DROP {'VIEW' if table.query else 'TABLE'} [{table.schema}].[{table.name}]")
    server.forget()
    return server


def ask(standin: Standin, sql: str, parameters: tuple[Any, ...] | None = None, **more: Any) -> list[tuple[Any, ...]]:
    """Through pymssql."""
    with pymssql.connect(
        **standin.arguments | {"login_timeout": 10, "timeout": 20, "autocommit": True} | more
    ) as connection:
        cursor = connection.cursor()
        cursor.execute(sql, parameters) if parameters else cursor.execute(sql)
        rows = cursor.fetchall() if cursor.description else []
        return [tuple(row) for row in rows]


def sling(standin: Standin, work: Path, **config: Any) -> str:
    """Through Sling, to text."""
    standin.server.password = "simple"  # what becomes of others is the business of the connection's tests
    home, target = work / "sling", work / "out.csv"
    home.mkdir(exist_ok=True)
    source = {
        "type": "sqlserver",
        "host": "127.0.0.1",
        "port": standin.port,
        "user": standin.user,
        "password": "simple",
        "database": standin.database,
        "encrypt": "disable",
    }
    run = SlingRun(load_settings().sling(), home, {"SOURCE": source, "LAKE": {"type": "file", "null_as": "~"}})
    stream = config.pop("stream", "orders")
    try:
        run.run("SOURCE", "LAKE", stream, {"mode": "full-refresh", "object": f"file://{target}"} | config, 60)
    finally:
        standin.server.password = standin.password
    return target.read_bytes().decode()


VALUES: list[tuple[str, str, Any, str, str]] = [
    # declaration, literal, what pymssql reads, CONVERT to text, that text
    ("bit", "1", True, "CONVERT(nvarchar(max), [v])", "1"),
    ("tinyint", "255", 255, "CONVERT(nvarchar(max), [v])", "255"),
    ("smallint", "-32768", -32768, "CONVERT(nvarchar(max), [v])", "-32768"),
    ("int", "-2147483648", -(2**31), "CONVERT(nvarchar(max), [v])", "-2147483648"),
    ("bigint", "9223372036854775807", 2**63 - 1, "CONVERT(nvarchar(max), [v])", "9223372036854775807"),
    ("decimal(38,10)", "-1234567890123456789012345678.0123456789", Decimal("-1234567890123456789012345678.0123456789"),
     "CONVERT(nvarchar(max), [v])", "-1234567890123456789012345678.0123456789"),
    ("decimal(5,2)", "0.5", Decimal("0.50"), "CONVERT(nvarchar(max), [v])", "0.50"),
    ("money", "922337203685477.5807", Decimal("922337203685477.5807"),
     "CONVERT(nvarchar(max), [v], 2)", "922337203685477.5807"),
    ("money", "-0.0001", Decimal("-0.0001"), "CONVERT(nvarchar(max), [v], 2)", "-0.0001"),
    ("smallmoney", "-214748.3648", Decimal("-214748.3648"), "CONVERT(nvarchar(max), [v], 2)", "-214748.3648"),
    ("real", "0.1", 0.10000000149011612, "CONVERT(nvarchar(max), [v], 3)", "1.0000000149011612e-001"),
    ("float", "0.1", 0.1, "CONVERT(nvarchar(max), [v], 3)", "1.0000000000000001e-001"),
    ("float", "1e308", 1e308, "CONVERT(nvarchar(max), [v], 3)", "1.0000000000000000e+308"),
    ("char(4)", "'ab'", "ab  ", "CONVERT(nvarchar(max), [v])", "ab  "),
    ("varchar(10)", "'é€'", "é€", "CONVERT(nvarchar(max), [v])", "é€"),
    ("nchar(3)", "N'日'", "日  ", "CONVERT(nvarchar(max), [v])", "日  "),
    ("nvarchar(max)", "N'😀 \"quoted\"'", '😀 "quoted"', "CONVERT(nvarchar(max), [v])", '😀 "quoted"'),
    ("nvarchar(5)", "''", "", "CONVERT(nvarchar(max), [v])", ""),
    ("date", "'0001-01-01'", date(1, 1, 1), "CONVERT(nvarchar(max), [v], 121)", "0001-01-01"),
    ("date", "'9999-12-31'", date(9999, 12, 31), "CONVERT(nvarchar(max), [v], 121)", "9999-12-31"),
    ("time(0)", "'10:11:12.5'", clock(10, 11, 13), "CONVERT(nvarchar(max), [v], 121)", "10:11:13"),
    ("time(7)", "'23:59:59.9999999'", clock(23, 59, 59, 999999),
     "CONVERT(nvarchar(max), [v], 121)", "23:59:59.9999999"),
    ("datetime", "'2024-02-29 23:59:59.998'", datetime(2024, 2, 29, 23, 59, 59, 997000),
     "CONVERT(nvarchar(max), [v], 121)", "2024-02-29 23:59:59.997"),
    ("datetime", "'1753-01-01'", datetime(1753, 1, 1), "CONVERT(nvarchar(max), [v], 126)", "1753-01-01T00:00:00"),
    ("smalldatetime", "'2024-02-29 23:59:30'", datetime(2024, 3, 1),
     "CONVERT(nvarchar(max), [v], 121)", "2024-03-01 00:00:00.000"),
    ("datetime2(7)", "'0001-01-01 00:00:00.1234567'", datetime(1, 1, 1, 0, 0, 0, 123456),
     "CONVERT(nvarchar(max), [v], 121)", "0001-01-01 00:00:00.1234567"),
    ("datetime2(3)", "'9999-12-31 23:59:59.999'", datetime(9999, 12, 31, 23, 59, 59, 999000),
     "CONVERT(nvarchar(max), [v], 121)", "9999-12-31 23:59:59.999"),
    ("datetimeoffset(3)", "'2024-07-01 12:00:00.5 -03:30'",
     datetime(2024, 7, 1, 12, 0, 0, 500000, timezone(-timedelta(hours=3, minutes=30))),
     "CONVERT(nvarchar(max), [v], 121)", "2024-07-01 12:00:00.500 -03:30"),
    ("uniqueidentifier", "'6f9619ff-8b86-d011-b42d-00c04fc964ff'", UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff"),
     "CONVERT(nvarchar(max), [v])", "6F9619FF-8B86-D011-B42D-00C04FC964FF"),
    ("binary(4)", "0x00FF", b"\x00\xff\x00\x00", "CONVERT(nvarchar(max), [v], 2)", "00FF0000"),
    ("varbinary(max)", "0x00FF", b"\x00\xff", "CONVERT(nvarchar(max), [v], 1)", "0x00FF"),
    ("xml", "N'<a>ü</a>'", "<a>ü</a>", "CONVERT(nvarchar(max), [v])", "<a>ü</a>"),
]  # fmt: skip


class TestTypes:
    @pytest.mark.parametrize(("declared", "literal", "expected", "convert", "text"), VALUES)
    def test_a_value_travels(
        self, standin: Standin, declared: str, literal: str, expected: object, convert: str, text: str
    ) -> None:
        standin.execute(f"CREATE TABLE dbo.t ([id] int NOT NULL PRIMARY KEY, [v] {declared} NULL)")
        standin.execute(f"INSERT INTO dbo.t VALUES (1, {literal}), (2, NULL)")
        assert ask(standin, "SELECT [v] FROM dbo.t ORDER BY [id]") == [(expected,), (None,)]
        assert ask(standin, f"SELECT {convert} AS v FROM dbo.t ORDER BY [id]") == [(text,), (None,)]

    def test_sling_reads_the_same_text(self, standin: Standin, tmp_path: Path) -> None:
        columns = ", ".join(f"[c{place}] {declared} NULL" for place, (declared, *_) in enumerate(VALUES))
        standin.execute(f"CREATE TABLE dbo.t ([id] int NOT NULL PRIMARY KEY, {columns})")
        standin.execute(f"INSERT INTO dbo.t VALUES (1, {', '.join(literal for _, literal, *_ in VALUES)})")
        converted = ", ".join(
            convert.replace("[v]", f"[c{place}]") + f" AS c{place}" for place, (*_, convert, _) in enumerate(VALUES)
        )
        names = [f"c{place}" for place in range(len(VALUES))]
        found = sling(standin, tmp_path, sql=f"SELECT {converted} FROM dbo.t", columns=dict.fromkeys(names, "string"))
        assert list(csv.reader(io.StringIO(found)))[1] == [text for *_, text in VALUES]

    def test_information_schema_tells_what_is_on_the_wire(self, standin: Standin) -> None:
        standin.execute(
            "CREATE TABLE dbo.t (a nvarchar(20) NOT NULL, b decimal(9,3), c datetime2(3), d varchar(max), e float,"
            " f bit)"
        )
        found = ask(
            standin,
            "SELECT COLUMN_NAME, DATA_TYPE, IS_NULLABLE, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE,"
            " DATETIME_PRECISION FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_SCHEMA = N'dbo' AND TABLE_NAME = N'T'"
            " ORDER BY ORDINAL_POSITION",
        )
        assert found == [
            ("a", "nvarchar", "NO", 20, None, None, None),
            ("b", "decimal", "YES", None, 9, 3, None),
            ("c", "datetime2", "YES", None, None, None, 3),
            ("d", "varchar", "YES", -1, None, None, None),
            ("e", "float", "YES", None, 53, None, None),
            ("f", "bit", "YES", None, None, None, None),
        ]

    def test_long_values_and_many_rows_travel(self, standin: Standin) -> None:
        standin.execute("CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, v nvarchar(max), w varbinary(max))")
        standin.insert("dbo.t", [(1, "ü" * 500_000, b"\x01" * 500_000), (2, "", b"")])
        assert ask(standin, "SELECT v, w FROM dbo.t ORDER BY id") == [("ü" * 500_000, b"\x01" * 500_000), ("", b"")]
        standin.execute("INSERT INTO dbo.t SELECT [value] + 2, N'x', NULL FROM GENERATE_SERIES(1, 30000)")
        assert len(ask(standin, "SELECT id, v, w FROM dbo.t")) == 30_002

    def test_python_values_are_stored_as_sql_server_would(self, standin: Standin) -> None:
        standin.execute("CREATE TABLE dbo.t (a datetime, b datetimeoffset(0), c decimal(5,1), d uniqueidentifier)")
        guid = UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")
        at = datetime(2024, 1, 1, 10, tzinfo=UTC)
        standin.insert("dbo.t", [(datetime(2024, 1, 1, 0, 0, 0, 1000), at, Decimal("1.25"), guid)])
        assert ask(standin, "SELECT * FROM dbo.t") == [(datetime(2024, 1, 1), at, Decimal("1.3"), guid)]


class TestAnswers:
    """Where DuckDB alone would answer differently."""

    @pytest.mark.parametrize(
        ("sql", "expected"),
        [
            ("SELECT 7 / 2", 3),
            ("SELECT -7 / 2", -3),
            ("SELECT -7 % 3", -1),
            ("SELECT 1 WHERE 'a' = 'A  '", 1),
            ("SELECT 1 WHERE N'É' = N'é'", 1),
            ("SELECT LEN(N'ab  ')", 2),
            ("SELECT LEN(N'😀')", 2),
            ("SELECT CAST(2.7 AS int)", 2),
            ("SELECT 'a' + N'b'", "ab"),
            ("SELECT COALESCE(N'a' + CAST(NULL AS nvarchar(5)), N'-')", "-"),
            ("SELECT 'later' WHERE CAST('2024-01-01 00:00:00.003' AS datetime) > '2024-01-01 00:00:00.000'", "later"),
            ("SELECT 1 WHERE CAST('12:00:00.003' AS datetime) > CAST('1900-01-01 12:00:00.003' AS datetime2)", 1),
            ("SELECT CAST('12345678901' AS varchar(5))", "12345"),
            ("SELECT CONVERT(nvarchar(64), HASHBYTES('SHA2_256', N'ü'), 2)",
             hashlib.sha256("ü".encode("utf-16-le")).hexdigest().upper()),
            ("SELECT CONVERT(nvarchar(64), HASHBYTES('SHA2_256', 'ü'), 2)",
             hashlib.sha256(b"\xfc").hexdigest().upper()),
            ("SELECT DB_NAME()", "shop"),
        ],
    )  # fmt: skip
    def test_an_expression(self, standin: Standin, sql: str, expected: object) -> None:
        assert ask(standin, sql) == [(expected,)]

    def test_nulls_come_first(self, standin: Standin) -> None:
        standin.execute("CREATE TABLE dbo.t (id int NULL)")
        standin.execute("INSERT INTO dbo.t VALUES (1), (NULL), (2)")
        assert ask(standin, "SELECT id FROM dbo.t ORDER BY id") == [(None,), (1,), (2,)]
        assert ask(standin, "SELECT id FROM dbo.t ORDER BY id DESC") == [(2,), (1,), (None,)]

    def test_identifiers_are_ordered_as_sql_server_does(self, standin: Standin) -> None:
        standin.execute("CREATE TABLE dbo.t (id uniqueidentifier NOT NULL PRIMARY KEY)")
        first, last = "FFFFFFFF-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
        standin.insert("dbo.t", [(last,), (first,)])
        assert ask(standin, "SELECT id FROM dbo.t ORDER BY id") == [(UUID(first),), (UUID(last),)]
        assert ask(standin, "SELECT MIN(id), MAX(id) FROM dbo.t") == [(UUID(first), UUID(last))]

    def test_metadata_and_checks(self, standin: Standin) -> None:
        standin.execute(
            "CREATE TABLE dbo.orders (id bigint NOT NULL, part smallint NOT NULL, at datetime2(7),"
            " mail nvarchar(50) UNIQUE, CONSTRAINT PK_orders PRIMARY KEY CLUSTERED (id, part))"
        )
        standin.execute(
            "INSERT INTO dbo.orders VALUES (1, 1, '2024-01-01', N'a'), (1, 2, '2024-01-02 10:00:00.5', N'b')"
        )
        keys = (
            "SELECT tc.CONSTRAINT_TYPE, tc.CONSTRAINT_NAME, kcu.COLUMN_NAME"
            " FROM INFORMATION_SCHEMA.TABLE_CONSTRAINTS AS tc"
            " JOIN INFORMATION_SCHEMA.KEY_COLUMN_USAGE AS kcu ON kcu.CONSTRAINT_SCHEMA = tc.CONSTRAINT_SCHEMA"
            " AND kcu.CONSTRAINT_NAME = tc.CONSTRAINT_NAME WHERE tc.TABLE_SCHEMA = %s AND tc.TABLE_NAME = %s"
            " ORDER BY tc.CONSTRAINT_TYPE, kcu.ORDINAL_POSITION"
        )
        assert ask(standin, keys, ("dbo", "orders")) == [
            ("PRIMARY KEY", "PK_orders", "id"),
            ("PRIMARY KEY", "PK_orders", "part"),
            ("UNIQUE", "UQ_orders_mail", "mail"),
        ]
        assert ask(standin, "SELECT COUNT_BIG(*), CONVERT(nvarchar(max), MAX([at]), 121) FROM [dbo].[orders]") == [
            (2, "2024-01-02 10:00:00.5000000")
        ]
        with pymssql.connect(**standin.arguments, autocommit=True) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT TOP (0) * FROM [dbo].[orders]")
            assert [column[0] for column in cursor.description or ()] == ["id", "part", "at", "mail"]
        tables = "SELECT TABLE_NAME, TABLE_TYPE FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = 'dbo'"
        assert ask(standin, tables) == [("orders", "BASE TABLE")]

    def test_a_view_and_changes(self, standin: Standin) -> None:
        standin.execute("CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, a nvarchar(5), b int)")
        standin.execute("INSERT INTO dbo.t VALUES (10, N'x', 1), (15, N'x', 2), (20, N'x', 3)")
        standin.execute("UPDATE dbo.t SET a = N'y' WHERE b = 2")
        standin.execute("DELETE FROM dbo.t WHERE b > 2; ALTER TABLE dbo.t ADD c datetime2(0) NULL")
        standin.execute("CREATE VIEW dbo.v AS SELECT id, a AS name FROM dbo.t")
        assert ask(standin, "SELECT * FROM dbo.v ORDER BY id") == [(10, "x"), (15, "y")]
        assert ask(standin, "SELECT * FROM dbo.t ORDER BY id") == [(10, "x", 1, None), (15, "y", 2, None)]


class TestSling:
    """Sling's own statements, as version 1.4.11 makes them."""

    @pytest.fixture(autouse=True)
    def orders(self, standin: Standin) -> None:
        standin.execute("CREATE TABLE dbo.orders (id int NOT NULL PRIMARY KEY, note nvarchar(20), at datetime2(7))")
        standin.execute(
            "INSERT INTO dbo.orders VALUES (1, N'ü', '2024-01-01'), (2, NULL, '2024-01-02'),"
            " (3, N'', '2024-01-03 10:00:00.1234567')"
        )

    def test_a_table(self, standin: Standin, tmp_path: Path) -> None:
        found = sling(standin, tmp_path, stream="dbo.orders")
        assert found.splitlines()[1:3] == ["1,ü,2024-01-01 00:00:00 +00", "2,~,2024-01-02 00:00:00 +00"]
        assert standin.statements[-1] == 'select * from "dbo"."orders"'

    def test_a_query(self, standin: Standin, tmp_path: Path) -> None:
        sql = "SELECT CONVERT(nvarchar(max), [id]) AS [id], [note] FROM [dbo].[orders] WHERE [id] > 1"
        assert sling(standin, tmp_path, sql=sql) == "id,note\n2,~\n3,\n"
        assert [" ".join(statement.split()) for statement in standin.statements[-2:]] == [
            f"select top 1 * from ( {sql} ) as t /* GetSQLColumns */ /* nD */",
            sql,
        ]

    @pytest.mark.parametrize(
        ("config", "rows"),
        [
            ({"select": ["id", "note"]}, 3),
            ({"where": "id > 1"}, 2),
        ],
    )
    def test_other_ways_to_read_a_table(
        self, standin: Standin, tmp_path: Path, config: dict[str, Any], rows: int
    ) -> None:
        assert len(sling(standin, tmp_path, stream="dbo.orders", **config).splitlines()) == rows + 1

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT id FROM dbo.orders ORDER BY id",
            "SELECT id, id FROM dbo.orders",
            "SELECT COUNT_BIG(*) FROM dbo.orders",
        ],
    )
    def test_what_cannot_be_wrapped_in_a_derived_table_fails(self, standin: Standin, tmp_path: Path, sql: str) -> None:
        ask(standin, sql)  # by itself it is fine
        with pytest.raises(ExtractError, match=r"ORDER BY clause is invalid|multiple times|No column name"):
            sling(standin, tmp_path, sql=sql)


class TestFaults:
    @pytest.fixture(autouse=True)
    def orders(self, standin: Standin) -> None:
        standin.execute("CREATE TABLE dbo.orders (id int NOT NULL PRIMARY KEY, note nvarchar(20))")
        standin.execute("INSERT INTO dbo.orders SELECT [value], N'x' FROM GENERATE_SERIES(1, 10000)")

    @pytest.mark.parametrize(("error", "message"), [(DEADLOCK, "deadlock victim"), (DENIED, "permission was denied")])
    def test_an_error_on_demand(self, standin: Standin, tmp_path: Path, error: SqlError, message: str) -> None:
        standin.fail(r"^SELECT .* FROM dbo.orders$", error)
        with pytest.raises(pymssql.Error) as failed:
            ask(standin, "SELECT * FROM dbo.orders")
        assert failed.value.args[0] == error.number
        standin.fail(r"^SELECT id FROM dbo.orders$", error)
        with pytest.raises(ExtractError, match=message):
            sling(standin, tmp_path, sql="SELECT id FROM dbo.orders")
        assert len(sling(standin, tmp_path, sql="SELECT id FROM dbo.orders").splitlines()) == 10_001
        assert [entry.error for entry in standin.journal if entry.error] == [error.number] * 2

    @pytest.mark.parametrize("after_rows", [0, 5000])
    def test_an_error_or_a_lost_connection_in_the_middle(
        self, standin: Standin, tmp_path: Path, after_rows: int
    ) -> None:
        standin.fail(r"^SELECT id FROM dbo.orders$", after_rows=after_rows)
        with pytest.raises(ExtractError, match="deadlock victim"):
            sling(standin, tmp_path, sql="SELECT id FROM dbo.orders")
        standin.drop(r"^SELECT id FROM dbo.orders$", after_rows=after_rows)
        with pytest.raises(ExtractError):
            sling(standin, tmp_path, sql="SELECT id FROM dbo.orders")
        standin.drop("SELECT id", after_rows=after_rows)
        with pytest.raises(pymssql.Error):
            ask(standin, "SELECT id FROM dbo.orders")
        met = [entry for entry in standin.journal if entry.dropped or entry.error]
        assert [(entry.rows, entry.dropped) for entry in met] == [
            (after_rows, False),
            (after_rows, True),
            (after_rows, True),
        ]

    def test_a_fault_is_met_as_often_as_said(self, standin: Standin) -> None:
        standin.fail("SELECT 1", times=2)
        for _ in range(2):
            with pytest.raises(pymssql.Error):
                ask(standin, "SELECT 1 AS x")
        assert ask(standin, "SELECT 1 AS x") == [(1,)]

    def test_a_client_that_has_waited_enough_calls_its_request_off(self, standin: Standin) -> None:
        started = time.monotonic()
        with pytest.raises(pymssql.Error, match="timed out"):
            ask(standin, "WAITFOR DELAY '00:00:20'; SELECT 1 AS x", timeout=1)
        assert time.monotonic() - started < 10
        assert any(entry.cancelled or "WAITFOR" in entry.sql for entry in standin.journal)

    def test_the_journal_has_every_statement(self, standin: Standin) -> None:
        ask(standin, "SELECT id FROM dbo.orders WHERE id <= %d", (3,), appname="journal")
        login = next(entry for entry in standin.journal if entry.kind == "login")
        assert (login.sql, login.app, login.database, login.tls) == ("reader", "journal", "shop", "")
        assert [entry.rows for entry in standin.journal if "orders" in entry.sql] == [3]


class TestRefusals:
    """What would be answered wrongly is not answered."""

    @pytest.fixture(autouse=True)
    def orders(self, standin: Standin) -> None:
        standin.execute(
            "CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, a nvarchar(20), b decimal(9,2), c datetime,"
            " d varbinary(9), e datetimeoffset, f float, g bit, h char(3))"
        )
        standin.execute("INSERT INTO dbo.t (id, a) VALUES (1, N'x')")

    @pytest.mark.parametrize(
        ("sql", "named"),
        [
            ("SELECT a FROM dbo.t ORDER BY a", "the order of nvarchar(20) without COLLATE Latin1_General_BIN2"),
            ("SELECT MAX(a) FROM dbo.t", "the order of nvarchar(20) without COLLATE"),
            ("SELECT REPLACE(CONVERT(nvarchar(max), a), 'x', 'y') FROM dbo.t", "REPLACE without COLLATE"),
            ("SELECT STRING_AGG(a, ',') FROM dbo.t", "STRING_AGG of anything but (max)"),
            ("SELECT CONVERT(nvarchar(max), c) FROM dbo.t", "a conversion from datetime to nvarchar(max) with style 0"),
            ("SELECT CONVERT(nvarchar(max), f) FROM dbo.t", "a conversion from float to nvarchar(max) with style 0"),
            ("SELECT CAST(a AS int) FROM dbo.t", "a conversion from nvarchar(20) to int"),
            ("SELECT b * 2 FROM dbo.t", "decimal(9,2) * int"),
            ("SELECT id + N'1' FROM dbo.t", "int + nvarchar(1)"),
            ("SELECT id FROM dbo.t WHERE d = 0x00", "a comparison of varbinary(9)"),
            ("SELECT id FROM dbo.t UNION ALL SELECT 1", "UNION"),
            ("SELECT id FROM dbo.t, dbo.t AS u", "a comma between tables"),
            ("SELECT SUBSTRING(a, 1, 2) FROM dbo.t", "the function SUBSTRING"),
            ("SELECT a COLLATE Latin1_General_CS_AS FROM dbo.t", "the collation Latin1_General_CS_AS"),
            ("SELECT N'x' WHERE N'ß' = N'ss'", "a comparison without case of other than Latin letters"),
            ("SELECT 1 WHERE '李' = N'x'", "characters outside code page 1252"),
            ("EXEC sp_who", "a statement that starts with EXEC"),
            ("DECLARE @x int", "a statement that starts with DECLARE"),
            ("MERGE INTO dbo.t USING dbo.t AS u ON 1 = 1", "a statement that starts with MERGE"),
            ("SET IMPLICIT_TRANSACTIONS ON", "SET IMPLICIT_TRANSACTIONS ON"),
            ("SET TEXTSIZE 10", "SET TEXTSIZE 10"),
            ("SELECT a, COUNT(*) FROM dbo.t GROUP BY a", "GROUP BY nvarchar(20)"),
            ("SELECT AVG(id) FROM dbo.t", "the function AVG"),
        ],
    )
    def test_a_statement_outside_the_subset_is_refused_by_name(self, standin: Standin, sql: str, named: str) -> None:
        with pytest.raises(SqlError) as refused:
            standin.execute(sql)
        assert refused.value.number == 40000
        assert named in str(refused.value)

    @pytest.mark.parametrize(
        ("sql", "number"),
        [
            ("SELECT * FROM dbo.missing", 208),
            ("SELECT missing FROM dbo.t", 207),
            ("SELECT x.id FROM dbo.t", 4104),
            ("SELECT id FROM dbo.t AS a CROSS JOIN dbo.t AS b", 209),
            ("SELECT id FROM dbo.t LIMIT 1", 40000),
            ("SELECT 'a' || 'b'", 102),
            ("SELECT id = 1 FROM dbo.t", 40000),
            ("SELECT id FROM dbo.t WHERE g = true", 207),
            ("SELECT id FROM dbo.t WHERE g", 4145),
            ("SELECT a, COUNT(*) FROM dbo.t", 8120),
            ("SELECT id FROM dbo.t WHERE COUNT(*) > 1", 147),
            ("SELECT id FROM dbo.t WHERE ROW_NUMBER() OVER (ORDER BY id) = 1", 4108),
            ("SELECT MAX(g) FROM dbo.t", 8117),
            ("SELECT 1 / 0", 8134),
            ("SELECT @missing", 137),
            ("INSERT INTO dbo.t (id, h) VALUES (2, 'long')", 2628),
            ("INSERT INTO dbo.t (id, a) VALUES (1, N'twice')", 2627),
            ("INSERT INTO dbo.t (a) VALUES (N'no id')", 515),
            ("INSERT INTO dbo.t (id, b) VALUES (2, 12345678.00)", 8115),
            ("INSERT INTO dbo.t (id, c) VALUES (2, '2024-01-01 10:00:00.1234567')", 241),
            ("INSERT INTO dbo.t (id, c) VALUES (2, '1752-12-31')", 242),
            ("SELECT CAST('x' AS uniqueidentifier)", 8169),
            ("SELECT CAST('1.5' AS int)", 245),
        ],
    )
    def test_a_mistake_has_the_number_of_sql_server(self, standin: Standin, sql: str, number: int) -> None:
        with pytest.raises(SqlError) as refused:
            standin.execute(sql)
        assert refused.value.number == number, refused.value
