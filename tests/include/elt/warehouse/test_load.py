"""Loads into DuckDB: a raw table is the old one or the complete new one, and loading twice changes nothing."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.elt.errors import LoadError, RefusedLoadError, WarehouseBusyError
from include.elt.replication import Meta
from include.elt.warehouse import LoadResult, open_warehouse
from include.elt.warehouse.duckdb import DuckDBWarehouse
from include.elt.warehouse.duckdb.file import Memory
from tests.support.elt import Bench, Row
from tests.support.loads import Raw
from tests.support.processes import held, python

ONE = "SELECT 1::BIGINT AS id, 'x' AS a"
EMPTY = f"{ONE} LIMIT 0"
BIG = "SELECT range AS id, repeat(md5(range::VARCHAR), 4) AS a FROM range({})"
WIDE = "SELECT range AS id, rpad(md5(range::VARCHAR), {1}, 'x') AS a FROM range({0})"

FINGERPRINT = "SELECT count(*), sum(hash(COLUMNS(*))) FROM raw.orders"


def many(count: int) -> str:
    return f"SELECT range AS id, 'row ' || range AS a FROM range({count})"


def fingerprint(bench: Bench) -> list[Row]:
    return bench.query("SELECT count(*), sum(hash(id)), sum(hash(a)), sum(hash(id, a)) FROM raw.orders")


def logged(bench: Bench) -> list[Row]:
    return bench.query("SELECT manifest_id, rows_loaded, rows_total FROM ops.load_log ORDER BY loaded_at")


class TestFullRefresh:
    def test_puts_the_extraction_in_the_table_s_place(self, bench: Bench) -> None:
        bench.warehouse().load(*bench.publish(many(5)))
        manifest, folder = bench.publish(ONE, rows_read=3, rows_rejected=2)
        result = bench.warehouse().load(manifest, folder)
        assert bench.query("SELECT * FROM raw.orders") == [(1, "x")]
        assert result == LoadResult(
            table="raw.orders",
            rows_read=3,
            rows_loaded=1,
            rows_rejected=2,
            rows_total=1,
            rows_inserted=1,
            rows_updated=0,
            rows_deleted=0,
            rows_duplicate=0,
            source_rows=None,
            bytes=manifest.bytes,
            seconds=result.seconds,
            watermark=None,
            repeated=False,
        )

    def test_changes_the_shape_with_the_contract(self, bench: Bench) -> None:
        bench.warehouse().load(*bench.publish(ONE))
        bench.warehouse().load(*bench.publish("SELECT DATE '2024-01-01' AS d", {"d": "date"}))
        assert bench.query("SELECT column_name, column_type FROM (DESCRIBE raw.orders)") == [("d", "DATE")]

    def test_keeps_the_order_of_the_contract(self, bench: Bench) -> None:
        bench.warehouse().load(*bench.publish("SELECT 'x' AS a, 1::BIGINT AS id"))
        assert bench.query("SELECT * FROM raw.orders") == [(1, "x")]

    def test_an_older_extraction_does_not_change_a_newer_one(self, bench: Bench) -> None:
        older = bench.publish(many(3), run_id="monday")
        bench.warehouse().load(*bench.publish(many(5), run_id="tuesday"))
        with pytest.raises(
            RefusedLoadError, match=r"raw\.orders: a newer extraction was loaded already, by run tuesday"
        ):
            bench.warehouse().load(*older)
        assert bench.warehouse().count("raw.orders") == 5

    def test_leaves_other_tables_alone(self, bench: Bench) -> None:
        bench.warehouse().load(*bench.publish(ONE))
        bench.query("CREATE TABLE raw.other AS SELECT 7 AS n")
        bench.warehouse().load(*bench.publish(many(2)))
        assert bench.query("SELECT n FROM raw.other") == [(7,)]

    def test_the_types_are_those_of_the_contract(self, bench: Bench) -> None:
        columns = {
            "id": "bigint",
            "t": "tinyint",
            "s": "smallint",
            "i": "int",
            "j": "integer",
            "b": "boolean",
            "d": "date",
            "n": "decimal(12,3)",
            "f": "double",
            "x": "string",
            "v": "varchar(5)",
            "ts": "timestamp",
            "tn": "timestamp_ntz",
        }
        row = "1,1,1,1,1,true,2024-01-01,1.5,0.1,x,y,2024-01-01T00:00:00+01:00,2024-01-01 00:00:00"
        extracted = bench.extract(f"{','.join(columns)}\n{row}\n", columns=columns)
        bench.warehouse().load(extracted.manifest, extracted.folder)
        types = {"id": "BIGINT", "t": "TINYINT", "s": "SMALLINT", "i": "INTEGER", "j": "INTEGER", "b": "BOOLEAN"}
        types |= {"d": "DATE", "n": "DECIMAL(12,3)", "f": "DOUBLE", "x": "VARCHAR", "v": "VARCHAR"}
        types |= {"ts": "TIMESTAMP WITH TIME ZONE", "tn": "TIMESTAMP"}
        assert dict(bench.query("SELECT column_name, column_type FROM (DESCRIBE raw.orders)")) == types
        assert bench.query("SELECT ts = TIMESTAMPTZ '2023-12-31 23:00:00+00', tn::VARCHAR FROM raw.orders") == [
            (True, "2024-01-01 00:00:00")
        ]

    def test_the_watermark_is_the_largest_value_of_the_update_key(self, bench: Bench) -> None:
        columns = {"id": "bigint", "day": "date"}
        rows = "SELECT 1::BIGINT AS id, DATE '2024-02-01' AS day UNION ALL SELECT 2, DATE '2024-01-01'"
        assert bench.warehouse().load(*bench.publish(rows, columns, update_key="day")).watermark == "2024-02-01"
        empty = bench.publish(f"{rows} LIMIT 0", columns, update_key="day")
        assert bench.warehouse().load(*empty, Meta(allow_empty=True)).watermark is None

    def test_the_load_log_has_its_row(self, bench: Bench) -> None:
        manifest, folder = bench.publish(ONE, rows_read=3, rows_rejected=2, update_key="id", run_id="r'1")
        result = bench.warehouse().load(manifest, folder)
        (row,) = bench.query("SELECT * EXCLUDE (extracted_at, loaded_at) FROM ops.load_log")
        assert row == (
            *(manifest.id, "r'1", "shop", "orders", "raw.orders", "full-refresh", 3, 1, 2, 1, manifest.bytes),
            *(0.5, result.seconds, manifest.schema_hash, "1"),
            *(1, 0, 0, 0, None, None, None, None, None, '{"files": []}', "[]", True),
        )
        assert json.loads(json.dumps(asdict(result))) == asdict(result)
        ((extracted, recent),) = bench.query(
            "SELECT epoch(extracted_at), loaded_at BETWEEN now() - INTERVAL 1 MINUTE AND now() FROM ops.load_log"
        )
        assert datetime.fromtimestamp(extracted, UTC) == datetime.fromisoformat(manifest.extracted_at)
        assert recent


class TestTwice:
    def test_the_same_extraction_changes_nothing(self, bench: Bench) -> None:
        manifest, folder = bench.publish(many(100), update_key="id")
        first = bench.warehouse().load(manifest, folder)
        before = fingerprint(bench), logged(bench), bench.query("SELECT loaded_at::VARCHAR FROM ops.load_log")
        second = bench.warehouse().load(manifest, folder)
        assert (first.repeated, second.repeated) == (False, True)
        assert second == LoadResult(**{**vars(first), "repeated": True})
        assert before == (fingerprint(bench), logged(bench), bench.query("SELECT loaded_at::VARCHAR FROM ops.load_log"))

    def test_it_is_loaded_again_when_the_table_is_gone(self, bench: Bench) -> None:
        manifest, folder = bench.publish(many(100))
        bench.warehouse().load(manifest, folder)
        before = fingerprint(bench)
        bench.query("DROP TABLE raw.orders")
        assert not bench.warehouse().load(manifest, folder).repeated
        assert fingerprint(bench) == before
        assert logged(bench) == [(manifest.id, 100, 100)]

    def test_an_old_extraction_does_not_come_back(self, bench: Bench) -> None:
        old, new = bench.publish(many(3)), bench.publish(many(7))
        bench.warehouse().load(*old)
        bench.warehouse().load(*new)
        assert bench.warehouse().load(*old).repeated
        assert bench.warehouse().count("raw.orders") == 7

    def test_two_extractions_of_one_source_are_equal(self, bench: Bench) -> None:
        data = "id,a,b\n" + "".join(f"{number},text {number},\n" for number in range(500))
        prints = []
        for _ in range(2):
            extracted = bench.extract(data)
            bench.warehouse().load(extracted.manifest, extracted.folder)
            prints.append(fingerprint(bench))
        assert prints[0] == prints[1]
        assert [row[1:] for row in logged(bench)] == [(500, 500), (500, 500)]


class TestEmpty:
    def test_over_rows_is_refused(self, bench: Bench) -> None:
        bench.warehouse().load(*bench.publish(many(1234)))
        with pytest.raises(
            RefusedLoadError, match=r"raw\.orders: .*orders is empty.* 1,234 rows.*meta\.allow_empty: true"
        ):
            bench.warehouse().load(*bench.publish(EMPTY))
        assert bench.warehouse().count("raw.orders") == 1234
        assert len(logged(bench)) == 1

    def test_over_rows_is_done_when_it_is_allowed(self, bench: Bench) -> None:
        bench.warehouse().load(*bench.publish(many(3)))
        result = bench.warehouse().load(*bench.publish(EMPTY), Meta(allow_empty=True))
        assert (result.rows_total, bench.warehouse().count("raw.orders")) == (0, 0)

    def test_over_nothing_and_over_an_empty_table_is_fine(self, bench: Bench) -> None:
        for _ in range(2):
            assert bench.warehouse().load(*bench.publish(EMPTY)).rows_total == 0
        assert bench.query("SELECT column_name FROM (DESCRIBE raw.orders)") == [("id",), ("a",)]
        assert len(logged(bench)) == 2

    def test_from_a_file_with_a_header_only(self, bench: Bench) -> None:
        extracted = bench.extract("id,a,b\n")
        assert bench.warehouse().load(extracted.manifest, extracted.folder).rows_total == 0


class TestDamage:
    def test_a_changed_file_is_refused_and_the_table_kept(self, bench: Bench) -> None:
        bench.warehouse().load(*bench.publish(many(3)))
        manifest, folder = bench.publish(many(9))
        (folder / "part-00000.parquet").write_bytes(b"PAR1")
        with pytest.raises(LoadError, match="is not the file that was extracted"):
            bench.warehouse().load(manifest, folder)
        assert bench.warehouse().count("raw.orders") == 3

    def test_rows_that_do_not_add_up_are_rolled_back(self, bench: Bench) -> None:
        bench.warehouse().load(*bench.publish(many(3)))
        manifest, folder = bench.publish(many(9))
        wrong = replace(manifest, files=(replace(manifest.files[0], rows=8),))
        with pytest.raises(LoadError, match="9 rows arrived of 8; the load was rolled back"):
            bench.warehouse().load(wrong, folder)
        assert bench.warehouse().count("raw.orders") == 3
        assert len(logged(bench)) == 1

    def test_a_view_in_the_table_s_place_is_an_error(self, bench: Bench) -> None:
        bench.query("CREATE SCHEMA raw")
        bench.query("CREATE VIEW raw.orders AS SELECT 7 AS n")
        with pytest.raises(LoadError, match=r"raw\.orders: the load failed and was rolled back"):
            bench.warehouse().load(*bench.publish(ONE))
        assert bench.query("SELECT n FROM raw.orders") == [(7,)]

    @pytest.mark.parametrize("content", [b"not a database" * 1000, b"x"], ids=["another file", "one byte"])
    def test_a_file_that_is_no_database(self, bench: Bench, content: bytes) -> None:
        bench.database.write_bytes(content)
        started = time.monotonic()
        with pytest.raises(LoadError, match=r"warehouse\.duckdb") as caught:
            bench.warehouse(lock_timeout=30).load(*bench.publish(ONE))
        assert not isinstance(caught.value, WarehouseBusyError)
        assert time.monotonic() - started < 10
        assert bench.database.read_bytes() == content

    def test_a_path_with_lock_in_its_name_is_not_taken_for_a_lock(self, bench: Bench) -> None:
        folder = bench.root / "lock" / "warehouse.duckdb"
        folder.mkdir(parents=True)
        with pytest.raises(LoadError, match="cannot be opened") as caught:
            DuckDBWarehouse(folder, 30, 60).load(*bench.publish(ONE))
        assert not isinstance(caught.value, WarehouseBusyError)


class TestCount:
    def test(self, bench: Bench) -> None:
        warehouse = bench.warehouse()
        assert warehouse.count("raw.orders") is None
        assert not bench.database.exists()
        warehouse.load(*bench.publish(many(3)))
        assert (warehouse.count("raw.orders"), warehouse.count("raw.nothing")) == (3, None)


def test_the_warehouse_of_the_settings(bench: Bench) -> None:
    settings = bench.settings(duckdb_path=bench.root / "deep" / "er" / "w.duckdb", lock_timeout=7, load_timeout=9)
    warehouse = open_warehouse(settings)
    assert isinstance(warehouse, DuckDBWarehouse)
    assert (warehouse.lock_timeout, warehouse.load_timeout) == (7, 9)
    warehouse.load(*bench.publish(ONE))
    assert warehouse.count("raw.orders") == 1


def test_no_load_imports_pandas(bench: Bench) -> None:
    """DuckDB's client does so for the first parameter of a statement; it takes longer than most loads."""
    raw = Raw(bench)
    raw.load([(1, "x")])
    _, folder = raw.extract([(1, "X")])
    code = f"{LOADING}\nBench(Path(sys.argv[1])).warehouse().state('raw.orders', 'id')\n"
    code += "print('ready' if 'pandas' not in sys.modules else 'pandas', flush=True)"
    python(code, str(bench.root), str(folder)).wait()


