"""SQL Server's values through Sling into the lake: on the stand-in always, on a real server where there is one."""

from __future__ import annotations

import logging
import threading
import time
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pymssql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.elt.errors import DataError, ExtractError, SourceRefusedError
from include.elt.sources.database import Relation
from tests.support.tds import DEADLOCK, DENIED

TEXTS = [
    "",
    " ",
    "NULL",
    "null",
    "\\N",
    "  padded\t ",
    "0012",
    'quo"te',
    "it's",
    "comma, semi;",
    "LF\nCR\rCRLF\r\n",
    "\\",
    "emoji 😀 ü",
    "\uff02full width\uff02",
    "\u2028\u0085\ufeff",
    "#comment",
    "x" * 100_000,
    "{incremental_value}",
]
ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)

# declaration, literal, what it is as text, contract type, what it is in that
VALUES: list[tuple[str, str, str, str, Any]] = [
    ("bit", "1", "1", "boolean", True),
    ("tinyint", "255", "255", "smallint", 255),
    ("smallint", "-32768", "-32768", "smallint", -32768),
    ("int", "-2147483648", "-2147483648", "int", -(2**31)),
    ("bigint", "9223372036854775807", "9223372036854775807", "bigint", 2**63 - 1),
    ("decimal(38,10)", "-1234567890123456789012345678.0123456789", "-1234567890123456789012345678.0123456789",
     "decimal(38,10)", Decimal("-1234567890123456789012345678.0123456789")),
    ("decimal(5,2)", "0.5", "0.50", "decimal(5,2)", Decimal("0.50")),
    ("money", "922337203685477.5807", "922337203685477.5807", "decimal(19,4)", Decimal("922337203685477.5807")),
    ("money", "-0.0001", "-0.0001", "decimal(19,4)", Decimal("-0.0001")),
    ("smallmoney", "-214748.3648", "-214748.3648", "decimal(10,4)", Decimal("-214748.3648")),
    ("real", "0.1", "1.0000000149011612e-001", "double", 0.10000000149011612),
    ("float", "0.1", "1.0000000000000001e-001", "double", 0.1),
    ("float", "1e308", "1.0000000000000000e+308", "double", 1e308),
    ("char(4)", "'ab'", "ab  ", "string", "ab  "),
    ("nchar(3)", "N'日'", "日  ", "varchar(3)", "日  "),
    ("varchar(10)", "'é€'", "é€", "varchar(10)", "é€"),
    ("nvarchar(20)", "N'2026-01-02 03:04:05'", "2026-01-02 03:04:05", "timestamp_ntz", datetime(2026, 1, 2, 3, 4, 5)),
    ("nvarchar(max)", "N'😀 \"quoted\"'", '😀 "quoted"', "string", '😀 "quoted"'),
    ("date", "'0001-01-01'", "0001-01-01", "date", date(1, 1, 1)),
    ("date", "'9999-12-31'", "9999-12-31", "date", date(9999, 12, 31)),
    ("time(0)", "'10:11:12'", "10:11:12", "string", "10:11:12"),
    ("time(7)", "'23:59:59.9999999'", "23:59:59.9999999", "string", "23:59:59.9999999"),
    ("datetime", "'2024-02-29 23:59:59.997'", "2024-02-29 23:59:59.997",
     "timestamp_ntz", datetime(2024, 2, 29, 23, 59, 59, 997000)),
    ("datetime", "'2024-01-01 00:00:00.003'", "2024-01-01 00:00:00.003",
     "timestamp_ntz", datetime(2024, 1, 1, 0, 0, 0, 3000)),
    ("datetime", "'1753-01-01'", "1753-01-01 00:00:00.000", "timestamp_ntz", datetime(1753, 1, 1)),
    ("smalldatetime", "'2024-02-29 23:59:30'", "2024-03-01 00:00:00.000", "timestamp_ntz", datetime(2024, 3, 1)),
    *(
        (f"datetime2({digits})", f"'2024-02-29 23:59:58{fraction}'", f"2024-02-29 23:59:58{fraction}",
         "timestamp_ntz", datetime.fromisoformat(f"2024-02-29 23:59:58{fraction}"))
        for digits, fraction in enumerate(["", ".1", ".12", ".123", ".1234", ".12345", ".123456", ".1234560"])
    ),
    ("datetime2(7)", "'0001-01-01'", "0001-01-01 00:00:00.0000000", "timestamp_ntz", datetime(1, 1, 1)),
    ("datetime2(7)", "'2024-01-01 00:00:00.1234567'", "2024-01-01 00:00:00.1234567",
     "varchar(27)", "2024-01-01 00:00:00.1234567"),
    ("datetimeoffset(7)", "'2024-07-01 12:00:00.5 -03:30'", "2024-07-01 12:00:00.5000000-03:30",
     "timestamp", "2024-07-01 15:30:00.5+00"),
    ("datetimeoffset(0)", "'2024-07-01 12:00:00 +14:00'", "2024-07-01 12:00:00+14:00",
     "timestamp", "2024-06-30 22:00:00+00"),
    ("datetimeoffset(7)", "'2024-07-01 12:00:00.1234567 +00:00'", "2024-07-01 12:00:00.1234567+00:00",
     "string", "2024-07-01 12:00:00.1234567+00:00"),
    ("uniqueidentifier", "'6f9619ff-8b86-d011-b42d-00c04fc964ff'", "6F9619FF-8B86-D011-B42D-00C04FC964FF",
     "varchar(36)", "6F9619FF-8B86-D011-B42D-00C04FC964FF"),
    ("binary(4)", "0x00FF", "00FF0000", "string", "00FF0000"),
    ("varbinary(max)", "0x00FF", "00FF", "string", "00FF"),
    ("xml", "N'<a>ü</a>'", "<a>ü</a>", "string", "<a>ü</a>"),
]  # fmt: skip


