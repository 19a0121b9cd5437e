"""Environments of what this project is compared with, each from a lock file of its own."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from include.elt.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"


class UnavailableError(Exception):
    """Something to compare with is not there; the message says why."""


class WrongResultError(Exception):
    """A way brought something else than it should."""


def programs(name: str) -> Path:
    """The folder of programs of the environment of `<name>.lock`; it is made when it is missing or old.

    Args:
        name: `dlt` or `dagster`.

    Raises:
        UnavailableError: it cannot be made.
    """
    folder, lock = BENCHMARKS / f".venv-{name}", BENCHMARKS / f"{name}.lock"
    stamp, wanted = folder / ".installed", hashlib.sha256(lock.read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != wanted:
        python, uv = folder / "bin" / "python", str(Path(sys.executable).with_name("uv"))
        shutil.rmtree(folder, ignore_errors=True)
        try:
            for command in (
                [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
                [uv, "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(lock)],
            ):
                subprocess.run(command, check=True, timeout=600, capture_output=True, text=True)
        except (OSError, subprocess.SubprocessError) as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()
            raise UnavailableError(f"not installed: {said[-1] if said else 'uv failed'}") from error
        stamp.write_text(wanted)
    return folder / "bin"
