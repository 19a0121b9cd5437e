import io
from pathlib import Path

from rich.console import Console

from include.elt.local.failure import MAX_LINES, essential_lines, failure_panel, log_file


def exception(name: str, value: str) -> dict[str, object]:
    return {"exc_type": name, "exc_value": value, "frames": [{"filename": "x.py", "lineno": 1, "name": "f"}]}


def test_the_exception_and_its_cause_without_the_stack() -> None:
    log = [
        {"event": "::group::Log message source details"},
        {"event": "reading", "level": "info"},
        {"event": "an earlier complaint", "level": "error"},
        {
            "event": "Task failed with exception",
            "level": "error",
            "error_detail": [
                exception("ExtractError", "row 12: 'abc'\nsee the contract"),
                exception("KeyError", "'x'"),
            ],
        },
        {"event": "::endgroup::"},
        {"event": "state was set", "level": "info"},
    ]
    assert essential_lines(log) == ["ExtractError: row 12: 'abc'", "see the contract", "caused by KeyError: 'x'"]


def test_an_error_without_an_exception() -> None:
    log = [{"event": "Process terminated by signal.", "level": "critical", "signal_name": "SIGKILL"}]
    assert essential_lines(log) == ["Process terminated by signal. (SIGKILL)"]


def test_a_log_without_an_error_gives_its_last_line() -> None:
    assert essential_lines([{"event": "one", "level": "info"}, {"event": "two"}]) == ["two"]


def test_no_log_is_said() -> None:
    assert essential_lines([]) == ["The task left no log. Its process was killed, or it could not be started."]


def test_a_long_message_keeps_its_ends() -> None:
    lines = essential_lines([{"event": "\n".join(f"line {n}" for n in range(100)), "level": "error"}])
    assert len(lines) == MAX_LINES + 1
    assert (lines[0], lines[-1]) == ("line 0", "line 99")
    assert "88 more lines" in lines[MAX_LINES // 2]


def test_where_the_log_is() -> None:
    path = log_file(Path("/logs"), "d", "r:1", "g.t", 2)
    assert path == Path("/logs/dag_id=d/run_id=r:1/task_id=g.t/attempt=2.log")
    assert log_file(Path("/logs"), "d", "r", "t", 1, map_index=3).parts[-2:] == ("map_index=3", "attempt=1.log")


def test_the_panel_names_task_reason_and_log() -> None:
    output = io.StringIO()
    Console(file=output, width=100).print(failure_panel("shop.a.load", ["LoadError: [red]no[/red]"], Path("/l/1.log")))
    shown = output.getvalue()
    assert all(part in shown for part in ("shop.a.load failed", "LoadError: [red]no[/red]", "log: /l/1.log"))