class TestValues:
    def test_text_arrives_as_it_is(self, ways: Any) -> None:
        rows = [*enumerate(TEXTS), (99, None)]
        ways.create("id bigint NOT NULL PRIMARY KEY, t nvarchar(max)", rows)
        assert sorted(ways.read({"id": "bigint", "t": "string"})) == rows

    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(texts=st.lists(ANY_TEXT, max_size=200))
    def test_any_text_arrives_as_it_is_both_ways(self, mssql: Any, texts: list[str]) -> None:
        mssql.create("id bigint NOT NULL PRIMARY KEY, t nvarchar(40)", list(enumerate(texts)))
        for mssql.way in (0, -1):
            assert sorted(mssql.read({"id": "bigint", "t": "string"})) == list(enumerate(texts))

    def test_every_value_arrives_as_text_and_as_its_type(self, ways: Any) -> None:
        columns = ", ".join(f"c{place} {declared} NULL" for place, (declared, *_) in enumerate(VALUES))
        ways.create(f"id int NOT NULL PRIMARY KEY, {columns}")
        ways.server.execute(f"INSERT INTO {ways.table} VALUES (1, {', '.join(literal for _, literal, *_ in VALUES)})")
        ways.server.execute(f"INSERT INTO {ways.table} (id) VALUES (2)")
        names, none = [f"c{place}" for place in range(len(VALUES))], (None,) * len(VALUES)
        [first, second] = sorted(ways.read({"id": "int"} | dict.fromkeys(names, "string")), key=lambda row: row[0])
        assert dict(zip(names, first[1:], strict=True)) == dict(
            zip(names, [text for _, _, text, *_ in VALUES], strict=True)
        )
        assert second == (2, *none)
        typed = dict(zip(names, (kind for *_, kind, _ in VALUES), strict=True))
        [first, second] = sorted(ways.read({"id": "int"} | typed), key=lambda row: row[0])
        assert dict(zip(names, first[1:], strict=True)) == dict(
            zip(names, [value for *_, value in VALUES], strict=True)
        )
        assert second == (2, *none)

    @pytest.mark.parametrize(
        ("declared", "literal", "data_type"),
        [
            ("datetime2(7)", "'2024-01-01 00:00:00.1234567'", "timestamp_ntz"),
            ("datetimeoffset(7)", "'2024-01-01 00:00:00.1234567 +01:00'", "timestamp"),
            ("decimal(9,3)", "1.005", "decimal(9,2)"),
            ("money", "0.0001", "decimal(19,2)"),
            ("bigint", "3000000000", "int"),
            ("tinyint", "2", "boolean"),
            ("float", "2.7", "bigint"),
            ("nvarchar(9)", "N'abcd'", "varchar(3)"),
        ],
    )
    def test_what_does_not_fit_is_named(self, ways: Any, declared: str, literal: str, data_type: str) -> None:
        ways.create(f"id int NOT NULL PRIMARY KEY, v {declared}")
        ways.server.execute(f"INSERT INTO {ways.table} VALUES (1, {literal})")
        with pytest.raises(DataError, match=r"orders: 1 row does not fit.*\n  row 1: column v: '.*' is not an? "):
            ways.source({"id": "bigint", "v": data_type}).run("manual__1")
        assert not list(ways.lake.root.rglob("*.parquet"))

    def test_long_values_travel(self, mssql: Any) -> None:
        mssql.create(
            "id int NOT NULL PRIMARY KEY, v nvarchar(max), w varbinary(max)",
            [(each, "ü" * 300_000, b"\x01\xff" * 50_000) for each in range(5)],
        )
        found = sorted(mssql.read({"id": "int", "v": "string", "w": "string"}))
        assert found == [(each, "ü" * 300_000, "01FF" * 50_000) for each in range(5)]

    def test_rows_too_wide_for_blocks_travel_one_by_one(self, mssql: Any, caplog: pytest.LogCaptureFixture) -> None:
        rows = [(each, f"{each}" * 1_500_000) for each in range(50)]
        mssql.create("id int NOT NULL PRIMARY KEY, v nvarchar(max)", rows)
        with caplog.at_level("INFO"):
            assert sorted(mssql.read({"id": "int", "v": "string"}, settings={"extract_memory": "2GB"})) == rows
        assert "rows too wide to travel in blocks of 500 rows" in caplog.text


