"""What an incremental, a split or a shaped read of PostgreSQL gives, against a real server."""

from __future__ import annotations

import csv
import hashlib
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.elt import early
from include.elt.errors import DataError, ExtractError
from include.elt.lake import Manifest
from include.elt.modes import Reading, Window
from include.elt.sources import blocks
from include.elt.sources.blocks import BLOCK, unwrap
from include.elt.sql import parquet

COLUMNS = {"id": "bigint", "upd": "timestamp_ntz", "a": "string"}
KEYS: dict[str, Any] = {"mode": "incremental", "update_key": "upd"}


def since(lower: str | None, upper: str | None = None, *, closed: bool = True) -> Reading:
    return Reading("incremental", Window("upd", lower, upper, closed))


def extract(
    bench: Any, reading: Reading, columns: Mapping[str, str] = COLUMNS, table: str | None = None, **keys: Any
) -> tuple[Manifest, Path]:
    manifest, folder = bench.source(columns, keys=KEYS | keys, table=table).run("manual__1", reading)
    assert folder is not None
    return manifest, Path(folder)


def ids(bench: Any, reading: Reading, **keys: Any) -> list[int]:
    return sorted(row[0] for row in bench.read(COLUMNS, reading, keys=KEYS | keys))


@pytest.fixture
def orders(bench: Any) -> Any:
    """Five orders of four days, and one without a day."""
    bench.server.execute(f"CREATE TABLE {bench.table} (id bigint PRIMARY KEY, upd timestamp, a text)")
    bench.server.execute(
        f"INSERT INTO {bench.table} SELECT g, timestamp '2026-01-01' + (g / 2) * interval '1 day', 'x'"
        " FROM generate_series(1, 5) g UNION ALL SELECT 6, NULL, 'never'"
    )
    return bench


class TestWindows:
    """Orders 1 | 2, 3 | 4, 5 have the days 1 | 2 | 3; order 6 has none, and is in every window."""

    def test_both_ends_are_in(self, orders: Any) -> None:
        manifest, _ = extract(orders, since("2026-01-02"))
        assert ids(orders, since("2026-01-02")) == [2, 3, 4, 5, 6]
        assert ids(orders, since("2026-01-02", "2026-01-02")) == [2, 3, 6]
        assert ids(orders, since("2026-01-01", "2026-01-02", closed=False)) == [1, 6]
        assert manifest.window == {
            "column": "upd",
            "lower": "2026-01-02",
            "upper": "2026-01-03 00:00:00",
            "closed": True,
        }
        assert manifest.mode == "incremental"

    def test_without_a_lower_limit_everything_up_to_now_is_read(self, orders: Any) -> None:
        assert ids(orders, since(None)) == [1, 2, 3, 4, 5, 6]

    def test_what_comes_after_the_start_waits_for_the_next_run(self, orders: Any) -> None:
        """Parts are read at different moments; a later one must not push the watermark beyond what an earlier saw."""
        table, execute = orders.table, orders.server.execute
        source = orders.source(COLUMNS, keys=KEYS)
        reading = source.source._read

        def late(*args: Any) -> Any:
            execute(f"INSERT INTO {table} VALUES (7, '2026-02-01', 'late')")
            execute(f"UPDATE {table} SET upd = '2026-02-01' WHERE id = 1")
            return reading(*args)

        source.source._read = late
        manifest, _ = source.run("manual__1", since(None))
        assert manifest.window is not None
        assert (manifest.window["upper"], manifest.rows) == ("2026-01-03 00:00:00", 5)
        assert ids(orders, since(manifest.window["upper"])) == [1, 4, 5, 6, 7]

    def test_a_source_without_any_update_key_gives_its_rows(self, orders: Any) -> None:
        orders.server.execute(f"UPDATE {orders.table} SET upd = NULL")
        manifest, _ = extract(orders, since("2026-01-02"))
        assert (manifest.rows, manifest.window and manifest.window["upper"]) == (6, None)

    def test_an_empty_window_is_a_good_extraction(self, orders: Any) -> None:
        orders.server.execute(f"DELETE FROM {orders.table} WHERE upd IS NULL")
        manifest, _ = extract(orders, since("2030-01-01"))
        assert manifest.rows == 0

    def test_a_where_is_kept(self, orders: Any) -> None:
        assert ids(orders, since("2026-01-02"), where="id = 3 OR id = 5 OR id = 1") == [3, 5]

    def test_of_duplicates_the_latest_wins_and_the_others_are_counted(self, bench: Any) -> None:
        bench.server.execute(f"CREATE TABLE {bench.table} (id bigint, upd timestamp, a text)")
        bench.server.execute(
            f"INSERT INTO {bench.table} VALUES (1, '2026-01-02', 'old'), (1, '2026-01-03', 'new'), (1, NULL, 'z'),"
            " (2, '2026-01-01', 'b'), (2, '2026-01-01', 'c'), (2, '2026-01-01', 'a')"
        )
        manifest, _ = extract(bench, since(None))
        assert sorted((row[0], row[2]) for row in bench.read(COLUMNS, since(None), keys=KEYS)) == [(1, "new"), (2, "c")]
        assert (manifest.rows_read, manifest.rows, manifest.rows_duplicate) == (6, 2, 4)


