"""The status of a build: what is written, and what a reader makes of it."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from include.dbt_watch import status
from include.dbt_watch.results import OK, Board, Result
from include.dbt_watch.status import INTERVAL, KEY, Publisher, Reader, part

MANIFEST = SimpleNamespace(nodes={"model.p.a": SimpleNamespace(compiled_code="select 1")})


def finished(unique_id: str, result: str = "success") -> Any:
    fields: dict[str, Any] = {}
    response = SimpleNamespace(fields=fields)
    run_result = SimpleNamespace(
        status=result, message="", execution_time=0.5, adapter_response=response, HasField=lambda _: True
    )
    data = SimpleNamespace(node_info=SimpleNamespace(unique_id=unique_id), run_result=run_result)
    return SimpleNamespace(info=SimpleNamespace(name="NodeFinished", msg=""), data=data)


def line(unique_id: str, text: str) -> Any:
    data = SimpleNamespace(node_info=SimpleNamespace(unique_id=unique_id))
    return SimpleNamespace(info=SimpleNamespace(name="LogModelResult", msg=text), data=data)


class Store:
    """XComs of one task; may be out of order."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.broken = 0
        self.writes = 0

    def push(self, key: str, value: Any) -> None:
        if self.broken:
            self.broken -= 1
            raise ConnectionError("the API is being restarted")
        self.writes += 1
        self.values[key] = value

    def read(self, reader: Reader, state: str = "running") -> Any:
        head = self.values.get(KEY)
        assert reader.take([self.values.get(key) for key in reader.missing(head)])
        return reader.snapshot(state, True, head)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "HEARTBEAT", 0.02)
    monkeypatch.setattr(status, "INTERVAL", 0.01)


def publisher(store: Store, **more: Any) -> Publisher:
    return Publisher("one", Board({}), MANIFEST, store.push, last=True, chosen=False, **more)


def test_what_dbt_says_arrives_with_its_lines_and_sql() -> None:
    store = Store()
    with publisher(store) as publish:
        publish(line("model.p.a", "1 of 1 OK created"))
        publish(finished("model.p.a"))

    seen = store.read(Reader(), "success")
    assert seen.head["final"]
    assert seen.nodes == {
        "model.p.a": {"outcome": OK, "seconds": 0.5, "lines": ["1 of 1 OK created"], "sql": "select 1"}
    }


def test_writes_are_few_and_none_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "INTERVAL", 10.0)
    store = Store()
    with publisher(store) as publish:
        for number in range(1_000):
            publish(finished(f"model.p.m{number}"))

    assert store.writes == 6, "five parts and the head"
    assert max(len(value) for key, value in store.values.items() if key != KEY) <= 200
    assert len(store.read(Reader(), "success").nodes) == 1_000


def test_a_secret_of_dbt_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBT_ENV_SECRET_TOKEN", "hunter2")
    store = Store()
    board = Board({})
    board.add(Result("model.p.a", "error", "cannot log in with hunter2"))
    with Publisher("one", board, MANIFEST, store.push, last=True, chosen=False):
        pass

    assert "hunter2" not in str(store.values)
    assert "cannot log in with *****" in str(store.values)


def test_without_a_thread_everything_is_written_at_the_end() -> None:
    """`dag.test()` bears no second thread that talks to Airflow."""
    store, writers = Store(), set()

    def push(key: str, value: Any) -> None:
        writers.add(threading.current_thread())
        store.push(key, value)

    with Publisher("one", Board({}), MANIFEST, push, last=True, chosen=False, live=False) as publish:
        publish(finished("model.p.a"))
        time.sleep(3 * INTERVAL)
        assert not writers

    assert writers == {threading.current_thread()}
    seen = store.read(Reader(), "success")
    assert seen.head["final"]
    assert seen.nodes["model.p.a"]["outcome"] == OK


def test_an_api_that_is_away_for_a_while_loses_nothing() -> None:
    store = Store()
    store.broken = 5
    with publisher(store) as publish:
        publish(finished("model.p.a"))

    assert store.broken == 0
    assert set(store.read(Reader(), "success").nodes) == {"model.p.a"}


def test_a_build_that_breaks_off_is_not_final() -> None:
    store = Store()
    publish = publisher(store)
    publish.__enter__()
    publish(finished("model.p.a"))
    publish.__exit__(RuntimeError)

    seen = store.read(Reader(), "failed")
    assert not seen.head["final"]
    assert set(seen.nodes) == {"model.p.a"}


def test_a_note_that_cannot_be_taken_does_not_stop_the_status() -> None:
    store = Store()

    def fail(_: Board) -> None:
        raise ConnectionError("no")

    with publisher(store, changed=fail) as publish:
        publish(finished("model.p.a"))

    assert store.values[KEY]["final"]


class TestReader:
    """Which status is alive."""

    def head(self, build: str, beat: int) -> dict[str, Any]:
        return {"build": build, "beat": beat, "parts": 0, "final": False, "last": True, "chosen": False}

    def test_one_that_comes_while_somebody_looks_is(self) -> None:
        reader = Reader()
        assert not reader.snapshot("queued", True, None).alive
        assert not reader.snapshot("running", True, None).alive
        assert reader.snapshot("running", True, self.head("one", 1)).alive

    def test_one_that_was_there_is_only_after_its_next_beat(self) -> None:
        reader = Reader()
        assert not reader.snapshot("running", True, self.head("one", 7)).alive
        assert not reader.snapshot("running", True, self.head("one", 7)).alive
        assert reader.snapshot("running", True, self.head("one", 8)).alive

    def test_what_a_cleared_build_left_behind_is_not(self) -> None:
        reader = Reader()
        reader.snapshot("running", True, None)
        assert reader.snapshot("running", True, self.head("one", 1)).alive
        assert not reader.snapshot("success", True, self.head("one", 9)).alive
        assert not reader.snapshot("queued", True, self.head("one", 9)).alive
        assert not reader.snapshot("running", True, self.head("one", 9)).alive
        assert reader.snapshot("running", True, self.head("two", 1)).alive

    def test_a_reader_that_comes_back_soon_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reader = Reader()
        reader.snapshot("running", True, None)
        reader.snapshot("running", True, self.head("one", 1))
        reader.pause()
        reader.resume()
        assert reader.snapshot("running", True, self.head("one", 1)).alive
        reader.pause()
        monkeypatch.setattr(status, "HEARTBEAT", -1.0)
        reader.resume()
        assert not reader.snapshot("running", True, self.head("one", 1)).alive

    def test_only_new_parts_are_read_and_another_build_begins_anew(self) -> None:
        reader = Reader()
        assert reader.missing({**self.head("one", 1), "parts": 2}) == [part(1), part(2)]
        assert reader.take([{"a": {}}, {"b": {}}])
        assert reader.missing({**self.head("one", 2), "parts": 3}) == [part(3)]
        assert not reader.take([None])
        assert reader.missing({**self.head("one", 2), "parts": 3}) == [part(3)]
        assert reader.missing({**self.head("two", 1), "parts": 1}) == [part(1)]
        assert reader.nodes == {}
