"""A load that is killed: readers see the old table or the new one, the next try is right, nothing is left over."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from include.elt.errors import RefusedLoadError
from include.elt.paths import ROOT
from include.elt.replication import Meta
from tests.support.databricks_standin.bench import DatabricksBench
from tests.support.databricks_standin.running import StandIn
from tests.support.loads import Raw, changes

pytestmark = pytest.mark.databricks_standin

SWAP = r"^CREATE (OR REPLACE )?TABLE `main`\.`raw`"
MERGE = r"^MERGE INTO `main`\.`raw`"
REPLACE = r"^INSERT INTO `main`\.`raw`\.`orders` REPLACE WHERE"
LOG = r"^INSERT INTO `main`\.`ops`\.`load_log`"


@pytest.fixture
def raw(workspace: Any, tmp_path: Path) -> Raw:
    return Raw(DatabricksBench(tmp_path, workspace))


@contextmanager
def killed_at(statement: str, raw: Raw, extraction: tuple[Any, Path], then: str) -> Iterator[None]:
    """Kill a load while the warehouse holds its statement; within the block the statement is still held.

    Args:
        statement: pattern of the statement.
        raw: the table.
        extraction: what is loaded.
        then: whether the warehouse carries the statement out all the same (`run`) or not (`drop`).
    """
    standin: StandIn = raw.bench.standin  # type: ignore[attr-defined]
    standin.order(hold=statement)
    given = {
        "standin": str(standin.folder),
        "token": standin.token,
        "secret": standin.secret,
        "folder": str(extraction[1]),
        "policy": raw.policy.model_dump(),
    }
    loader = subprocess.Popen(
        [sys.executable, "-m", "tests.support.databricks_standin.load_one"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert loader.stdin is not None
        loader.stdin.write(json.dumps(given).encode() + b"\n")
        loader.stdin.close()

        def alive() -> None:
            assert loader.stdout is not None
            assert loader.poll() is None, loader.stdout.read().decode()[-3000:]

        standin.wait_for_held(alive)
        loader.kill()
        loader.wait(20)
        yield
    finally:
        if loader.poll() is None:
            loader.kill()
        if loader.stdout is not None:
            loader.stdout.close()
        standin.order(release=then)
        standin.wait_for_free()


@contextmanager
def reading(raw: Raw) -> Iterator[list[list[Any]]]:
    """Somebody who reads the table all the while; what they see of it, each state once.

    Whatever the table holds at the end of the block is read too.
    """
    seen: list[list[Any]] = []
    end = threading.Event()

    def read() -> None:
        last = False
        while not last:
            last = end.is_set()
            rows = raw.rows()
            if seen[-1:] != [rows]:
                seen.append(rows)

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            yield seen
        finally:
            end.set()
        reader.result(60)


def left(raw: Raw) -> list[str]:
    """Staging tables."""
    return [name for _, name, _ in raw.bench.query("SHOW TABLES IN ops LIKE 'load__*'")]


def full_refresh(raw: Raw) -> tuple[Any, Path]:
    raw.mode = "full-refresh"
    raw.load([(1, "old"), (2, "old")])
    return raw.extract([(1, "new"), (3, "new"), (4, "new")])


def merge(raw: Raw) -> tuple[Any, Path]:
    raw.policy = Meta(deletes="hard")
    raw.load([(1, "old"), (2, "old")], keys=[(1,), (2,)])
    return raw.extract([(1, "new"), (3, "new"), (4, "new")], keys=[(1,), (3,), (4,)])


def with_keys(extraction: tuple[Any, Path]) -> tuple[Any, Path]:
    """The same with the manifest on disk naming the keys, which another process reads."""
    from include.elt.lake import manifest_text

    (extraction[1] / "manifest.json").write_text(manifest_text(extraction[0]))
    return extraction


CASES: dict[str, tuple[Callable[[Raw], tuple[Any, Path]], str, tuple[int, int, int]]] = {
    "full-refresh": (full_refresh, SWAP, (3, 0, 0)),
    "merge": (merge, MERGE, (2, 1, 1)),
}


@pytest.mark.parametrize("then", ["drop", "run"])
@pytest.mark.parametrize("case", CASES)
def test_killed_between_copy_into_and_the_one_statement(raw: Raw, case: str, then: str) -> None:
    prepare, statement, figures = CASES[case]
    extraction = with_keys(prepare(raw))
    old, new = [(1, "old"), (2, "old")], [(1, "new"), (3, "new"), (4, "new")]
    with reading(raw) as seen:
        with killed_at(statement, raw, extraction, then):
            assert raw.rows() == old
            assert left(raw)
        assert raw.rows() == (new if then == "run" else old)

        result = raw.take(extraction)

    assert seen == [old, new]
    assert not result.repeated
    assert changes(result) == figures
    assert raw.rows() == [(1, "new"), (3, "new"), (4, "new")]
    assert left(raw) == []
    assert raw.take(extraction).repeated


@pytest.mark.parametrize("case", CASES)
def test_killed_before_the_log_was_written(raw: Raw, case: str) -> None:
    prepare, _, figures = CASES[case]
    extraction = with_keys(prepare(raw))
    with killed_at(LOG, raw, extraction, "drop"):
        assert raw.rows() == [(1, "new"), (3, "new"), (4, "new")]
    late = raw.extract([(9, "late")], at=raw.minute - 1, mode="full-refresh")
    with pytest.raises(RefusedLoadError, match="a newer extraction was loaded already"):
        raw.take(late)  # what was begun counts, though the log does not know of it

    result = raw.take(extraction)

    assert changes(result) == figures
    assert raw.rows() == [(1, "new"), (3, "new"), (4, "new")]
    assert left(raw) == []
    assert raw.bench.query("SELECT count(*), count(DISTINCT manifest_id) FROM ops.load_log") == [(2, 2)]


@pytest.mark.parametrize("then", ["drop", "run"])
def test_a_snapshot_is_not_appended_twice(raw: Raw, then: str) -> None:
    raw.mode = "snapshot"
    raw.load([(1, "a")])
    extraction = raw.extract([(1, "b"), (2, "b")])
    with killed_at(REPLACE, raw, extraction, then):
        assert raw.rows() == [(1, "a", 1)]
    raw.take(extraction)
    assert raw.rows() == [(1, "a", 1), (1, "b", 2), (2, "b", 2)]


@pytest.mark.parametrize("then", ["drop", "run"])
def test_the_first_load_of_a_table(raw: Raw, then: str) -> None:
    extraction = raw.extract([(1, "a"), (2, "b")])
    with killed_at(SWAP, raw, extraction, then):
        assert left(raw)
    assert changes(raw.take(extraction)) == (2, 0, 0)
    assert raw.rows() == [(1, "a"), (2, "b")]
    [(created,)] = raw.bench.query("SELECT table_created FROM ops.load_log")
    assert created


def test_what_a_load_left_that_was_given_up_goes_with_the_next_one(raw: Raw) -> None:
    given_up = full_refresh(raw)
    with killed_at(SWAP, raw, given_up, "drop"):
        pass
    assert left(raw)
    raw.load([(5, "next")])
    assert left(raw) == []


def test_no_statement_drops_a_raw_table(raw: Raw) -> None:
    """A table that is replaced keeps its grants and its history; one that is dropped and created has neither."""
    standin: StandIn = raw.bench.standin  # type: ignore[attr-defined]
    since = standin.mark()
    raw.mode, raw.policy = "full-refresh", Meta(cluster_by=["a", "id"])
    for rows in ([(1, "a")], [(2, "b")]):
        raw.load(rows)
    statements = [entry["sql"] for entry in standin.entries(since=since)]
    assert not [text for text in statements if text.startswith("DROP TABLE") and "`raw`." in text]
    properties = dict(raw.bench.query("SHOW TBLPROPERTIES raw.orders"))
    assert properties["standin.made"] == "replace"
    assert any("CLUSTER BY (`a`, `id`) AS" in text for text in statements)


def test_the_tables_of_another_load_are_left_alone(raw: Raw) -> None:
    """`raw.orders` and `raw.orders__archive` have names of which one begins like the other."""
    raw.load([(1, "a")])
    other = "load__raw__orders__archive__" + "a" * 12
    raw.bench.query(f"CREATE TABLE ops.{other} (id bigint)")
    raw.bench.query("CREATE TABLE ops.load__raw__orders__" + "b" * 12 + "_changes (id bigint)")
    raw.load([(2, "b")])
    assert left(raw) == [other]
