"""Where a raw table stands: rows, watermark, files."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import duckdb
import pytest

from include.elt.contract import Column
from include.elt.errors import LoadError, WarehouseBusyError
from include.elt.modes import Span, plan
from include.elt.paths import ROOT
from include.elt.replication import Meta, Stream
from include.elt.warehouse import TableState
from tests.support.elt import Bench
from tests.support.loads import Raw
from tests.support.processes import held, python


def state(raw: Raw, update_key: str | None = None) -> TableState | None:
    return raw.bench.warehouse().state("raw.orders", update_key)


def files(*names: str) -> dict[str, Any]:
    return {"files": [{"name": name, "sha256": f"sha of {name}", "bytes": 1} for name in names]}


def known(raw: Raw) -> set[str]:
    now = state(raw)
    assert now is not None
    assert all(sha256 == f"sha of {name}" for name, sha256 in now.files)
    return {name for name, _ in now.files}


def test_is_none_without_file_or_table(raw: Raw) -> None:
    assert state(raw) is None
    assert not raw.bench.database.exists()
    raw.bench.query("CREATE SCHEMA raw")
    assert state(raw) is None


def test_of_a_table_that_nobody_logged(raw: Raw) -> None:
    raw.bench.query("CREATE SCHEMA raw")
    raw.bench.query("CREATE TABLE raw.orders AS SELECT 7 AS id")
    assert state(raw, "id") == TableState(1, "7", frozenset())


def test_counts_rows_that_are_marked_as_deleted(raw: Raw) -> None:
    raw.policy = Meta(deletes="soft")
    raw.load([(1, "x"), (2, "y")])
    raw.load([], keys=[(1,)])
    now = state(raw, "id")
    assert now is not None
    assert (now.rows, now.watermark) == (2, "2")


@pytest.mark.parametrize(
    ("data_type", "values", "watermark"),
    [
        ("bigint", ["9", "10"], "10"),
        ("string", ["9", "10"], "9"),
        ("decimal(9,2)", ["1.5", "1.25"], "1.50"),
        ("date", ["2026-01-02", "2026-01-01"], "2026-01-02"),
        ("timestamp", ["2026-01-02 00:00:00+02:00", "2026-01-01 12:00:00.5-01:00"], "2026-01-01 22:00:00+00"),
        ("timestamp_ntz", ["2026-01-02 00:00:00.25"], "2026-01-02 00:00:00.25"),
        ("timestamp", [None], None),
    ],
)
def test_the_watermark_is_text_that_a_window_begins_with(
    raw: Raw, data_type: str, values: list[str | None], watermark: str | None
) -> None:
    raw.columns, raw.update_key = {"id": "bigint", "k": data_type}, "k"
    result = raw.load([*enumerate(values)])
    now = state(raw, "k")
    assert now is not None
    assert now.watermark == result.watermark == watermark
    if not Column("k", data_type).data_type.startswith("timestamp") or not watermark:
        return
    keys: dict[str, Any] = {"mode": "incremental", "object": "raw.orders", "primary_key": "id", "update_key": "k"}
    stream = Stream(name="public.orders", meta=Meta(lookback="1 day"), **keys)
    reading = plan(stream, raw.bench.contract(raw.columns), Span(), lambda: now)
    assert reading.window is not None
    assert str(reading.window.lower) < watermark


class TestFiles:
    def test_are_those_of_every_load(self, raw: Raw) -> None:
        raw.load([(1, "x")], source=files("a", "b"))
        raw.load([(2, "y")], source=files("c"))
        raw.load([], source=files())
        raw.load([(3, "z")], table="raw.other", source=files("d"))
        assert known(raw) == {"a", "b", "c"}

    def test_begin_with_the_last_full_refresh(self, raw: Raw) -> None:
        raw.load([(1, "x")], source=files("a"))
        raw.load([(1, "x")], source=files("b", "c"), mode="full-refresh")
        raw.load([(2, "y")], source=files("d"))
        assert known(raw) == {"b", "c", "d"}

    def test_begin_anew_with_a_new_table(self, raw: Raw) -> None:
        raw.load([(1, "x")], source=files("a"))
        raw.bench.query("DROP TABLE raw.orders")
        raw.load([(1, "x"), (2, "y")], source=files("a", "b"))
        assert known(raw) == {"a", "b"}

    def test_of_a_source_without_files_are_none(self, raw: Raw) -> None:
        raw.load([(1, "x")], source={"table": "public.orders"})
        assert known(raw) == set()

    def test_that_were_not_loaded_are_not_known(self, raw: Raw) -> None:
        raw.load([(1, "x")], source=files("a"))
        manifest, folder = raw.extract([(2, "y")], source=files("b"))
        with pytest.raises(LoadError, match="arrived"):
            raw.take((replace(manifest, files=(replace(manifest.files[0], rows=9),)), folder))
        assert known(raw) == {"a"}


class TestWithOthers:
    def test_waits_for_a_file_that_is_held(self, raw: Raw) -> None:
        raw.load([(1, "x")])
        with held(raw.bench, 60) as process, pytest.raises(WarehouseBusyError, match=f"process {process.pid}"):
            raw.bench.warehouse(lock_timeout=0.2).state("raw.orders", None)
        with held(raw.bench, 1):
            assert raw.bench.warehouse(lock_timeout=60).state("raw.orders", None) is not None

    def test_reads_beside_a_reader(self, raw: Raw) -> None:
        raw.load([(1, "x")])
        with held(raw.bench, 60, read_only=True):
            assert raw.bench.warehouse(lock_timeout=0.2).count("raw.orders") == 1

    def test_waits_for_a_load_of_its_own_process(self, raw: Raw) -> None:
        raw.load([(1, "x")])
        with duckdb.connect(str(raw.bench.database)), pytest.raises(WarehouseBusyError, match="LOCK_TIMEOUT"):
            raw.bench.warehouse(lock_timeout=0.2).state("raw.orders", None)

    def test_sees_what_was_committed_before_a_kill(self, bench: Bench) -> None:
        code = """
