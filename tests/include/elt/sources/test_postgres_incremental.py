"""A stream from PostgreSQL into DuckDB, run after run: equal to its source, whatever happens in between."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.elt.early import EarlyCast, later
from include.elt.errors import EltError, ExtractError, RefusedLoadError, WarehouseBusyError
from include.elt.extract import Extraction
from include.elt.lake.local import LocalLake
from include.elt.modes import Reading, Span, Window
from tests.support.elt import Row
from tests.support.processes import held

COLUMNS = {"id": "bigint", "upd": "timestamp_ntz", "a": "string", "amount": "decimal(12,2)"}
KEYS: dict[str, Any] = {"mode": "incremental", "update_key": "upd"}
NAMES = ", ".join(COLUMNS)


def of_source(bench: Any) -> list[Row]:
    return sorted(bench.server.execute(f"SELECT {NAMES} FROM {bench.table}"))


def of_warehouse(bench: Any, where: str = "TRUE") -> list[Row]:
    return sorted(bench.query(f"SELECT {NAMES} FROM raw.orders WHERE {where}"))


def create(bench: Any, rows: int = 1000) -> None:
    bench.server.execute(
        f"CREATE TABLE {bench.table} (id bigint PRIMARY KEY, upd timestamp, a text, amount numeric(12,2))"
    )
    bench.server.execute(
        f"INSERT INTO {bench.table} SELECT g, timestamp '2026-01-01' + (g / 10) * interval '1 minute',"
        f" 'order \"' || g || '\"', g / 3.0 FROM generate_series(1, {rows}) g"
    )
    bench.server.execute(f"ANALYZE {bench.table}")


class TestThreeRuns:
    def live(self, bench: Any) -> None:
        """An hour in the life of a table: equal, late and NULL update keys, new rows, updates, deletes."""
        latest = f"(SELECT max(upd) FROM {bench.table})"
        for sql in (
            f"UPDATE {bench.table} SET a = a || '+', upd = {latest} + interval '1 minute' WHERE id % 97 = 0",
            f"INSERT INTO {bench.table} SELECT max(id) + 1, {latest}, 'equal', 1 FROM {bench.table}",
            f"INSERT INTO {bench.table} SELECT max(id) + 1, {latest} - interval '50 min', 'late', 2 FROM {bench.table}",
            f"INSERT INTO {bench.table} SELECT max(id) + 1, NULL, 'never', 3 FROM {bench.table}",
            f"UPDATE {bench.table} SET amount = amount + 1 WHERE upd IS NULL",
            f"DELETE FROM {bench.table} WHERE id % 89 = 7 OR a = 'never' AND random() < 0.3",
        ):
            bench.server.execute(sql)

    def test_hard(self, free: Any) -> None:
        create(free)
        keys = KEYS | {"meta": {"lookback": "1 hour", "deletes": "hard", "reconcile": "exact", "parallel": 2}}
        first = free.pipeline(COLUMNS, keys)
        assert (first.rows_inserted, first.rows_total) == (1000, 1000)
        self.live(free)
        free.server.execute(f"ALTER TABLE {free.table} RENAME TO away")
        with pytest.raises(EltError, match="does not exist"):
            free.pipeline(COLUMNS, keys)
        free.server.execute(f"ALTER TABLE {free.schema}.away RENAME TO orders")
        self.live(free)
        second = free.pipeline(COLUMNS, keys)
        assert of_warehouse(free) == of_source(free)
        assert second.rows_read < 900
        assert second.rows_deleted > 0
        assert second.rows_total == second.source_rows
        self.live(free)
        free.pipeline(COLUMNS, keys)
        assert of_warehouse(free) == of_source(free)
        again = free.pipeline(COLUMNS, keys)
        assert (again.rows_inserted, again.rows_updated, again.rows_deleted) == (0, 0, 0)
        log = free.query("SELECT rows_read, source_rows, window_upper IS NOT NULL FROM ops.load_log ORDER BY loaded_at")
        assert len(log) == 4
        assert all(closed for _, _, closed in log)

    def test_soft(self, free: Any) -> None:
        create(free)
        keys = KEYS | {"meta": {"lookback": "1 hour", "deletes": "soft"}}
        free.pipeline(COLUMNS, keys, added=("_deleted_at",))
        self.live(free)
        free.pipeline(COLUMNS, keys, added=("_deleted_at",))
        assert of_warehouse(free, "_deleted_at IS NULL") == of_source(free)
        [(gone,)] = free.query("SELECT count(*) FROM raw.orders WHERE _deleted_at IS NOT NULL")
        assert gone > 5

    def test_an_added_column(self, free: Any) -> None:
        create(free, 100)
        keys = KEYS | {"meta": {"lookback": "1 hour", "on_schema_change": "add"}}
        free.pipeline(COLUMNS, keys)
        free.server.execute(f"ALTER TABLE {free.table} ADD extra integer DEFAULT 7")
        free.server.execute(f"UPDATE {free.table} SET extra = 8, upd = upd + interval '1 day' WHERE id = 50")
        free.pipeline(COLUMNS, keys)
        assert free.query("SELECT extra FROM raw.orders WHERE id = 50") == [(8,)]
        free.pipeline(COLUMNS, keys, span=Span(full_refresh=True))
        names = f"{NAMES}, extra"
        expected = sorted(free.server.execute(f"SELECT {names} FROM {free.table}"))
        assert sorted(free.query(f"SELECT {names} FROM raw.orders")) == expected

    def test_a_late_row_beyond_the_lookback_is_found_by_reconciliation(self, free: Any) -> None:
        create(free, 100)
        keys = KEYS | {"meta": {"reconcile": "exact"}}
        free.pipeline(COLUMNS, keys)
        free.server.execute(f"INSERT INTO {free.table} VALUES (1000, '2025-01-01', 'late', 1)")
        with pytest.raises(RefusedLoadError, match="101"):
            free.pipeline(COLUMNS, keys)
        free.pipeline(COLUMNS, keys, span=Span(range=("2025-01-01", "2025-01-01")))
        assert of_warehouse(free) == of_source(free)


@pytest.mark.timeout(240)
def test_killed_at_ten_moments_with_four_parts(free: Any) -> None:
    """SIGKILL of the whole run, with Sling: nothing half is seen, and the next run is right."""
    create(free, 60_000)
    keys = KEYS | {"meta": {"lookback": "30 days", "deletes": "hard", "parallel": 4}}
    started = time.monotonic()
    subprocess.run(**free.in_a_process(COLUMNS, keys), check=True, timeout=120)
    usual = time.monotonic() - started
    clock = random.Random(3)
    killed = 0
    for number in range(10):
        free.server.execute(
            f"UPDATE {free.table} SET a = 'round {number}', upd = upd + interval '1 hour' WHERE id % 10 = {number}"
        )
        free.server.execute(f"DELETE FROM {free.table} WHERE id % 1000 = {number}")
        process = subprocess.Popen(**free.in_a_process(COLUMNS, keys))
        try:
            process.wait(clock.uniform(0.3, 1) * usual)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.wait(30)
        rows = of_warehouse(free) if free.database.exists() and free.query("FROM duckdb_tables()") else []
        assert len({row[0] for row in rows}) == len(rows)
    assert killed > 3, "the moments are too late for this computer"
    free.pipeline(COLUMNS, keys)
    assert of_warehouse(free) == of_source(free)
    assert not free.work_folders()


@pytest.mark.timeout(240)
def test_a_server_that_restarts_in_the_middle(free: Any) -> None:
    create(free, 100_000)
    keys = KEYS | {"meta": {"parallel": 2}}
    table = free.table
    free.table = f"{free.schema}.slow"  # 5 s of it, so that the restart comes in the middle on any computer
    free.server.execute(
        f"CREATE VIEW {free.table} AS SELECT id, upd, a || CASE WHEN id % 1000 = 0 THEN pg_sleep(0.1)::text ELSE '' END"
        f" AS a, amount FROM {table}"
    )
    running = free.source(COLUMNS, keys=keys)

    def restart(ended: threading.Event) -> None:
        busy = (
            "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%string_agg%'"
            " AND pid <> pg_backend_pid() AND now() - query_start > interval '1 second'"  # not the first look at it
        )
        with psycopg.connect(**free.server.arguments, autocommit=True) as connection:
            while not connection.execute(busy.encode()).fetchone():
                if ended.wait(0.01):
                    return
        free.server.control("-m", "fast", "restart")

    def interrupted(number: int) -> ExtractError | None:
        """Run while the server restarts; the error, or None where the extraction did not mind and is whole.

        Sling's driver asks again by itself if no row has come yet.
        """
        ended = threading.Event()
        restarter = threading.Thread(target=restart, args=(ended,))
        restarter.start()
        before = set(free.lake.root.rglob("*.parquet"))
        try:
            manifest, _ = running.run(f"manual__{number}")
        except ExtractError as error:
            assert set(free.lake.root.rglob("*.parquet")) == before
            return error
        finally:
            ended.set()
            restarter.join()
        assert manifest.rows == 100_000
        return None

    errors = (interrupted(number) for number in range(3))
    error = next((each for each in errors if each is not None), None)
    assert error is not None, "no restart came in the middle"
    assert not error.final, "Airflow tries again"
    free.table = table
    free.pipeline(COLUMNS, keys)
    assert of_warehouse(free) == of_source(free)


def test_a_source_that_stands_still_is_given_up_in_time(free: Any) -> None:
    create(free, 50_000)
    free.server.execute(
        f"CREATE VIEW {free.schema}.slow AS SELECT id, upd, a || pg_sleep(0.05)::text AS a, amount FROM {free.table}"
    )
    free.table = f"{free.schema}.slow"
    started = time.monotonic()
    with pytest.raises(ExtractError, match=r"took longer than 5 s|statement timeout") as caught:
        free.pipeline(COLUMNS, {"mode": "full-refresh"}, extract_timeout=5)
    assert time.monotonic() - started < 40
    assert not caught.value.final
    assert not free.work_folders()


def test_a_stopped_server_is_given_up_in_time(free: Any) -> None:
    """SIGSTOP: the server's sockets are open, and nobody answers."""
    create(free, 1000)
    running = free.source(COLUMNS, keys=KEYS, settings={"extract_timeout": 5})
    run_sling = running.source._run_sling
    main = int((free.server.data / "postmaster.pid").read_text().split()[0])

    def stopped(*args: Any) -> None:
        os.kill(main, signal.SIGSTOP)
        run_sling(*args)

    running.source._run_sling = stopped
    started = time.monotonic()
    try:
        with pytest.raises(ExtractError, match="took longer than 5 s and was killed"):
            running.run("manual__1")
    finally:
        os.kill(main, signal.SIGCONT)
    assert time.monotonic() - started < 40
    free.pipeline(COLUMNS, KEYS)
    assert of_warehouse(free) == of_source(free)


