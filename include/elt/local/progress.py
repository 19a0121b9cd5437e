"""Showing a run while it goes on: a live block on a terminal, a line per finished task anywhere else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

FINISHED = frozenset({"success", "failed", "upstream_failed", "skipped", "removed"})
"""States that a task stays in."""

_WORDS = {
    "success": ("ok", "✓", "green"),
    "failed": ("FAILED", "✗", "bold red"),
    "upstream_failed": ("not run, something before it failed", "✗", "red"),
    "skipped": ("skipped", "-", "yellow"),
    "removed": ("removed", "-", "yellow"),
    "up_for_retry": ("will be tried again", "↻", "yellow"),
    "up_for_reschedule": ("waiting", "↻", "cyan"),
    "deferred": ("waiting", "…", "cyan"),
    "running": ("running", "▸", "cyan"),
    "queued": ("queued", "·", "dim"),
    "scheduled": ("queued", "·", "dim"),
}
"""Per state: the word, the sign on a terminal, the colour."""

_UNSTARTED = ("waiting for others", " ", "dim")
_SILENCE = 30.0
"""Seconds without a line after which the lines say what is running."""


@dataclass(frozen=True)
class Task:
    """One task of a run.

    Attributes:
        id: its id; the part before the last dot is its group.
        map_index: its number when it is mapped, else -1.
        state: Airflow's state; None before its turn.
        try_number: which try this is.
        seconds: how long it took, or has been running.
    """

    id: str
    map_index: int = -1
    state: str | None = None
    try_number: int = 0
    seconds: float | None = None

    @classmethod
    def of(cls, instance: dict[str, Any], now: datetime | None = None) -> Task:
        """A task instance as the API tells it."""
        state = instance["state"]
        seconds = instance.get("duration")
        if state in ("running", "deferred") and instance.get("start_date"):
            seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(instance["start_date"])).total_seconds()
        return cls(instance["task_id"], instance.get("map_index", -1), state, instance.get("try_number", 0), seconds)

    @property
    def name(self) -> str:
        """The id, with the number of a mapped task."""
        return self.id if self.map_index < 0 else f"{self.id}[{self.map_index}]"

    @property
    def group(self) -> str:
        """The task group; empty outside of one."""
        return self.id.rpartition(".")[0]

    @property
    def finished(self) -> bool:
        """Whether it stays in its state."""
        return self.state in FINISHED

    @property
    def word(self) -> str:
        """Its state in words."""
        return _WORDS.get(self.state or "", (self.state or _UNSTARTED[0],))[0]

    @property
    def facts(self) -> str:
        """Duration and try, as far as there is something to tell."""
        parts = []
        if self.seconds is not None and self.state not in ("upstream_failed", "skipped", "up_for_retry"):
            parts.append(f"{max(0.0, self.seconds):.1f}s")
        if self.try_number > 1:
            parts.append(f"try {self.try_number}")
        return " ".join(parts)


def is_live(console: Console) -> bool:
    """Whether lines may be drawn again: a terminal that a person watches."""
    return console.is_terminal and not console.is_dumb_terminal and not any(map(os.environ.get, ("NO_COLOR", "CI")))


class Lines:
    """Appended lines, for logs and pipes.

    Args:
        console: where to.
        clock: seconds since the command started.
    """

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._seen: dict[tuple[str, int], tuple[str | None, int]] = {}
        self._last = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is to be undone."""

    def say(self, text: str) -> None:
        """Print a line with the time."""
        self._last = self._clock()
        self._console.print(Text(f"[{self._last:6.1f}s] {text}"), soft_wrap=True)

    def update(self, tasks: Sequence[Task]) -> None:
        """Print what has ended since the last time."""
        done = sum(task.finished for task in tasks)
        width = len(str(len(tasks)))
        before = done - sum(task.finished and self._is_news(task) for task in tasks)
        for task in tasks:
            if not self._is_news(task):
                continue
            self._seen[task.id, task.map_index] = (task.state, task.try_number)
            if task.finished:
                before += 1
            if task.finished or task.state == "up_for_retry":
                self.say(f"{before:>{width}}/{len(tasks)} {task.word} {task.name} {task.facts}".rstrip())
        if self._clock() - self._last > _SILENCE:
            running = [f"{task.name} {task.facts}" for task in tasks if task.state in ("running", "deferred")]
            waiting = f"{done:>{width}}/{len(tasks)} "
            self.say(waiting + (f"running: {', '.join(running)}" if running else "nothing is running"))

    def _is_news(self, task: Task) -> bool:
        return self._seen.get((task.id, task.map_index)) != (task.state, task.try_number)


