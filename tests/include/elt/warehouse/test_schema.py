"""Changes of shape, as a comparison of contract types and in a raw table."""

from __future__ import annotations

import logging
from typing import Any

import duckdb
import pytest

from include.elt.contract import TYPES, Column
from include.elt.errors import RefusedLoadError
from include.elt.replication import Meta
from include.elt.sql import literal
from include.elt.warehouse.duckdb.table import contract_type, duckdb_type, exact
from include.elt.warehouse.schema import Difference, compare, is_wider
from tests.support.loads import Raw, changes

FAIL, ADD, IGNORE = (Meta(on_schema_change=each) for each in ("fail", "add", "ignore"))  # type: ignore[arg-type]

CONTRACT_TYPES = [*(each for each in TYPES if "(" not in each), "decimal(10,2)", "decimal(38,0)", "varchar(5)"]


class TestComparison:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("tinyint", "smallint"),
            ("smallint", "int"),
            ("integer", "bigint"),
            ("int", "bigint"),
            ("decimal(10,2)", "decimal(18,2)"),
            ("decimal(10,2)", "decimal(18,4)"),
            ("decimal(10,2)", "decimal(12,4)"),
            ("tinyint", "decimal(3,0)"),
            ("int", "decimal(12,2)"),
            ("bigint", "decimal(19,0)"),
            ("varchar(5)", "varchar(6)"),
            ("varchar(5)", "string"),
        ],
    )
    def test_wider(self, old: str, new: str) -> None:
        assert is_wider(old, new)
        assert not is_wider(new, old)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("int", "integer"),
            ("bigint", "bigint"),
            ("decimal(10,2)", "decimal(11,4)"),
            ("decimal(10,2)", "decimal(18,1)"),
            ("int", "decimal(11,2)"),
            ("int", "double"),
            ("date", "timestamp"),
            ("date", "timestamp_ntz"),
            ("timestamp_ntz", "timestamp"),
            ("int", "string"),
            ("boolean", "int"),
            ("double", "decimal(38,10)"),
            ("hugeint", "decimal(38,0)"),
        ],
    )
    def test_not_wider(self, old: str, new: str) -> None:
        assert not is_wider(old, new)

    def test_the_order_of_columns_and_what_the_load_adds_do_not_matter(self) -> None:
        there = {"b": "string", "_deleted_at": "timestamp", "a": "integer", "_loaded_at": "timestamp"}
        assert not compare({"a": "int", "b": "string"}, there)

    def test_tells_every_kind(self) -> None:
        contract = {"new": "date", "wide": "bigint", "other": "date", "same": "int"}
        table = {"same": "int", "other": "string", "wide": "int", "old": "date"}
        assert compare(contract, table) == Difference(
            missing={"new": "date"},
            extra={"old": "date"},
            widened={"wide": ("int", "bigint")},
            changed={"other": ("string", "date")},
        )

    @pytest.mark.parametrize("data_type", CONTRACT_TYPES)
    def test_duckdb_tells_each_type_as_it_was_given(self, data_type: str) -> None:
        with duckdb.connect() as sql:
            sql.execute(f"CREATE TABLE t (x {Column('x', data_type).duckdb_type})")
            [(there,)] = sql.execute("SELECT data_type FROM duckdb_columns() WHERE table_name = 't'").fetchall()
        assert there == duckdb_type(data_type)
        assert not compare({"x": contract_type(there)}, {"x": contract_type(duckdb_type(data_type))})
        assert contract_type(there) == {"integer": "int", "varchar(5)": "string"}.get(data_type, data_type)


@pytest.mark.parametrize(
    ("value", "old", "new", "becomes"),
    [
        ("2.7", "DECIMAL(9,1)", "INTEGER", None),
        ("3.0", "DECIMAL(9,1)", "INTEGER", "3"),
        ("300", "INTEGER", "TINYINT", None),
        ("9007199254740993", "BIGINT", "DOUBLE", None),
        ("9007199254740992", "BIGINT", "DOUBLE", "9007199254740992.0"),
        ("nan", "DOUBLE", "INTEGER", None),
        ("0.1", "DOUBLE", "DECIMAL(9,2)", "0.10"),
        ("0.123", "DOUBLE", "DECIMAL(9,2)", None),
        ("007", "VARCHAR", "INTEGER", None),
        ("7", "VARCHAR", "INTEGER", "7"),
        ("2026-01-01 12:00:00", "TIMESTAMP", "DATE", None),
        ("2026-01-01 00:00:00", "TIMESTAMP", "DATE", "2026-01-01"),
        ("x", "VARCHAR", "DATE", None),
        (None, "INTEGER", "VARCHAR", None),
    ],
)
def test_a_value_becomes_another_type_only_if_it_stays_the_same(
    value: str | None, old: str, new: str, becomes: str | None
) -> None:
    with duckdb.connect() as sql:
        sql.execute(f"CREATE TABLE t AS SELECT CAST({'NULL' if value is None else literal(value)} AS {old}) AS v")
        [(found,)] = sql.execute(f"SELECT CAST({exact('v', old, new)} AS VARCHAR) FROM t").fetchall()
    assert found == becomes


