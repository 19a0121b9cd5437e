"""Sling as a child process: nothing is believed without a look, nothing outlives its time, nothing leaks."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.elt import sling
from include.elt.errors import DataError, ExtractError
from include.elt.lake.local import LocalLake
from include.elt.paths import ROOT
from include.elt.sling import SlingResult, SlingRun, redact
from tests.support.elt import Bench

DATA = 'id,a,b\n1,x,y\n2,"p\nq",\n3,NULL,é\n'


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sling, "_GRACE", 0.5)


class TestFalseSuccess:
    """Exit code 0 is not enough."""

    def test_the_honest_standin_is_believed(self, bench: Bench) -> None:
        extracted = bench.extract(DATA, sling_binary=bench.standin("honest"))
        assert extracted.rows == [(1, "x", "y"), (2, "p\nq", ""), (3, "NULL", "é")]

    @pytest.mark.parametrize(
        ("behaviour", "details", "message"),
        [
            ("silent", {}, "without saying that it wrote anything"),
            ("no_file", {}, r"wrote no text-0\.csv"),
            ("only_says", {"message": "WARN no files found"}, "did not do its work.*no files found"),
            ("only_says", {"message": "Did not match any streams"}, "did not do its work"),
            ("only_says", {"message": "invalid or missing token"}, "did not do its work.*token"),
            ("only_says", {"message": "did find find transform"}, "did not do its work"),
            ("one_row_less", {}, "row 3: '3', 'NULL', 'é' became nothing"),
            ("one_row_more", {}, "row 4: nothing became '3', 'NULL', 'é'"),
            ("rows_swapped", {}, "row 1: '1', 'x', 'y' became '3'"),
            ("other_text", {"old": "x", "new": "z"}, "row 1: '1', 'x', 'y' became '1', 'z', 'y'"),
            ("other_text", {"old": "é", "new": "\ufffd"}, "row 3: .* became '3', 'NULL', '\ufffd'"),
            ("other_text", {"old": "NULL", "new": "{null}"}, "row 3: .* became '3', '<null "),
            ("other_text", {"old": "\n", "new": "\r"}, "Sling changed the data"),
            ("other_header", {}, "wrote the columns id, a, v1 instead of id, a, b"),
            ("not_csv", {}, "what it wrote is not CSV"),
        ],
    )
    def test_is_found_out(self, bench: Bench, behaviour: str, details: dict[str, Any], message: str) -> None:
        with pytest.raises(ExtractError, match=message) as caught:
            bench.extract(DATA, sling_binary=bench.standin(behaviour, **details))
        assert not isinstance(caught.value, DataError)
        assert not list(bench.lake.root.rglob("*.parquet"))
        assert not bench.work_folders()

    def test_of_the_real_sling(self, bench: Bench, tmp_path: Path) -> None:
        home = tmp_path / "home"
        home.mkdir()
        run = SlingRun(bench.settings().sling(), home, {"LAKE": {"type": "file"}})
        config = {"mode": "full-refresh", "object": f"file://{tmp_path}/out.csv"}
        with pytest.raises(ExtractError):
            run.run("LOCAL", "LAKE", f"file://{tmp_path}/nothing/*.csv", config, 30)


class TestFailure:
    def test_an_exit_code_is_told_with_the_last_output(self, bench: Bench) -> None:
        with pytest.raises(ExtractError, match=r"Sling failed with exit code 3:\n(.|\n)*boom") as caught:
            bench.extract(DATA, sling_binary=bench.standin("fail", code=3))
        assert "\x1b" not in str(caught.value)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
    def test_a_signal_is_told_by_name(self, bench: Bench, number: signal.Signals) -> None:
        with pytest.raises(ExtractError, match=f"was killed by {number.name}"):
            bench.extract(DATA, sling_binary=bench.standin("die", number=int(number)))

    def test_a_source_that_sling_cannot_read(self, bench: Bench, tmp_path: Path) -> None:
        home = tmp_path / "home"
        home.mkdir()
        run = SlingRun(bench.settings().sling(), home, {"LAKE": {"type": "file"}})
        with pytest.raises(ExtractError, match="exit code 1"):
            run.run("LOCAL", "LAKE", f"file://{tmp_path}/no.csv", {"object": f"file://{tmp_path}/out.csv"}, 30)

    @pytest.mark.parametrize(
        ("how", "data"),
        [("append", DATA), ("replace", DATA.replace("é", "e")), ("remove", DATA)],
        ids=lambda value: value[:7],
    )
    def test_a_source_that_changes_meanwhile_is_refused(self, bench: Bench, how: str, data: str) -> None:
        with pytest.raises(ExtractError, match="changed while it was read"):
            bench.extract(data, sling_binary=bench.standin("change_source", how=how))
        assert not list(bench.lake.root.rglob("*.parquet"))


class TestTimeout:
    @pytest.mark.parametrize(
        "ignore", [("sling", "child"), ("child",), ()], ids=["both ignore SIGTERM", "the child does", "none does"]
    )
    def test_kills_sling_and_its_children(self, bench: Bench, short_grace: None, ignore: tuple[str, ...]) -> None:
        pids = bench.root / "pids"
        started = time.monotonic()
        with pytest.raises(ExtractError, match="took longer than 1 s and was killed"):
            bench.extract(DATA, sling_binary=bench.standin("hang", pids=str(pids), ignore=ignore), extract_timeout=1)
        assert time.monotonic() - started < 10
        for pid in map(int, pids.read_text().split()):
            assert wait_for(lambda pid=pid: not alive(pid), 5)
        assert not bench.work_folders()

    def test_kill_from_another_thread_ends_it(self, bench: Bench, short_grace: None) -> None:
        import threading

        pids = bench.root / "pids"
        bench.write(DATA)
        extraction = bench.extraction(sling_binary=bench.standin("hang", pids=str(pids), ignore=()))
        killer = threading.Thread(target=lambda: wait_for(pids.exists) and extraction.kill())
        killer.start()
        with pytest.raises(ExtractError, match="was killed by SIGTERM"):
            extraction.run("manual__1")
        killer.join()
        assert not any(map(alive, map(int, pids.read_text().split())))

    def test_kill_without_a_process_is_nothing(self, bench: Bench) -> None:
        bench.write(DATA)
        bench.extraction().kill()


class TestEnvironment:
    def test_is_minimal_and_secrets_are_no_arguments(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "SLING_STATE"):
            monkeypatch.setenv(name, "postgres://u:hunter2@db/x")
        bench.write(DATA)
        home = bench.root / "home"
        home.mkdir()
        seen = bench.root / "seen.json"
        connections = {"LAKE": {"type": "file", "null_as": "<n>"}, "SHOP": {"type": "postgres", "password": "s3cret/ü"}}
        run = SlingRun(bench.standin("dump", into=str(seen)), home, connections, ["s3cret/ü"])
        config = {"mode": "full-refresh", "object": f"file://{home}/out.csv"}
        assert run.run("LOCAL", "LAKE", f"file://{bench.file}", config, 30).rows == 3
        given = json.loads(seen.read_text())
        assert set(given["environ"]) == {
            *("PATH", "HOME", "TZ", "SLING_HOME_DIR", "SLING_TEMP_DIR", "SLING_LOGGING", "SLING_DISABLE_TELEMETRY"),
            *("SLING_ALLOW_EMPTY", "GOGC", "LAKE", "SHOP"),
        }
        assert json.loads(given["environ"]["SHOP"]) == connections["SHOP"]
        assert "hunter2" not in seen.read_text()
        assert "s3cret" not in " ".join(given["command"])
        assert "s3cret" not in (home / "replication.yaml").read_text()

    def test_the_working_folder_is_sling_s_home(self, bench: Bench) -> None:
        seen = bench.root / "seen.json"
        bench.extract(DATA, sling_binary=bench.standin("dump", into=str(seen)))
        environ = json.loads(seen.read_text())["environ"]
        assert environ["HOME"] == environ["SLING_HOME_DIR"] == environ["SLING_TEMP_DIR"]
        assert environ["HOME"].startswith(str(bench.lake.root / ".work"))


SECRETS = ["p@ss/w&rd <ü>", 'quo"te\\d', "-----BEGIN KEY-----\nabc123def\n-----END KEY-----"]
LEAKS = [
    "raw: p@ss/w&rd <ü>",
    "url: postgres://u:p%40ss%2Fw%26rd%20%3C%C3%BC%3E@db/x",
    "form: password=p%40ss%2Fw%26rd+%3C%C3%BC%3E",
    'json: {"password": "p@ss/w&rd <\\u00fc>"}',
    'json of go: {"password": "p@ss/w\\u0026rd \\u003cü\\u003e"}',
    'json: {"password": "quo\\"te\\\\d"}',
    'raw: quo"te\\d',
    "abc123def",
    "json: -----BEGIN KEY-----\\nabc123def\\n-----END KEY-----",
]
PARTS = ["w&rd", "w%26rd", "u0026rd", "u00fc", 'quo"te', 'quo\\"te', "abc123"]


class TestSecrets:
    def test_are_in_no_output_and_no_error(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        bench.write(DATA)
        home = bench.root / "home"
        home.mkdir()
        run = SlingRun(bench.standin("leak", lines=LEAKS, code=1), home, {"LAKE": {"null_as": "<n>"}}, SECRETS)
        config = {"mode": "full-refresh", "object": f"file://{home}/out.csv"}
        with caplog.at_level(logging.DEBUG), pytest.raises(ExtractError, match="exit code 1") as caught:
            run.run("LOCAL", "LAKE", f"file://{bench.file}", config, 30)
        for part in PARTS:
            assert part not in str(caught.value)
            assert part not in caplog.text
        assert "url: postgres://u:***@db/x" in caplog.text

    @pytest.mark.parametrize("leak", LEAKS)
    def test_are_redacted_in_every_spelling(self, leak: str) -> None:
        text = redact(leak, SECRETS)
        assert "***" in text
        assert not any(part in text for part in PARTS)

    def test_an_empty_secret_hides_nothing(self) -> None:
        assert redact("as it is", ["", "\n"]) == "as it is"

    def test_a_secret_within_a_longer_one(self) -> None:
        assert redact("abcdef abc", ["abc", "abcdef"]) == "*** ***"


def extraction_process(bench: Bench) -> subprocess.Popen[bytes]:
    """A process of its own that extracts the source with a Sling that hangs; started when Sling is."""
    pids = bench.root / "pids"
    binary = bench.standin("hang", pids=str(pids), ignore=("sling",))
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.support.elt import Bench
Bench(Path({str(bench.root)!r})).extract(sling_binary={str(binary)!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    assert wait_for(pids.exists, 60)
    return process


class TestSigkill:
    @pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
    def test_of_the_task_ends_sling_and_the_next_extraction_cleans_up(self, bench: Bench) -> None:
        bench.write(DATA)
        process = extraction_process(bench)
        running, child = map(int, (bench.root / "pids").read_text().split())
        try:
            (left,) = bench.work_folders()
            extracted = bench.extract()  # one of the same stream at the same time disturbs neither
            assert len(extracted.rows) == 3
            assert bench.work_folders() == [left]
            assert alive(running)
            process.kill()
            process.wait()
            assert wait_for(lambda: not alive(running), 5)
            assert bench.work_folders() == [left]
            assert len(bench.extract().rows) == 3
            assert bench.work_folders() == []
        finally:
            process.kill()
            process.wait()
            os.kill(child, signal.SIGKILL)

    def test_leaves_other_streams_alone(self, bench: Bench) -> None:
        work = bench.lake.root / ".work"
        other = work / "shop.orders_archive.0123456789ab"
        ours = work / "shop.orders.0123456789ab"
        other.mkdir(parents=True)
        ours.mkdir()
        bench.extract(DATA, sling_binary=bench.standin("honest"))
        assert bench.work_folders() == [other]

    def test_a_lock_held_in_this_process_counts_too(self, bench: Bench) -> None:
        with (
            bench.lake.workplace("shop", "orders") as first,
            LocalLake(bench.lake.root).workplace("shop", "orders") as second,
        ):
            assert first != second
            assert bench.work_folders() == sorted([first, second])
        assert bench.work_folders() == []


def test_the_result_tells_rows_and_seconds(bench: Bench) -> None:
    home = bench.root / "home"
    home.mkdir()
    bench.write(DATA * 1)
    run = SlingRun(bench.settings().sling(), home, {"LAKE": {"type": "file"}})
    config = {"mode": "full-refresh", "object": f"file://{home}/out.csv", "columns": {"id": "string"}}
    result = run.run("LOCAL", "LAKE", f"file://{bench.file}", config, 60)
    assert result == SlingResult(3, result.seconds)
    assert 0 < result.seconds < 60