class TestTables:
    COLUMNS = {"id": "bigint", "a": "string"}  # noqa: RUF012

    def test_an_empty_table_is_no_error(self, ways: Any) -> None:
        ways.create("id bigint NOT NULL PRIMARY KEY, a nvarchar(9)")
        assert ways.read(self.COLUMNS) == []

    @pytest.mark.parametrize("rows", [1, 499, 500, 501, 2345])
    def test_every_row_is_read_once(self, mssql: Any, rows: int) -> None:
        given = [(each * 7 - 5000, f"row {each}") for each in range(rows)]
        mssql.create("id bigint NOT NULL PRIMARY KEY, a nvarchar(20)", given)
        assert sorted(mssql.read(self.COLUMNS)) == given

    @pytest.mark.parametrize(
        "key",
        [
            "PRIMARY KEY (id)",
            "PRIMARY KEY (part, id)",
            "UNIQUE (id)",
        ],
        ids=["one", "composite", "none"],
    )
    def test_the_way_depends_on_the_primary_key(self, mssql: Any, caplog: pytest.LogCaptureFixture, key: str) -> None:
        rows = [(7, each, "x") for each in range(1200)]
        mssql.create(f"part int NOT NULL, id bigint NOT NULL, a nvarchar(9), CONSTRAINT k_orders {key}", rows)
        with caplog.at_level("INFO"):
            rows = mssql.read(self.COLUMNS, keys={"select": ["id", "a"]})
        assert sorted(rows) == [(each, "x") for each in range(1200)]
        assert ("in blocks of 500 rows" in caplog.text) == (key == "PRIMARY KEY (id)")

    def test_the_tables_may_have_the_names_of_our_aliases(self, mssql: Any) -> None:
        for table in ("dbo.a", "dbo.b", "dbo.k", "dbo.l", "dbo.o"):
            mssql.create("id bigint NOT NULL PRIMARY KEY, lo int, n int", [(1, 2, 3)], table)
            assert mssql.read({"id": "bigint", "lo": "int", "n": "int"}, table=table) == [(1, 2, 3)]

    def test_odd_names_are_quoted(self, mssql: Any) -> None:
        name = "dbo.[Order]]s'; --]"
        mssql.create("[I'd ]]x] bigint NOT NULL PRIMARY KEY, A nvarchar(9)", table=name)
        mssql.server.execute(f"INSERT INTO {name} VALUES (1, N'x')")
        sql = "SELECT [I'd ]]x] AS id, A FROM dbo.[Order]]s'; --]"
        assert mssql.read(self.COLUMNS, table="orders", keys={"sql": sql}) == [(1, "x")]
        columns = {"i'd ]x": "bigint", "a": "string"}
        assert mssql.read(columns, table="dbo.Order]s'; --", keys={"primary_key": ["i'd ]x"]}) == [(1, "x")]

    def test_a_view_is_read_like_a_table(self, mssql: Any) -> None:
        mssql.create("id bigint NOT NULL PRIMARY KEY, a nvarchar(9)", [(1, "x"), (2, "y")], "dbo.base")
        mssql.create_view("SELECT id, a FROM dbo.base WHERE id > 1", "dbo.some_orders")
        assert mssql.read(self.COLUMNS, table="dbo.some_orders") == [(2, "y")]

    def test_only_the_selected_columns_are_read(self, mssql: Any) -> None:
        mssql.create("secret nvarchar(9), a nvarchar(9), id bigint NOT NULL PRIMARY KEY", [("no", "x", 1)])
        for select in (["id", "a"], ["-secret"]):
            assert mssql.read(self.COLUMNS, keys={"select": select}) == [(1, "x")]

    @pytest.mark.parametrize("sql", ["SELECT id FROM dbo.base ORDER BY id", "SELECT id, id FROM dbo.base"])
    def test_a_query_that_cannot_be_a_table_is_refused_at_once(self, mssql: Any, sql: str) -> None:
        mssql.create("id bigint NOT NULL PRIMARY KEY", [(1,)], "dbo.base")
        with pytest.raises(SourceRefusedError, match=r"ORDER BY clause is invalid|specified multiple times"):
            mssql.read({"id": "bigint"}, table="orders", keys={"sql": sql})

    def test_columns_are_told_in_the_servers_own_words(self, mssql: Any) -> None:
        mssql.create("id bigint NOT NULL PRIMARY KEY, a nvarchar(9), b decimal(9,3), c datetime2(3), d varchar(max)")
        columns = {"id": "bigint", "a": "string", "b": "decimal(9,3)", "c": "timestamp_ntz", "d": "string"}
        manifest, _ = mssql.source(columns).run("manual__1")
        assert manifest.source_columns == (
            ("id", "bigint"),
            ("a", "nvarchar(9)"),
            ("b", "decimal(9,3)"),
            ("c", "datetime2(3)"),
            ("d", "varchar(max)"),
        )


