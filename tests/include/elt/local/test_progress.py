import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from include.elt.local.progress import Block, Lines, Task, block_lines, is_live, make_display


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(output: io.StringIO) -> Console:
    return Console(file=output, width=120, markup=False, highlight=False)


@pytest.fixture
def terminal(output: io.StringIO) -> Console:
    return Console(file=output, width=80, height=10, force_terminal=True, _environ={"TERM": "xterm-256color"})


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_line_per_task_that_has_ended(console: Console, output: io.StringIO, clock: Clock) -> None:
    lines = Lines(console, clock)
    lines.update([Task("shop.a.load", state="running", try_number=1), Task("shop.b.load")])
    clock.now = 12.34
    lines.update([Task("shop.a.load", state="success", try_number=1, seconds=0.41), Task("shop.b.load")])
    lines.update([Task("shop.a.load", state="success", try_number=1, seconds=0.41), Task("shop.b.load")])
    clock.now = 13
    lines.update(
        [
            Task("shop.a.load", state="success", try_number=1, seconds=0.41),
            Task("shop.b.load", state="up_for_retry", try_number=1, seconds=2),
        ]
    )
    clock.now = 104
    lines.update(
        [
            Task("shop.a.load", state="success", try_number=1, seconds=0.41),
            Task("shop.b.load", state="failed", try_number=2, seconds=1),
        ]
    )
    assert output.getvalue().splitlines() == [
        "[  12.3s] 1/2 ok shop.a.load 0.4s",
        "[  13.0s] 1/2 will be tried again shop.b.load",
        "[ 104.0s] 2/2 FAILED shop.b.load 1.0s try 2",
    ]


def test_a_long_silence_is_explained(console: Console, output: io.StringIO, clock: Clock) -> None:
    lines = Lines(console, clock)
    tasks = [Task("dbt.run", state="running", seconds=31.0), Task("dbt.test")]
    lines.update(tasks)
    clock.now = 31
    lines.update(tasks)
    lines.update(tasks)
    clock.now = 62
    lines.update([Task("dbt.run"), Task("dbt.test")])
    assert output.getvalue().splitlines() == [
        "[  31.0s] 0/2 running: dbt.run 31.0s",
        "[  62.0s] 0/2 nothing is running",
    ]


def test_text_is_printed_as_it_is(console: Console, output: io.StringIO, clock: Clock) -> None:
    Lines(console, clock).say("[red]not markup[/red] " + "x" * 200)
    assert output.getvalue() == "[   0.0s] [red]not markup[/red] " + "x" * 200 + "\n"


def test_a_task_as_the_api_tells_it() -> None:
    instance = {"task_id": "a.b", "map_index": 3, "state": "running", "try_number": 2, "duration": None}
    instance["start_date"] = "2026-01-01T00:00:00Z"
    task = Task.of(instance, now=datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC))
    assert (task.name, task.group, task.seconds, task.facts) == ("a.b[3]", "a", 7.0, "7.0s try 2")
    ended = Task.of({"task_id": "c", "state": "success", "duration": 1.25, "try_number": 1})
    assert (ended.group, ended.finished, ended.facts) == ("", True, "1.2s")
    assert Task.of({"task_id": "c", "state": None}).finished is False


TASKS = [
    Task("shop.a.extract", state="success", seconds=1),
    Task("shop.a.load", state="success", seconds=2),
    Task("shop.b.extract", state="failed", seconds=3, try_number=2),
    Task("shop.b.load", state="upstream_failed"),
    Task("dbt.m.run", state="running", seconds=4),
    Task("dbt.m.test"),
    Task("dbt.n.run"),
    Task("dbt.n.test"),
    Task("alone", state="skipped"),
]


def text(height: int | None) -> list[str]:
    return [line.plain.rstrip() for line in block_lines(TASKS, height)]


def test_a_block_has_a_line_per_task_by_group() -> None:
    lines = text(None)
    assert len(lines) == len(TASKS) + 4
    assert lines[0] == "  shop.a"
    assert lines[1].split() == ["✓", "extract", "ok", "1.0s"]
    assert lines[4].split() == ["✗", "extract", "FAILED", "3.0s", "try", "2"]
    assert lines[5].split() == ["✗", "load", "not", "run,", "something", "before", "it", "failed"]
    assert lines[-1].split() == ["-", "alone", "skipped"]


def test_a_low_terminal_keeps_what_matters() -> None:
    lines = text(10)
    assert len(lines) <= 10
    assert lines[0].split() == ["✓", "shop.a", "2/2", "ok"]
    joined = "\n".join(lines)
    assert "FAILED" in joined
    assert "running" in joined
    assert "dbt.n " in joined
    assert "0/2" in joined


@pytest.mark.parametrize("height", range(2, 16))
def test_a_block_never_exceeds_the_terminal(height: int) -> None:
    assert len(text(height)) <= height


def test_a_block_leaves_every_task_on_the_terminal(terminal: Console, output: io.StringIO, clock: Clock) -> None:
    block = Block(terminal, clock)
    with block:
        block.update(TASKS)
        block.say("scheduler ended, starting it again")
    rest = output.getvalue()[output.getvalue().rindex("\x1b[?25h") :]
    assert all(word in rest for word in ("extract", "alone", "FAILED"))
    assert "more lines" not in rest
    assert "scheduler ended" in output.getvalue()


def test_the_display_suits_the_console(console: Console, terminal: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    assert not is_live(console)
    assert is_live(terminal)
    assert isinstance(make_display(terminal), Block)
    monkeypatch.setenv("CI", "true")
    assert isinstance(make_display(terminal), Lines)
    monkeypatch.setenv("CI", "")
    monkeypatch.setenv("NO_COLOR", "1")
    assert isinstance(make_display(terminal), Lines)
