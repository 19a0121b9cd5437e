"""Sling as a child process: one stream per call, nothing inherited, nothing believed without a look.

What is guarded against was measured with Sling 1.4.11: it exits with 0 after doing nothing (`no files found`, a
stream pattern that matches nothing), it knows no timeout, it reads every environment variable that looks like a
connection, and it repeats connection strings in its errors.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import yaml

from include.elt.errors import ExtractError

log = logging.getLogger(__name__)

_WROTE = re.compile(r"^wrote ([\d,]+) rows ")
_FALSE_SUCCESSES = (
    "invalid or missing token",
    "Did not match any streams",
    "no files found",
    "did find find transform",  # sic, Sling's own wording
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class SlingResult:
    """A finished Sling run.

    Attributes:
        rows: rows that Sling says it wrote.
        seconds: wall-clock time of the process.
    """

    rows: int
    seconds: float


def _spellings(secret: str) -> Iterator[str]:
    """A secret as it may stand in Sling's output: as it is, percent-encoded, escaped as JSON by Python or by Go."""
    yield from (secret, quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1])
    escaped = json.dumps(secret, ensure_ascii=False)[1:-1]
    yield escaped
    yield re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", escaped)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret in `text`, in all its spellings, by `***`; of a secret with several lines each line."""
    spellings = {
        spelling
        for secret in secrets
        for part in (secret, *secret.splitlines())
        if part.strip()
        for spelling in _spellings(part)
    }
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, "***")
    return text


def _die_with_parent() -> None:
    """In the child, before exec: ask Linux to kill it when the task that started it is gone, even by SIGKILL."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class SlingRun:
    """One call of Sling for one stream.

    Args:
        binary: the Sling program.
        home: an empty folder of this run; Sling's configuration and temporary files go there.
        connections: Sling connections by name, as their properties; they reach Sling through its environment only.
        secrets: values that must never be printed.
        variables: further environment variables of the Sling process, for what its drivers read there.
    """

    def __init__(
        self,
        binary: Path,
        home: Path,
        connections: Mapping[str, Mapping[str, Any]],
        secrets: Iterable[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.binary = binary
        self.home = home
        self.connections = connections
        self.secrets = tuple(secrets)
        self.variables = dict(variables or {})
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._stream = ""
        self._lines: list[str] = []
        self._started = 0.0

    def run(self, source: str, target: str, stream: str, config: Mapping[str, Any], timeout: float) -> SlingResult:
        """Run one stream to its end: `start` and `finish` in one."""
        self.start(source, target, stream, config)
        return self.finish(timeout)

    def start(self, source: str, target: str, stream: str, config: Mapping[str, Any]) -> None:
        """Start Sling for one stream and return at once. `finish` or `kill` has to follow.

        Args:
            source: name of the source connection.
            target: name of the target connection.
            stream: the stream's name.
            config: the stream's keys as in a replication file.
        """
        replication = self.home / "replication.yaml"
        document = {"source": source, "target": target, "streams": {stream: dict(config)}}
        replication.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        self._stream, self._lines, self._started = stream, [], time.monotonic()
        self._process = subprocess.Popen(
            [str(self.binary), "run", "-r", str(replication)],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True)
        self._reader.start()

    def finish(self, timeout: float) -> SlingResult:
        """Wait for Sling and check that it really did its work.

        Args:
            timeout: seconds since `start` after which the process and its children are killed.

        Returns:
            What Sling says it did.

        Raises:
            ExtractError: Sling failed, was killed, took too long, or succeeded without having written anything.
        """
        if self._process is None or self._reader is None:
            raise ValueError("finish() before start()")
        try:
            code = self._process.wait(max(0.0, self._started + timeout - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            raise ExtractError(
                f"stream {self._stream}: Sling took longer than {timeout:.0f} s and was killed"
            ) from None
        except BaseException:
            self.kill()
            raise
        self._reader.join(_GRACE)
        return self._judged(code, self._stream, time.monotonic() - self._started)

    def kill(self) -> None:
        """End Sling and everything it started: SIGTERM, then SIGKILL for all that is left."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(_GRACE)

    def _environment(self) -> dict[str, str]:
        """The whole environment of the child; nothing of ours is inherited."""
        return {
            # Sling starts no program for its work; a library in it looks for `pidof` as it starts, which would get the
            # secrets below in its environment (found by the search for a canary password).
            "PATH": "",
            "HOME": str(self.home),
            "TZ": "UTC",
            "SLING_HOME_DIR": str(self.home),
            "SLING_TEMP_DIR": str(self.home),
            "SLING_LOGGING": "JSON",
            "SLING_DISABLE_TELEMETRY": "TRUE",
            "SLING_ALLOW_EMPTY": "TRUE",
            # Go collects garbage half as often: a sixth less processor time for 20 MB (blocks of 3 million rows)
            "GOGC": "200",
            **self.variables,
            **{name: json.dumps(dict(properties)) for name, properties in self.connections.items()},
        }

    def _read(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        """Collect the child's output, redacted, and show it as it comes."""
        if process.stdout is None:
            return
        for line in process.stdout:
            try:
                text = str(json.loads(line)["msg"])
            except (ValueError, TypeError, KeyError):
                text = line
            text = redact(_COLOURS.sub("", text).strip(), self.secrets)
            if text:
                lines.append(text)
                log.info("sling: %s", text)

    def _judged(self, code: int, stream: str, seconds: float) -> SlingResult:
        """Turn exit code and output into a result, or into an error."""
        tail = "\n".join(self._lines[-20:])
        if code:
            reason = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
            raise ExtractError(f"stream {stream}: Sling {reason}:\n{tail}")
        false_success = next((line for line in self._lines for sign in _FALSE_SUCCESSES if sign in line), None)
        if false_success:
            raise ExtractError(f"stream {stream}: Sling did not do its work, and exited with 0: {false_success}")
        wrote = [match for line in self._lines if (match := _WROTE.match(line))]
        if not wrote:
            raise ExtractError(f"stream {stream}: Sling exited with 0 without saying that it wrote anything:\n{tail}")
        return SlingResult(int(wrote[-1][1].replace(",", "")), seconds)