class TestRefusals:
    """What another try does not mend is told at once, in one line and without the password."""

    def refused(self, bench: Any, *names: str, **connection: Any) -> str:
        with pytest.raises(SourceRefusedError) as caught:
            bench.source({"id": "bigint"}, **connection).run("manual__1")
        message = str(caught.value)
        assert "connection shop_mssql" in message
        assert len(message.splitlines()) == 1, message
        assert bench.connection.password not in message
        assert "wr0ng" not in message
        for name in names:
            assert name in message
        return message

    @pytest.mark.parametrize(
        ("change", "named"),
        [({"password": "wr0ng/pass"}, ""), ({"user": "nobody"}, "nobody"), ({"database": "nowhere"}, "nowhere")],
        ids=["password", "user", "database"],
    )
    def test_who_may_not_enter(self, mssql: Any, change: dict[str, str], named: str) -> None:
        for _ in range(2):  # of a second refusal the driver tells less
            self.refused(mssql, "refuses", named, "Login failed", **change)

    def test_a_missing_table(self, mssql: Any) -> None:
        self.refused(mssql, "Invalid object name 'dbo.orders'")

    def test_a_missing_column(self, mssql: Any) -> None:
        mssql.create("id bigint NOT NULL PRIMARY KEY")
        with pytest.raises(SourceRefusedError, match="Invalid column name 'nothing'"):
            mssql.read({"id": "bigint"}, table="orders", keys={"sql": "SELECT id, nothing FROM dbo.orders"})

    def test_a_missing_right(self, faulty: Any) -> None:
        faulty.create("id bigint NOT NULL PRIMARY KEY")
        faulty.tds.fail("dm_exec_describe", DENIED)
        self.refused(faulty, "SELECT permission was denied")

    @pytest.mark.parametrize(
        ("text", "final"),
        [
            ("Login failed for user 'reader'.", True),
            ("Login failed for user 'reader'. Reason: The account is disabled.", True),
            ("Login failed for user 'reader'. Reason: Server is in script upgrade mode.", False),
        ],
    )
    def test_a_server_that_is_not_ready_may_be_later(self, faulty: Any, text: str, final: bool) -> None:
        dialect = faulty.source({"id": "bigint"}).source.dialect
        given = pymssql.OperationalError((18456, f"{text}DB-Lib error message 20018, severity 14:\nGeneral".encode()))
        error = dialect._no_entry(Relation("orders", "", None, None), given)
        assert error.final == final
        assert text in str(error)

    @pytest.mark.parametrize("change", [{"port": 1}, {"encrypt": "true"}], ids=["nobody there", "no TLS there"])
    def test_what_may_be_mended_is_tried_again(self, faulty: Any, change: dict[str, Any]) -> None:
        with pytest.raises(SourceRefusedError):  # leaves its number behind in the driver
            faulty.source({"id": "bigint"}, password="wr0ng/pass").run("manual__1")
        with pytest.raises(ExtractError, match=r"shop_mssql: no connection to 127.0.0.1 for shop: \w+") as caught:
            faulty.source({"id": "bigint"}, **change).run("manual__1")
        assert not caught.value.final


