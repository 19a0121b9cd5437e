"""A stand-in for the Sling binary that misbehaves on purpose, where the real one cannot be made to.

`Bench.standin` writes an executable that calls `main` with one of the behaviours below. All of them start from an
honest copy of the source, written and announced as Sling does.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml


class Job:
    """What the caller asked Sling for, from the replication file of the command line."""

    def __init__(self) -> None:
        document = yaml.safe_load(Path(sys.argv[sys.argv.index("-r") + 1]).read_text(encoding="utf-8"))
        ((name, self.config),) = document["streams"].items()
        self.source = Path(name.removeprefix("file://")).resolve()  # a link leads to it
        self.target = Path(self.config["object"].removeprefix("file://"))
        with self.source.open(encoding="utf-8", newline="") as stream:
            self.header, *self.rows = list(csv.reader(stream))

    def write(self) -> None:
        with self.target.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([self.header, *self.rows])

    def announce(self, rows: int | None = None) -> None:
        say(f"wrote {len(self.rows) if rows is None else rows} rows [100 r/s] to {self.target}")

    def finish(self) -> None:
        self.write()
        self.announce()


def say(message: str) -> None:
    print(json.dumps({"lvl": "info", "msg": message}), flush=True)


def honest(job: Job) -> None:
    job.finish()


def silent(job: Job) -> None:
    job.write()


def only_says(job: Job, message: str) -> None:
    """Exit with 0 after a message, having written everything."""
    job.finish()
    say(message)


def no_file(job: Job) -> None:
    job.announce()


def one_row_less(job: Job) -> None:
    job.rows.pop()
    job.finish()


def one_row_more(job: Job) -> None:
    job.rows.append(job.rows[-1])
    job.finish()


def rows_swapped(job: Job) -> None:
    job.rows.reverse()
    job.finish()


def other_text(job: Job, old: str, new: str) -> None:
    """Replace text in every value, `{null}` in the new one by the marker for NULL."""
    marker = json.loads(os.environ["LAKE"])["null_as"]
    job.rows = [[field.replace(old, new.replace("{null}", marker)) for field in row] for row in job.rows]
    job.finish()


def other_header(job: Job) -> None:
    job.header = ["id", "a", "v1"]
    job.finish()


def not_csv(job: Job) -> None:
    job.finish()
    with job.target.open("a", encoding="utf-8") as stream:
        stream.write('"never closed')


def fail(job: Job, code: int, message: str = "boom") -> None:
    print(f"\x1b[31m{message}\x1b[0m", file=sys.stderr, flush=True)
    sys.exit(code)


def die(job: Job, number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def hang(job: Job, pids: str, ignore: tuple[str, ...]) -> None:
    """Start a child and wait; `ignore` says which of the two, sling and child, ignore SIGTERM."""
    trap = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " if "child" in ignore else ""
    code = f"{trap}import time; print(flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-IS", "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    if "sling" in ignore:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready = Path(pids + ".part")
    ready.write_text(f"{os.getpid()} {child.pid}")
    ready.rename(pids)
    time.sleep(600)


def dump(job: Job, into: str) -> None:
    """Write down what the process was given."""
    environ = dict(
        entry.split("=", 1) for entry in Path("/proc/self/environ").read_text(encoding="utf-8").split("\0") if entry
    )
    command = Path("/proc/self/cmdline").read_text(encoding="utf-8").split("\0")
    Path(into).write_text(json.dumps({"environ": environ, "command": command}), encoding="utf-8")
    job.finish()


def leak(job: Job, lines: list[str], code: int) -> None:
    """Print lines as they are, and as JSON messages."""
    for line in lines:
        print(line, flush=True)
        say(line)
    job.finish()
    sys.exit(code)


def change_source(job: Job, how: str) -> None:
    """Finish honestly while somebody else changes the source."""
    job.finish()
    if how == "append":
        with job.source.open("a", encoding="utf-8") as stream:
            stream.write("9,late,row\n")
    elif how == "replace":
        content = job.source.read_bytes()
        job.source.unlink()
        time.sleep(0.01)
        job.source.write_bytes(content.swapcase())
    else:
        job.source.unlink()


def main(behaviour: str, details: dict[str, Any]) -> None:
    """Behave as the named function says."""
    action: Callable[..., None] = globals()[behaviour]
    action(Job(), **details)