class Block:
    """One line per task that is drawn again and again; finished groups shrink to a line when the terminal is too low.

    Args:
        console: a terminal.
        clock: seconds since the command started.
    """

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._tasks: Sequence[Task] = ()
        self._live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=4,
            vertical_overflow="ellipsis",
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if self._tasks:  # for good, and all of it
            self._console.print(Group(*block_lines(self._tasks)))

    def say(self, text: str) -> None:
        """Print a line with the time above the block."""
        self._console.print(Text(f"[{self._clock():6.1f}s] {text}"))

    def update(self, tasks: Sequence[Task]) -> None:
        """Show these."""
        self._tasks = tasks

    def _draw(self) -> RenderableType:
        done = sum(task.finished for task in self._tasks)
        foot = (
            f"[{self._clock():6.1f}s] {done}/{len(self._tasks)} tasks" if self._tasks else f"[{self._clock():6.1f}s] …"
        )
        return Group(*block_lines(self._tasks, self._console.height - 2), Text(foot, style="bold"))


def block_lines(tasks: Iterable[Task], height: int | None = None) -> list[Text]:
    """The block's lines.

    Args:
        tasks: of the run.
        height: lines there is room for; None for as many as it takes.
    """
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.group, []).append(task)
    closed: set[str] = set()

    def size() -> int:
        return sum(1 if name in closed else len(group) + bool(name) for name, group in groups.items())

    quiet = [name for name, group in groups.items() if all(task.state == "success" for task in group)]
    waiting = [name for name, group in groups.items() if not any(task.state for task in group)]
    ended = [name for name, group in groups.items() if all(task.finished for task in group) and name not in quiet]
    for name in (*quiet, *reversed(waiting), *ended):
        if height is None or size() <= height:
            break
        if len(groups[name]) > 1 or name:
            closed.add(name)
    lines: list[Text] = []
    for name, group in groups.items():
        if name in closed:
            lines.append(_group_line(name, group))
            continue
        if name:
            lines.append(Text(f"  {name}", style="dim"))
        lines.extend(_task_line(task) for task in group)
    if height is not None and len(lines) > height:
        hidden = len(lines) - height + 1
        lines = [*lines[: max(0, height - 1)], Text(f"  … {hidden} more lines", style="dim")]
    return lines


def _task_line(task: Task) -> Text:
    word, sign, style = _WORDS.get(task.state or "", _UNSTARTED)
    indent = "    " if task.group else "  "
    name = task.name[len(task.group) + 1 :] if task.group else task.name
    line = Text(f"{indent}{sign} ", style=style, no_wrap=True, overflow="ellipsis")
    line.append(f"{name:<34}", style="" if task.state else "dim")
    line.append(f" {'' if task.state is None else word} {task.facts}".rstrip(), style=style)
    return line


def _group_line(name: str, group: Sequence[Task]) -> Text:
    """A whole group in one line."""
    done = sum(task.finished for task in group)
    worst = next((s for s in ("failed", "upstream_failed", "skipped") if any(t.state == s for t in group)), None)
    state = worst or ("success" if done == len(group) else "")
    word, sign, style = _WORDS.get(state, _UNSTARTED)
    line = Text(f"  {sign} ", style=style, no_wrap=True, overflow="ellipsis")
    line.append(f"{name or 'other tasks':<36}", style="" if done else "dim")
    line.append(f" {done}/{len(group)} {word if done == len(group) else ''}".rstrip(), style=style)
    return line


Display = Lines | Block


def make_display(console: Console, started: float | None = None) -> Display:
    """The display that suits the console.

    Args:
        console: where to.
        started: `time.monotonic()` of the command's start.
    """
    begin = time.monotonic() if started is None else started

    def clock() -> float:
        return time.monotonic() - begin

    return Block(console, clock) if is_live(console) else Lines(console, clock)