class TestFaults:
    COLUMNS = {"id": "bigint", "a": "string"}  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def orders(self, faulty: Any) -> None:
        faulty.create("id bigint NOT NULL PRIMARY KEY, a nvarchar(20)", [(each, "x") for each in range(2000)])

    @pytest.mark.parametrize("way", [0, -1], ids=["blocks", "row by row"])
    @pytest.mark.parametrize("pattern", ["dm_exec_describe", "^SELECT (ISNULL|CONVERT)"], ids=["ours", "sling's"])
    @pytest.mark.parametrize("fault", ["deadlock", "drop"])
    def test_a_fault_is_an_error_that_is_tried_again(self, faulty: Any, way: int, pattern: str, fault: str) -> None:
        faulty.way = way
        after = 1 if way == 0 and pattern.startswith("^") else 0
        faulty.tds.fail(pattern, DEADLOCK, 9, after) if fault == "deadlock" else faulty.tds.drop(pattern, 9, after)
        with pytest.raises(ExtractError, match="deadlock victim" if fault == "deadlock" else None) as caught:
            faulty.source(self.COLUMNS).run("manual__1")
        assert not caught.value.final
        assert faulty.connection.password not in str(caught.value)
        assert not list(faulty.lake.root.rglob("*.parquet"))
        assert not faulty.work_folders()
        faulty.tds.forget()
        assert len(faulty.read(self.COLUMNS)) == 2000

    def test_a_slow_statement_holds_nobody_up(self, faulty: Any) -> None:
        dialect = faulty.source(self.COLUMNS).source.dialect

        def wait() -> None:
            with dialect._asking(Relation("orders", "", None, None)) as cursor:
                cursor.execute("WAITFOR DELAY '00:00:15'")

        asked = threading.Thread(target=wait)
        asked.start()
        deadline = time.monotonic() + 10
        while not any("WAITFOR" in entry.sql for entry in faulty.tds.journal) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(faulty.read(self.COLUMNS, keys={"meta": {"parallel": 2}})) == 2000
        assert asked.is_alive(), "the reading had to wait for the slow statement"
        asked.join()

    def test_what_is_sent_is_to_read_only(self, faulty: Any, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        keys = {
            "mode": "incremental",
            "update_key": "id",
            "meta": {"parallel": 2, "deletes": "hard", "reconcile": "exact"},
        }
        faulty.pipeline(self.COLUMNS, keys)
        for statement in faulty.tds.statements:
            assert statement.lower().startswith(("select ", "set arithabort on", "use [shop]")), statement
        assert {entry.kind for entry in faulty.tds.journal} == {"login", "batch"}
        assert faulty.connection.password not in caplog.text