MODES = pytest.mark.parametrize("mode", ["incremental", "backfill", "snapshot"])


@MODES
class TestInTheTable:
    """The table holds a row (1, 'x') at first."""

    @pytest.fixture
    def raw(self, raw: Raw, mode: str) -> Raw:
        raw.mode = mode
        raw.load([(1, "x")])
        return raw

    def load(self, raw: Raw, row: tuple[Any, ...], policy: Meta, **columns: str) -> Any:
        raw.policy = policy
        return raw.load([row], columns={"id": "bigint", "a": "string"} | columns)

    def refused(self, raw: Raw, policy: Meta, match: str, row: tuple[Any, ...], **columns: str) -> None:
        before = raw.rows(), raw.types()
        with pytest.raises(RefusedLoadError, match=match):
            self.load(raw, row, policy, **columns)
        assert (raw.rows(), raw.types()) == before

    def test_another_order_of_the_same_columns_is_fine(self, raw: Raw) -> None:
        raw.load([("y", 2)], columns={"a": "string", "id": "bigint"})
        assert raw.rows("id, a") == [(1, "x"), (2, "y")]

    def test_the_length_of_a_varchar_does_not_matter(self, raw: Raw) -> None:
        raw.load([(2, "y")], columns={"id": "bigint", "a": "varchar(7)"})
        assert raw.rows("id, a") == [(1, "x"), (2, "y")]

    def test_fail_names_a_new_column_and_the_ways_out(self, raw: Raw) -> None:
        way = "move the table away" if raw.mode == "snapshot" else "full_refresh"
        match = rf"raw\.orders: .*lacks the column b int.*{way}.*meta\.on_schema_change: add"
        self.refused(raw, FAIL, match, (2, "y", 7), b="int")

    def test_add_adds_a_new_column(self, raw: Raw, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            self.load(raw, (2, "y", 7), ADD, b="int")
        assert "lacks the column b int; it is added" in caplog.text
        assert raw.rows("id, a, b") == [(1, "x", None), (2, "y", 7)]

    def test_ignore_leaves_a_new_column_out(self, raw: Raw, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            self.load(raw, (2, "y", 7), IGNORE, b="int")
        assert "lacks the column b int; it is not loaded" in caplog.text
        assert raw.rows("id, a") == [(1, "x"), (2, "y")]
        assert "b" not in raw.types()

    @pytest.mark.parametrize("policy", [ADD, IGNORE], ids=["add", "ignore"])
    def test_a_column_that_the_contract_lacks_is_kept(
        self, raw: Raw, policy: Meta, caplog: pytest.LogCaptureFixture
    ) -> None:
        raw.bench.query("ALTER TABLE raw.orders ADD COLUMN old VARCHAR")
        raw.bench.query("UPDATE raw.orders SET old = 'kept'")
        with caplog.at_level(logging.WARNING):
            self.load(raw, (2, "y"), policy)
        assert "its column old string is not in the contract; it is kept" in caplog.text
        assert raw.rows("id, a, old") == [(1, "x", "kept"), (2, "y", None)]

    def test_a_column_that_the_contract_lacks_fails(self, raw: Raw) -> None:
        raw.bench.query("ALTER TABLE raw.orders ADD COLUMN old VARCHAR")
        self.refused(raw, FAIL, "its column old string is not in the contract", (2, "y"))

    def test_fail_says_what_looks_like_a_new_name(self, raw: Raw) -> None:
        raw.bench.query("ALTER TABLE raw.orders ADD COLUMN old DATE")
        self.refused(raw, FAIL, r"\(was old to new renamed\?\)", (2, "y", "2026-01-01", 1), new="date", other="int")

    @pytest.mark.parametrize("policy", [FAIL, ADD], ids=["fail", "add"])
    def test_another_type_is_refused(self, raw: Raw, policy: Meta) -> None:
        self.refused(raw, policy, r"its column a is string, in the contract int", (2, 7), a="int")

    def test_ignore_takes_values_of_another_type_that_fit(self, raw: Raw) -> None:
        self.load(raw, (2, 7), IGNORE, a="int")
        assert raw.rows("id, a") == [(1, "x"), (2, "7")]

    def test_ignore_refuses_values_that_do_not_fit(self, raw: Raw) -> None:
        raw.policy = ADD
        self.load(raw, (2, "y", 7), ADD, b="int")
        self.refused(raw, IGNORE, r"has '7\.50' in the column b, .* int exactly", (3, "z", "7.5"), b="decimal(9,2)")
        self.load(raw, (3, "z", "8.00"), IGNORE, b="decimal(9,2)")
        self.load(raw, (4, None, None), IGNORE, b="decimal(9,2)")
        assert raw.rows("id, a, b") == [(1, "x", None), (2, "y", 7), (3, "z", 8), (4, None, None)]
        assert raw.types()["b"] == "INTEGER"

    def test_a_wider_type(self, raw: Raw) -> None:
        self.load(raw, (2, "y", 7, "1.25"), ADD, b="int", c="decimal(10,2)")
        wide = {"b": "bigint", "c": "decimal(18,4)"}
        row = (3, "z", 2**40, "1.1234")
        self.refused(raw, FAIL, "its column b is int, in the contract bigint", row, **wide)
        self.refused(raw, IGNORE, r"'1099511627776' in the column b", row, **wide)
        self.load(raw, (4, "w", 8, "3.5"), IGNORE, **wide)
        assert raw.types()["b"] == "INTEGER"
        self.load(raw, row, ADD, **wide)
        assert raw.types()["b"] == "BIGINT"
        assert raw.types()["c"] == "DECIMAL(18,4)"
        assert [(id_, b, str(c)) for id_, b, c in raw.rows("id, b, c")[1:]] == [
            (2, 7, "1.2500"),
            (3, 2**40, "1.1234"),
            (4, 8, "3.5000"),
        ]


class TestMergesOnly:
    @pytest.mark.parametrize("policy", [FAIL, ADD, IGNORE], ids=["fail", "add", "ignore"])
    def test_a_table_without_the_key_is_refused(self, raw: Raw, policy: Meta) -> None:
        raw.load([("x",)], mode="full-refresh", columns={"a": "string"})
        raw.policy = policy
        with pytest.raises(RefusedLoadError, match=r"no column id, the primary key of the stream; .*full_refresh"):
            raw.load([(1, "x")])

    @pytest.mark.parametrize("policy", [ADD, IGNORE], ids=["add", "ignore"])
    def test_updated_rows_keep_the_values_of_a_column_that_is_gone(self, raw: Raw, policy: Meta) -> None:
        raw.load([(1, "x", "kept"), (2, "y", "kept")], columns={"id": "bigint", "a": "string", "old": "string"})
        raw.policy = policy
        assert changes(raw.load([(1, "X"), (3, "z")])) == (1, 1, 0)
        assert raw.rows("id, a, old") == [(1, "X", "kept"), (2, "y", "kept"), (3, "z", None)]

    def test_a_wider_key(self, raw: Raw) -> None:
        raw.load([(1, "x")], columns={"id": "int", "a": "string"})
        raw.policy = Meta(on_schema_change="ignore", deletes="hard")
        assert changes(raw.load([(1, "X"), (2, "y")], keys=[(1,), (2**40,)])) == (1, 1, 1)
        assert raw.rows() == [(1, "X")]
        raw.policy = ADD
        raw.load([(2**40, "z")])
        assert raw.rows() == [(1, "X"), (2**40, "z")]

    def test_a_full_refresh_takes_any_shape(self, raw: Raw) -> None:
        raw.load([(1, "x")])
        raw.load([("2026-01-01",)], mode="full-refresh", columns={"d": "date"})
        assert raw.types() == {"d": "DATE"}

    def test_an_update_key_that_is_not_loaded_gives_no_watermark(self, raw: Raw) -> None:
        raw.load([(1, "x")])
        raw.policy, raw.update_key = IGNORE, "day"
        columns = {"id": "bigint", "a": "string", "day": "date"}
        assert raw.load([(2, "y", "2026-01-01")], columns=columns).watermark is None
        state = raw.bench.warehouse().state("raw.orders", "day")
        assert state is not None
        assert state.watermark is None