class TestMemory:
    def test_that_wide_rows_need_is_given(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        """What most loads get does not hold them; nothing is lost by it, or loaded twice."""
        caplog.set_level("INFO")
        result = bench.warehouse().load(*bench.publish(WIDE.format(40_000, 10_000)))
        assert result.rows_total == 40_000
        assert bench.query("SELECT count(*), min(length(a)), count(DISTINCT a) FROM raw.orders") == [
            (40_000, 10_000, 40_000)
        ]
        assert "it begins again" in caplog.text
        assert bench.query("SELECT count(*) FROM ops.load_log") == [(1,)]

    def test_that_nothing_can_give_is_told(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        bench.warehouse().load(*bench.publish(many(3)))
        for name in ("LEAN", "AMPLE", "LAST"):
            monkeypatch.setattr(f"include.elt.warehouse.duckdb.{name}", Memory("20MB", 1))
        with pytest.raises(
            LoadError, match=r"raw\.orders: .* rolled back, for DuckDB needs more than 20MB .* with select"
        ):
            bench.warehouse().load(*bench.publish(WIDE.format(4_000, 10_000)))
        assert bench.query("SELECT count(*) FROM raw.orders") == [(3,)]


class TestAnotherProcess:
    def test_is_waited_for_a_bounded_time_and_named(self, bench: Bench) -> None:
        bench.warehouse().load(*bench.publish(many(3)))
        extraction = bench.publish(ONE)
        with held(bench, 60) as process:
            started = time.monotonic()
            with pytest.raises(WarehouseBusyError, match=f"process {process.pid} .*LOCK_TIMEOUT"):
                bench.warehouse(lock_timeout=1).load(*extraction)
            assert 0.5 < time.monotonic() - started < 10
        assert bench.warehouse().count("raw.orders") == 3

    def test_that_reads_is_waited_for_too(self, bench: Bench) -> None:
        bench.warehouse().load(*bench.publish(many(3)))
        with held(bench, 60, read_only=True) as process, pytest.raises(WarehouseBusyError, match=str(process.pid)):
            bench.warehouse(lock_timeout=0.2).load(*bench.publish(ONE))

    def test_that_ends_in_time_lets_the_load_go_on(self, bench: Bench) -> None:
        bench.warehouse().load(*bench.publish(many(3)))
        extraction = bench.publish(ONE)
        with held(bench, 1):
            assert bench.warehouse(lock_timeout=60).load(*extraction).rows_total == 1

    def test_two_loads_at_once_both_arrive(self, bench: Bench) -> None:
        """In one process; Airflow's pool keeps the tasks apart, and the file's lock does where it does not."""
        extractions = [bench.publish(many(1000)) for _ in range(2)]
        results: list[LoadResult] = []
        errors: list[Exception] = []

        def load(number: int) -> None:
            try:
                results.append(bench.warehouse(lock_timeout=30).load(*extractions[number]))
            except LoadError as error:
                errors.append(error)

        threads = [threading.Thread(target=load, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) + len(errors) == 2
        assert len(logged(bench)) == len(results) >= 1
        assert bench.warehouse().count("raw.orders") == 1000

    def test_that_loads_too_is_waited_for(self, bench: Bench) -> None:
        raw = Raw(bench)
        raw.load(BIG.format(200_000))
        extractions = [raw.extract([(id_, "new")], at=9) for id_ in (1, 2)]
        code = f"{LOADING}\nprint('ready', flush=True)"
        processes = [python(code, str(bench.root), str(folder)) for _, folder in extractions]
        assert [process.wait() for process in processes] == [0, 0]
        assert bench.query("SELECT id FROM raw.orders WHERE a = 'new' ORDER BY id") == [(1,), (2,)]
        assert bench.warehouse().count("raw.orders") == 200_000
        assert len(logged(bench)) == 3


class TestAFullDisk:
    @pytest.mark.parametrize("mode", ["full-refresh", "incremental"])
    def test_is_told_and_changes_nothing(self, bench: Bench, small_disk: Path, mode: str) -> None:
        bench.database = small_disk / "warehouse.duckdb"
        raw = Raw(bench)
        raw.load(BIG.format(5000))
        before = fingerprint(bench)
        extraction = raw.extract(BIG.format(600_000), mode=mode)
        with pytest.raises(
            LoadError, match=r"raw\.orders: the load failed and was rolled back: the disk of .* is full"
        ):
            raw.take(extraction)
        assert fingerprint(bench) == before
        assert len(logged(bench)) == 1
        subprocess.run(["mount", "-o", "remount,size=500m", str(small_disk)], check=True)
        assert raw.take(extraction).rows_total == 600_000


class TestTimeLimit:
    def test_interrupts_and_rolls_back(self, bench: Bench) -> None:
        bench.warehouse().load(*bench.publish(many(3)))
        before = fingerprint(bench)
        extraction = bench.publish(BIG.format(1_500_000))
        with pytest.raises(LoadError, match=r"took longer than 0\.1 s and was rolled back; LOAD_TIMEOUT"):
            bench.warehouse(load_timeout=0.1).load(*extraction)
        assert fingerprint(bench) == before
        assert len(logged(bench)) == 1
        assert bench.warehouse().load(*extraction).rows_total == 1_500_000

    def test_is_kept_even_if_it_ends_between_two_statements(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replace = DuckDBWarehouse._change

        def slow(self: DuckDBWarehouse, *args: Any, **kwargs: Any) -> None:
            time.sleep(0.5)
            replace(self, *args, **kwargs)

        monkeypatch.setattr(DuckDBWarehouse, "_change", slow)
        with pytest.raises(LoadError, match="was rolled back; LOAD_TIMEOUT"):
            bench.warehouse(load_timeout=0.1).load(*bench.publish(BIG.format(1_500_000)))
        assert bench.warehouse().count("raw.orders") is None


LOADING = """
from pathlib import Path
from include.elt.lake import read_manifest
from include.elt.replication import Meta
from include.elt.warehouse.duckdb import DuckDBWarehouse
from include.elt.warehouse.duckdb.file import Memory
from tests.support.elt import Bench


def spied(name):
    step = getattr(DuckDBWarehouse, name)

    def wrapper(*args, **kwargs):
        print("before", name, flush=True)
        result = step(*args, **kwargs)
        print("after", name, flush=True)
        return result

    setattr(DuckDBWarehouse, name, wrapper)


spied("_change")
spied("_commit")
folder = Path(sys.argv[2])
Bench(Path(sys.argv[1])).warehouse(lock_timeout=60).load(read_manifest(folder), folder, Meta(deletes="hard"))
print("done", flush=True)
"""

MOMENTS = [
    ("before _change", 0.0),
    ("before _change", 0.1),
    ("before _change", 0.3),
    ("after _change", 0.0),
    ("before _commit", 0.0),
    ("before _commit", 0.02),
    ("after _commit", 0.0),
    ("done", 0.0),
]


class TestSigkill:
    @pytest.mark.parametrize("mode", ["full-refresh", "incremental"])
    def test_at_any_moment_leaves_the_old_table_or_the_new_one(self, bench: Bench, mode: str) -> None:
        raw = Raw(bench, policy=Meta(deletes="hard"))
        raw.load("SELECT 2 * range AS id, 'old' AS a FROM range(100_000)")
        old = fingerprint(bench)
        files = sorted(path.name for path in bench.root.iterdir())
        keys = [(number,) for number in range(0, 400_000, 100)] if mode == "incremental" else None
        manifest, folder = raw.extract(BIG.format(400_000), mode=mode, keys=keys)
        (folder / "manifest.json").write_text(json.dumps(asdict(manifest)))
        total = 4000 if keys else 400_000
        new = False
        for line, delay in MOMENTS:
            process = python(LOADING, str(bench.root), str(folder), until=line)
            time.sleep(delay)
            process.kill()
            process.wait()
            new = bench.warehouse().count("raw.orders") == total
            if new:
                break
            assert fingerprint(bench) == old
            assert [row[1] for row in logged(bench)] == [100_000]
        assert new
        assert raw.take((manifest, folder)).repeated
        assert bench.query("SELECT count(*), count(DISTINCT id), sum((a = 'old')::INT) FROM raw.orders") == [
            (total, total, 0)
        ]
        assert [row[1] for row in logged(bench)] == [100_000, 400_000]

        raw.load(many(7), mode="full-refresh")
        assert [row[1] for row in logged(bench)] == [100_000, 400_000, 7]
        assert bench.query("SELECT schema_name || '.' || table_name FROM duckdb_tables() ORDER BY ALL") == [
            ("ops.load_log",),
            ("raw.orders",),
        ]
        assert sorted(path.name for path in bench.root.iterdir()) == files

    @pytest.mark.parametrize("line", ["after _change", "before _commit", "after _commit"])
    def test_of_the_first_load_leaves_nothing_or_all_of_it(self, bench: Bench, line: str) -> None:
        manifest, folder = bench.publish(BIG.format(300_000))
        process = python(LOADING, str(bench.root), str(folder), until=line)
        process.kill()
        process.wait()
        found = bench.warehouse().count("raw.orders")
        assert found in (None, 300_000)
        assert bench.warehouse().load(manifest, folder).repeated == (found is not None)
        assert bench.query("SELECT count(*), count(DISTINCT id) FROM raw.orders") == [(300_000, 300_000)]
        assert [row[1] for row in logged(bench)] == [300_000]
