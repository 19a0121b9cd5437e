"""The part of a task's log that says why it failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.text import Text

from include.elt.paths import shown

MAX_LINES = 12
"""Lines of a failure that are shown; the log file has all of it."""

_ERRORS = ("error", "critical")
_NO_LOG = "The task left no log. Its process was killed, or it could not be started."


def essential_lines(log: Iterable[Mapping[str, Any]]) -> list[str]:
    """The last error of a log: its message and the exceptions behind it, without the stack.

    Args:
        log: structured lines, as the API gives them.
    """
    lines = [line for line in log if not str(line.get("event", "")).startswith("::")]
    errors = [line for line in lines if str(line.get("level", "")).lower() in _ERRORS]
    chosen = (
        next((line for line in reversed(errors) if line.get("error_detail")), None) or (errors or lines or [{}])[-1]
    )
    exceptions = chosen.get("error_detail") or []
    found = [] if exceptions else str(chosen.get("event", "")).splitlines()
    if found and chosen.get("signal_name"):
        found[-1] += f" ({chosen['signal_name']})"
    for number, exception in enumerate(exceptions):
        name, value = exception.get("exc_type"), str(exception.get("exc_value") or "")
        text = f"{name}: {value}" if value else str(name)
        found.extend((f"caused by {text}" if number else text).splitlines())
    found = [line.rstrip() for line in found if line.strip()]
    if len(found) > MAX_LINES:
        half = MAX_LINES // 2
        found = [*found[:half], f"… {len(found) - 2 * half} more lines …", *found[-half:]]
    return found or [_NO_LOG]


def log_file(folder: Path, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> Path:
    """Where Airflow keeps the log of one try of a task."""
    parts = [f"dag_id={dag_id}", f"run_id={run_id}", f"task_id={task_id}"]
    if map_index >= 0:
        parts.append(f"map_index={map_index}")
    return folder.joinpath(*parts, f"attempt={try_number}.log")


def failure_panel(task: str, lines: Sequence[str], log: Path) -> Panel:
    """A failed task: what it was, why, and where to read on."""
    body = Text("\n".join(lines))
    body.append(f"\n\nlog: {shown(log)}", style="dim")
    return Panel(body, title=Text(f"{task} failed"), title_align="left", border_style="red", expand=False)