import duckdb, os, signal
c = duckdb.connect(sys.argv[1])
c.execute("CREATE SCHEMA raw; CREATE TABLE raw.orders AS SELECT range AS id FROM range(1000)")
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
        python(code, str(bench.database)).wait()
        assert bench.database.with_name("warehouse.duckdb.wal").exists()
        assert bench.warehouse().state("raw.orders", "id") == TableState(1000, "999", frozenset())


def test_the_load_log_keeps_source_and_columns_as_json(raw: Raw) -> None:
    window = {"column": "id", "lower": "1", "upper": "2", "closed": False}
    source = files("ä'\"b")
    manifest, folder = raw.extract(
        [(1, "x")],
        mode="backfill",
        source=source,
        window=window,
        source_columns=(("id", "int8"),),
        rows_duplicate=3,
        source_rows=1,
    )
    raw.take((manifest, folder))
    [row] = raw.bench.query(
        "SELECT source, source_columns, window_column, window_lower, window_upper, window_closed, rows_duplicate,"
        " source_rows, rows_inserted, rows_updated, rows_deleted, table_created FROM ops.load_log"
    )
    assert json.loads(row[0]) == source
    assert json.loads(row[1]) == [["id", "int8"]]
    assert row[2:] == ("id", "1", "2", False, 3, 1, 1, 0, 0, True)


def test_dbt_describes_every_column_of_the_load_log(raw: Raw) -> None:
    import yaml

    raw.load([(1, "x")])
    there = raw.bench.query("SELECT column_name, column_type FROM (DESCRIBE ops.load_log)")
    document = yaml.safe_load((ROOT / "dbt" / "models" / "ops" / "sources.yml").read_text(encoding="utf-8"))
    [table] = [each for each in document["sources"][0]["tables"] if each["name"] == "load_log"]
    described = {each["name"]: Column(each["name"], each["data_type"]).duckdb_type for each in table["columns"]}
    assert described == dict(there)


class TestALogOfAnEarlierVersion:
    DDL = """
CREATE TABLE ops.load_log (
    manifest_id VARCHAR NOT NULL UNIQUE,
    run_id VARCHAR NOT NULL,
    replication VARCHAR NOT NULL,
    stream VARCHAR NOT NULL,
    table_name VARCHAR NOT NULL,
    mode VARCHAR NOT NULL,
    rows_read BIGINT NOT NULL,
    rows_loaded BIGINT NOT NULL,
    rows_rejected BIGINT NOT NULL,
    rows_total BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    extract_seconds DOUBLE NOT NULL,
    load_seconds DOUBLE NOT NULL,
    schema_hash VARCHAR NOT NULL,
    watermark VARCHAR,
    extracted_at TIMESTAMP WITH TIME ZONE NOT NULL,
    loaded_at TIMESTAMP WITH TIME ZONE NOT NULL
)
"""

    ROW = """
INSERT INTO ops.load_log VALUES ('old', 'r', 'shop', 'orders', 'raw.orders', 'full-refresh', 3, 1, 2, 1, 100, 0.5, 0.25,
    'hash', '7', '2026-01-01 00:05:00+00', now())
"""

    @pytest.fixture
    def raw(self, raw: Raw) -> Raw:
        """A warehouse as that version left it, with the extraction `old` loaded."""
        for statement in (
            "CREATE SCHEMA ops",
            "CREATE SCHEMA raw",
            self.DDL,
            "CREATE TABLE raw.orders AS SELECT 1::BIGINT AS id, 'x' AS a",
            self.ROW,
        ):
            raw.bench.query(statement)
        return raw

    def test_is_read_as_it_is(self, raw: Raw) -> None:
        assert state(raw, "id") == TableState(1, "1", frozenset())
        assert raw.bench.query("SELECT count(*) FROM (DESCRIBE ops.load_log)") == [(17,)]

    def test_gets_the_new_columns_with_the_next_load(self, raw: Raw) -> None:
        raw.load([(1, "X"), (2, "y")], at=6, source=files("a"))
        rows = raw.bench.query("SELECT manifest_id = 'old', rows_inserted, rows_updated, rows_loaded FROM ops.load_log")
        assert sorted(rows) == [(False, 1, 1, 2), (True, None, None, 1)]
        assert known(raw) == {"a"}
        raw.load([(3, "z")], at=7)
        assert len(raw.rows()) == 3

    def test_knows_what_it_loaded(self, raw: Raw) -> None:
        manifest, folder = raw.extract([(1, "x")], mode="full-refresh", at=5)
        result = raw.take((replace(manifest, id="old"), folder))
        assert result.repeated
        assert (result.rows_inserted, result.rows_updated, result.rows_deleted, result.rows_duplicate) == (1, 0, 0, 0)
        assert (result.rows_read, result.rows_rejected, result.source_rows, result.watermark) == (3, 2, None, "7")

    def test_keeps_the_order(self, raw: Raw) -> None:
        with pytest.raises(LoadError, match="a newer extraction was loaded already, by run r"):
            raw.load([(1, "older")], at=4)

    def test_a_load_that_fails_leaves_it_as_it_was(self, raw: Raw) -> None:
        with pytest.raises(LoadError):
            raw.load([(1, "older")], at=4)
        assert raw.bench.query("SELECT count(*) FROM (DESCRIBE ops.load_log)") == [(17,)]