def test_two_runs_at_the_same_time(free: Any) -> None:
    create(free, 20_000)
    keys = KEYS | {"meta": {"lookback": "30 days"}}
    free.pipeline(COLUMNS, keys)
    free.server.execute(f"UPDATE {free.table} SET a = 'changed', upd = upd + interval '1 hour' WHERE id % 3 = 0")
    processes = [
        subprocess.Popen(**free.in_a_process(COLUMNS, keys), stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert 0 in codes
    for code, error in zip(codes, errors, strict=True):
        assert code == 0 or "a newer extraction was loaded" in error, error
    assert of_warehouse(free) == of_source(free)


def test_a_warehouse_that_another_holds(free: Any) -> None:
    create(free, 100)
    free.pipeline(COLUMNS, KEYS)
    free.server.execute(f"UPDATE {free.table} SET a = 'changed', upd = upd + interval '1 day' WHERE id = 3")
    warehouse = free.warehouse
    free.warehouse = lambda lock_timeout=0: warehouse(lock_timeout=1)
    with held(free, 60) as process:
        with pytest.raises(WarehouseBusyError, match=f"held by process {process.pid}") as caught:
            free.pipeline(COLUMNS, KEYS)
        assert not caught.value.final
    del free.warehouse
    free.pipeline(COLUMNS, KEYS)
    assert of_warehouse(free) == of_source(free)


@pytest.mark.parametrize("rows", [10_000, 118_000, 250_000], ids=["Parquet", "unwrapped", "Sling"])
def test_a_full_lake(free: Any, small_disk: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full while Sling writes, while its blocks are unwrapped, or when they are cast."""
    create(free, rows)
    free.lake = LocalLake(small_disk / "lake")
    if rows == 10_000:
        cast = Extraction._cast

        def filled(*args: Any, **keys: Any) -> Any:
            with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
                while filler.write(bytes(4096)):
                    pass
            return cast(*args, **keys)

        monkeypatch.setattr(EarlyCast, "take", staticmethod(later))
        monkeypatch.setattr(Extraction, "_cast", filled)
    with pytest.raises(ExtractError, match=r"[nN]o space left|disk of .* is full") as caught:
        free.pipeline(COLUMNS, {"mode": "full-refresh"})
    assert not caught.value.final
    assert not free.work_folders()
    assert not list(small_disk.rglob("*.parquet"))
    subprocess.run(["mount", "-o", "remount,size=500m", str(small_disk)], check=True)
    monkeypatch.undo()
    free.pipeline(COLUMNS, {"mode": "full-refresh"})
    assert of_warehouse(free) == of_source(free)


def test_of_two_extractions_that_overlap_the_later_one_counts(free: Any) -> None:
    """One that began earlier may end later, and hold older rows."""
    create(free, 100)
    keys = KEYS | {"meta": {"lookback": "1 day"}}
    free.pipeline(COLUMNS, keys)
    early = free.source(COLUMNS, keys=keys)
    deliver = early.source.deliver

    def slow(*args: Any) -> Any:
        delivered = deliver(*args)
        free.server.execute(f"UPDATE {free.table} SET a = 'new', upd = upd + interval '1 day' WHERE id = 7")
        free.pipeline(COLUMNS, keys)
        return delivered

    early.source.deliver = slow
    manifest, location = early.run("manual__2", Reading("incremental", Window("upd", None)))
    assert location is not None
    with pytest.raises(RefusedLoadError, match="a newer extraction was loaded"):
        free.warehouse().load(manifest, Path(location), early.stream.meta)
    assert of_warehouse(free) == of_source(free)