class TestQueries:
    def test_a_query_is_read_like_a_table(self, orders: Any) -> None:
        sql = f"SELECT id, upd, a || '!' AS a FROM {orders.table} WHERE id < 5;"
        rows = orders.read(COLUMNS, since("2026-01-02"), keys=KEYS | {"sql": sql}, table="some_orders")
        assert sorted((row[0], row[2]) for row in rows) == [(2, "x!"), (3, "x!"), (4, "x!")]

    def test_slings_placeholders_are_filled(self, orders: Any) -> None:
        sql = (
            f"SELECT id, upd, coalesce({{incremental_value}}, 'all') AS a FROM {orders.table}"
            " WHERE {incremental_where_cond} AND id <> 3"
        )
        keys = KEYS | {"sql": sql}
        rows = orders.read(COLUMNS, since("2026-01-02"), keys=keys, table="some_orders")
        assert sorted((row[0], row[2]) for row in rows) == [(each, "2026-01-02") for each in (2, 4, 5, 6)]
        everything = orders.read(COLUMNS, since(None), keys=keys, table="some_orders")
        assert {row[2] for row in everything} == {"all"}


class TestParts:
    """`meta.parallel`: parts neither overlap nor leave a gap."""

    @pytest.mark.parametrize(
        "keys",
        [
            "g::bigint - 500",
            "CASE WHEN g % 10 = 0 THEN g ELSE 7 END::bigint",
            "7::bigint",
            "CASE WHEN g % 3 = 0 THEN NULL ELSE g END::bigint",
            "(g * 1e15 * (-1) ^ g)::bigint",
        ],
        ids=["negative", "skewed", "all the same", "null", "far apart"],
    )
    def test_numbers(self, bench: Any, keys: str) -> None:
        self._check(bench, keys, "bigint")

    @pytest.mark.parametrize(
        ("keys", "data_type"),
        [
            ("chr(32 + g % 90) || g", "string"),
            ("(CASE WHEN g % 2 = 0 THEN 'É''\"\\' ELSE 'e' END || g)", "string"),
            ("md5(g::text)::uuid", "string"),
            ("date '2026-01-01' + g", "date"),
            ("(g / 7.0)::numeric", "string"),
        ],
        ids=["text", "awkward text", "uuid", "date", "numeric"],
    )
    def test_other_keys(self, bench: Any, keys: str, data_type: str) -> None:
        self._check(bench, keys, data_type)

    def _check(self, bench: Any, keys: str, data_type: str) -> None:
        bench.server.execute(
            f"CREATE TABLE {bench.table} AS SELECT {keys} AS k, g::bigint AS id FROM generate_series(1, 3000) g"
        )
        bench.server.execute(f"ANALYZE {bench.table}")
        source = bench.source(
            {"k": data_type, "id": "bigint"}, keys={"primary_key": ["k", "id"], "meta": {"parallel": 4}}
        )
        work = bench.root / "work"
        work.mkdir()
        delivery = source.source.deliver(work, "<null>", Reading())
        rows = _text_of(delivery.text)
        assert sorted(int(row[1]) for row in rows) == list(range(1, 3001))
        assert delivery.rows == 3000

    def test_a_table_that_grows_meanwhile(self, bench: Any) -> None:
        bench.server.execute(
            f"CREATE TABLE {bench.table} AS SELECT g::bigint AS id, now()::timestamp AS upd, 'x' AS a"
            " FROM generate_series(1, 40000) g"
        )
        ended = threading.Event()

        def grow() -> None:
            with psycopg.connect(**bench.server.arguments, autocommit=True) as connection:
                for number in range(1, 100_000):
                    connection.execute(
                        f"INSERT INTO {bench.table} VALUES ({random.choice((-1, 1)) * (50_000 + number)},"
                        " clock_timestamp(), 'y')".encode()
                    )
                    if ended.is_set():
                        return

        writer = threading.Thread(target=grow)
        writer.start()
        try:
            rows = bench.read(COLUMNS, since(None), keys=KEYS | {"meta": {"parallel": 4}})
        finally:
            ended.set()
            writer.join()
        assert {row[0] for row in rows} >= set(range(1, 40_001))
        assert len({row[0] for row in rows}) == len(rows)

    def test_parts_are_read_at_the_same_time(self, free: Any, caplog: pytest.LogCaptureFixture) -> None:
        free.server.execute(
            f"CREATE TABLE {free.table} AS SELECT g::bigint AS id, 'x' AS a FROM generate_series(1, 40000) g"
        )
        free.server.execute(f"ANALYZE {free.table}")
        with caplog.at_level("INFO"):
            rows = free.read({"id": "bigint", "a": "string"}, keys={"meta": {"parallel": 3}})
        assert len(rows) == 40_000
        assert caplog.text.count(f"{free.table} in blocks of") == 3

    def test_a_full_refresh_before_a_watermark_is_one_statement(
        self, free: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A row that changes between two parts would be missed, and the watermark would be beyond it."""
        free.server.execute(
            f"CREATE TABLE {free.table} AS SELECT g::bigint AS id, timestamp '2026-01-01' AS upd, 'x' AS a"
            " FROM generate_series(1, 1000) g"
        )
        with caplog.at_level("INFO"):
            assert len(free.read(COLUMNS, Reading("full-refresh"), keys=KEYS | {"meta": {"parallel": 3}})) == 1000
        assert caplog.text.count(f"{free.table} in blocks of") == 1

    def test_one_part_that_fails_ends_the_others(self, free: Any) -> None:
        free.server.execute(
            f"CREATE VIEW {free.table} AS SELECT g::bigint AS id, CASE WHEN g = 1 THEN (1 / (g - 1))::text"
            " ELSE pg_sleep(0.01)::text END AS a FROM generate_series(1, 100000) g"
        )
        started = time.monotonic()
        source = free.source({"id": "bigint", "a": "string"}, keys={"meta": {"parallel": 2}}).source
        source.dialect.bounds = lambda *_: ["50000"]  # the cuts themselves would not survive this view
        work = free.root / "work"
        work.mkdir()
        with pytest.raises(ExtractError, match="division by zero"):
            source.deliver(work, "<null>", Reading())
        assert time.monotonic() - started < 30


class TestSchemaChange:
    COLUMNS = {"id": "bigint", "a": "string"}  # noqa: RUF012

    def read(self, bench: Any, policy: str, reading: Reading | None = None, **keys: Any) -> tuple[Manifest, list[Any]]:
        source = bench.source(self.COLUMNS, keys={"meta": {"on_schema_change": policy}, **keys})
        manifest, folder = source.run("manual__1", reading or Reading())
        return manifest, sorted(_rows(folder))

    def test_an_added_column(self, free: Any) -> None:
        free.server.execute(f"CREATE TABLE {free.table} AS SELECT 1::bigint AS id, 'x' AS a, 2.50::numeric(10,2) AS b")
        with pytest.raises(DataError, match=r"the source has b \(numeric\(10,2\)\), which the contract raw\.orders"):
            self.read(free, "fail")
        assert self.read(free, "ignore")[1] == [(1, "x")]
        manifest, rows = self.read(free, "add")
        assert manifest.columns[-1] == ("b", "decimal(10,2)")
        assert [tuple(map(str, row)) for row in rows] == [("1", "x", "2.50")]
        assert manifest.source_columns == (("id", "int8"), ("a", "text"), ("b", "numeric(10,2)"))

    def test_a_dropped_column(self, bench: Any) -> None:
        bench.server.execute(f"CREATE TABLE {bench.table} AS SELECT 1::bigint AS id, now()::timestamp AS upd")
        for policy in ("fail", "add"):
            with pytest.raises(DataError, match="no column a; the contract"):
                self.read(bench, policy)
        columns = {"id": "bigint", "upd": "timestamp_ntz", "a": "string"}
        given = KEYS | {"meta": {"on_schema_change": "ignore"}}
        manifest, folder = bench.source(columns, keys=given).run("manual__1", Reading())
        assert [row[2] for row in _rows(folder)] == [None]
        manifest, _ = bench.source(columns, keys=given).run("manual__1", since(None))
        assert [name for name, _ in manifest.columns] == ["id", "upd"], "a merge keeps what the raw table holds"

    def test_a_renamed_column_is_told_as_such(self, free: Any) -> None:
        free.server.execute(f"CREATE TABLE {free.table} AS SELECT 1::bigint AS id, 'x' AS a_new")
        with pytest.raises(DataError, match=r"no column a; .* Was it renamed to a_new\?"):
            self.read(free, "fail")

    def test_a_key_is_never_ignored(self, free: Any) -> None:
        free.server.execute(f"CREATE TABLE {free.table} AS SELECT 'x' AS a")
        with pytest.raises(DataError, match="no column id"):
            self.read(free, "ignore")

    def test_types_that_change_matter_only_where_a_value_does_not_fit(self, free: Any) -> None:
        free.server.execute(f"CREATE TABLE {free.table} AS SELECT 1::smallint AS id, 12345::numeric AS a")
        assert self.read(free, "fail")[1] == [(1, "12345")]
        free.server.execute(f"ALTER TABLE {free.table} ALTER id TYPE numeric")
        assert self.read(free, "fail")[1] == [(1, "12345")]
        free.server.execute(f"UPDATE {free.table} SET id = 1.5")
        with pytest.raises(DataError, match=r"column id: '1\.5' is not a bigint"):
            self.read(free, "fail")

    def test_names_in_capitals_are_the_same_names(self, free: Any) -> None:
        free.server.execute(f'CREATE TABLE {free.table} AS SELECT 1::bigint AS "Id", \'x\' AS "A"')
        assert self.read(free, "fail")[1] == [(1, "x")]
        free.server.execute(f'ALTER TABLE {free.table} ADD "a" text')
        with pytest.raises(DataError, match="the column a is there twice"):
            self.read(free, "fail")


class TestKeysAndCounts:
    def test_the_keys_of_all_rows_are_read_after_the_rows(self, orders: Any) -> None:
        manifest, folder = extract(orders, since("2026-01-03"), meta={"deletes": "hard"}, where="id <> 2")
        assert manifest.keys is not None
        assert (manifest.rows, manifest.keys.rows) == (3, 5)
        assert sorted(_rows(folder, "keys.parquet")) == [(1,), (3,), (4,), (5,), (6,)]

    def test_a_backfill_does_not_compare_keys(self, orders: Any) -> None:
        manifest, _ = extract(orders, Reading("backfill", Window("upd", "2026-01-01", "2026-01-02")))
        assert manifest.keys is None

    def test_the_source_is_counted_up_to_the_end_of_the_window(self, orders: Any) -> None:
        manifest, _ = extract(orders, since("2026-01-03"), meta={"reconcile": "exact"}, where="id <> 2")
        assert manifest.source_rows == 5
        backfill = Reading("backfill", Window("upd", "2026-01-01", "2026-01-02"))
        assert extract(orders, backfill, meta={"reconcile": "exact"})[0].source_rows is None
        assert extract(orders, Reading(), meta={"reconcile": 5})[0].source_rows == 6
        assert extract(orders, Reading())[0].source_rows is None


class TestPieces:
    """Large text is cast piece by piece while the rest is read; the result is the same as in one piece."""

    COLUMNS = {"id": "bigint", "upd": "timestamp_ntz", "a": "string"}  # noqa: RUF012
    ROWS = 30_000

    @pytest.fixture
    def orders(self, free: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A table of about eight pieces."""
        monkeypatch.setattr(blocks, "_SMALLEST", 100_000)
        monkeypatch.setattr(blocks, "_LARGEST", 100_000)
        monkeypatch.setattr(blocks, "ROW_GROUP", 2000)
        free.server.execute(
            f"CREATE TABLE {free.table} AS SELECT g::bigint AS id, timestamp '2026-01-01' + g * interval '1 s' AS upd,"
            f" 'order \"' || g || E'\"\\x01\\n' AS a FROM generate_series(1, {self.ROWS}) g"
        )
        free.server.execute(f"ANALYZE {free.table}")
        return free

    @pytest.mark.parametrize("parallel", [1, 3])
    def test_each_becomes_a_file(self, orders: Any, parallel: int) -> None:
        manifest, folder = extract(orders, since(None), self.COLUMNS, meta={"parallel": parallel})
        assert len(manifest.files) > 5
        assert [file.name for file in manifest.files] == [f"part-{n:05d}.parquet" for n in range(len(manifest.files))]
        assert [file.rows % 2000 for file in manifest.files if file.rows % 2000] == [] or parallel == 3
        assert all(file.rows for file in manifest.files)
        rows = _rows(folder, "*.parquet")
        assert len(rows) == manifest.rows == manifest.rows_read == self.ROWS
        assert sorted(rows) == orders.server.execute(f"SELECT id, upd, a FROM {orders.table} ORDER BY id")

    def test_no_text_is_read_twice(self, orders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        strictly, cast = early.cast_strictly, []
        monkeypatch.setattr(early, "cast_strictly", lambda *args: cast.append(args[3]) or strictly(*args))
        monkeypatch.setattr("include.elt.cast.cast_strictly", None)
        extract(orders, Reading(), self.COLUMNS, mode="full-refresh", update_key=None)
        assert sum(cast) == self.ROWS

    def test_a_row_that_does_not_fit_is_named_and_nothing_is_left(self, orders: Any) -> None:
        orders.server.execute(f"UPDATE {orders.table} SET upd = 'infinity' WHERE id = 20000")
        with pytest.raises(DataError, match=r"1 row does not fit the contract\n.*column upd: 'infinity' is not a"):
            extract(orders, Reading(), self.COLUMNS, mode="full-refresh", update_key=None)
        assert not list(orders.lake.root.rglob("*.parquet"))

    def test_bad_rows_of_any_piece_are_set_aside(self, orders: Any) -> None:
        orders.server.execute(f"UPDATE {orders.table} SET upd = 'infinity' WHERE id % 10000 = 0")
        manifest, folder = extract(
            orders, Reading(), self.COLUMNS, mode="full-refresh", update_key=None, meta={"on_bad_row": "reject"}
        )
        assert (manifest.rows, manifest.rows_rejected, len(manifest.files)) == (self.ROWS - 3, 3, 1)
        assert len((folder / "rejects.jsonl").read_text().splitlines()) == 3

    def test_a_key_that_two_pieces_have(self, orders: Any) -> None:
        orders.server.execute(f"INSERT INTO {orders.table} SELECT 1, timestamp '2027-01-01', 'newer'")
        with pytest.raises(DataError, match="a primary key, and row 1 has the same one"):
            extract(orders, Reading(), self.COLUMNS, mode="full-refresh", update_key=None)
        manifest, folder = extract(orders, since(None), self.COLUMNS)
        assert (manifest.rows, manifest.rows_duplicate) == (self.ROWS, 1)
        assert [row[2] for row in _rows(folder, "part-*.parquet") if row[0] == 1] == ["newer"]

    def test_of_a_part_that_starts_again_only_the_last_text_counts(self, orders: Any) -> None:
        """Rows are too wide in the middle of a part: it is read again in another way, and its first pieces are void."""
        source = orders.source(self.COLUMNS, keys={"mode": "full-refresh", "primary_key": ["id"]})
        reading, calls = source.source._read_blocks, []

        def too_wide(*args: Any) -> Any:
            text = reading(*args)
            calls.append(text)
            if len(calls) == 1:
                raise ExtractError("a block is larger than we like")
            return text

        source.source._read_blocks = too_wide
        manifest, folder = source.run("manual__1")
        assert len(calls) == 2
        assert len(_rows(Path(folder), "*.parquet")) == manifest.rows == self.ROWS

    def test_a_source_that_fails_in_the_middle_ends_the_cast(self, orders: Any) -> None:
        source = orders.source(self.COLUMNS, keys={"mode": "full-refresh", "primary_key": ["id"]})
        run_sling = source.source._run_sling

        def failing(*args: Any) -> None:
            run_sling(*args)
            raise ExtractError("the line is dead")

        source.source._run_sling = failing
        before = set(threading.enumerate())
        with pytest.raises(ExtractError, match="the line is dead"):
            source.run("manual__1")
        assert not orders.work_folders()
        assert set(threading.enumerate()) <= before


class TestProof:
    """A block that is lost, doubled or changed on its way is found."""

    HEAD = "number,blocks,rows,longest,digest,block\n"

    @pytest.fixture
    def lines(self) -> list[str]:
        return [
            f'{number},2,1,{len(text)},{hashlib.sha256(text.encode()).hexdigest()},"{text}"\n'
            for number, text in enumerate(("1,1", "2,1"))
        ]

    def unwrap(self, tmp_path: Path, *lines: str) -> str:
        blocks = tmp_path / "blocks.csv"
        blocks.write_text(self.HEAD + "".join(lines))
        [piece] = unwrap(blocks, tmp_path, ("id",), "web.users")
        assert (piece.rows, piece.longest) == (2, 3)
        return piece.file.read_text()

    def test_in_any_order(self, tmp_path: Path, lines: list[str]) -> None:
        assert self.unwrap(tmp_path, *lines) == "id,#end\n1,1\n2,1\n"
        assert self.unwrap(tmp_path, *lines[::-1]) == "id,#end\n2,1\n1,1\n"

    def test_found(self, tmp_path: Path, lines: list[str]) -> None:
        first, second = lines
        for sent, message in (
            ([first], "1 blocks of 2"),
            ([], "0 blocks of at least 1"),
            ([first, second, second], "block 1 twice"),
            ([first, second.replace('"2,1"', '"3,1"')], "block 1 of 2 is not what the server sent"),
        ):
            with pytest.raises(ExtractError, match=f"web.users: .*{message}.*; nothing was loaded"):
                self.unwrap(tmp_path, *sent)

    @pytest.mark.parametrize(
        "text", ['say "yes"', '"', '""', "no" * 500 + '"' + "quotes" * 500, '{"many": "of", "them": ""}']
    )
    def test_quotes_stay(self, tmp_path: Path, text: str) -> None:
        """Few or many, they are no longer doubled: that is what the digest is of."""
        lines = "\n".join(f"{number},\x01{text}\x01,1" for number in range(3))
        digest = hashlib.sha256(lines.encode()).hexdigest()
        blocks = tmp_path / "blocks.csv"
        with blocks.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([BLOCK, (0, 1, 3, len(text) + 6, digest, lines)])
        [piece] = unwrap(blocks, tmp_path, ("id", "a"), "web.users", quote="\x01")
        assert piece.file.read_text() == f"id,a,#end\n{lines}\n"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), max_size=20))
def test_any_text_arrives_in_blocks(free: Any, texts: list[str]) -> None:
    free.server.execute(f"DROP TABLE IF EXISTS {free.table}")
    free.server.execute(f"CREATE TABLE {free.table} (id bigint, a text)")
    with psycopg.connect(**free.server.arguments, autocommit=True) as connection:
        connection.cursor().executemany(f"INSERT INTO {free.table} VALUES (%s, %s)".encode(), list(enumerate(texts)))
    assert sorted(free.read({"id": "bigint", "a": "string"})) == list(enumerate(texts))


def _rows(folder: str | Path | None, file: str = "part-00000.parquet") -> list[tuple[Any, ...]]:
    assert folder is not None
    with duckdb.connect() as sql:
        return sql.execute(f"SELECT * FROM {parquet(sorted(Path(folder).glob(file)))}").fetchall()


def _text_of(text: Any) -> list[tuple[Any, ...]]:
    with duckdb.connect() as sql:
        return sql.execute(text.select(["k", "id"])).fetchall()
