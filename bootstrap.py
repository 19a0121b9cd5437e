"""Make `.venv` for this project from the lock file: `python3 bootstrap.py`.

Uses the standard library only, because it runs before anything is installed. It ends at once when `.venv` already holds
what requirements-dev.lock asks for. Anything it cannot do is told in one sentence, with exit code 2.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements-dev.lock"
STAMP = VENV / ".installed"
PYTHONS = ((3, 11), (3, 13))
"""First and last Python minor version that Airflow 3.3, dbt 1.11 and the lock file are made for."""
MACHINES = ("x86_64", "aarch64")
"""Linux machines for which the Sling binary is published as a wheel."""


def refuse(reason: str) -> None:
    """Print one sentence and end with exit code 2."""
    print(f"setup: {reason}", file=sys.stderr)
    raise SystemExit(2)


def check_platform() -> None:
    """Refuse a Python or a platform the lock file holds nothing for."""
    first, last = PYTHONS
    if not first <= sys.version_info[:2] <= last:
        refuse(
            f"Python {first[0]}.{first[1]} to {last[0]}.{last[1]} is needed, and {sys.executable} is"
            f" {platform.python_version()}; choose another with PYTHON=/path/to/python3.12 make …"
        )
    supported = sys.platform == "linux" and platform.machine() in MACHINES
    if not supported and not os.environ.get("SLING_BINARY"):
        refuse(
            f"there is no Sling wheel for {sys.platform} {platform.machine()} (only linux {' and '.join(MACHINES)});"
            " give your own binary with SLING_BINARY=/path/to/sling, or use the container image."
        )


def wanted() -> str:
    """What an up-to-date `.venv` is stamped with: the lock, the interpreter and this folder."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    return f"{digest} {platform.python_version()} {ROOT}\n"


def run(*command: str | Path) -> None:
    """Run one installation step; end with its exit code and the failed command if it fails."""
    try:
        subprocess.run([str(part) for part in command], check=True, cwd=ROOT, timeout=1800)
    except subprocess.CalledProcessError as error:
        print(f"setup: failed with exit code {error.returncode}: {' '.join(map(str, command))}", file=sys.stderr)
        raise SystemExit(error.returncode) from error


def uv_requirement(folder: Path) -> Path:
    """Write the lock's entry of uv, with its hashes, to a file of its own that pip can install from."""
    lines = LOCK.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("uv=="))
    end = next(number for number in range(start, len(lines)) if not lines[number].endswith("\\"))
    file = folder / "uv.txt"
    file.write_text("\n".join(lines[start : end + 1]) + "\n")
    return file


def install() -> None:
    """Make the virtual environment anew and fill it from the lock, hashes checked."""
    shutil.rmtree(VENV, ignore_errors=True)
    try:
        venv.create(VENV, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError:
        refuse("this Python cannot make a virtual environment with pip; on Debian and Ubuntu install python3-venv.")
    python = VENV / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", uv_requirement(VENV))
    run(VENV / "bin" / "uv", "pip", "sync", "--quiet", "--python", python, "--require-hashes", LOCK)
    # The project's root on the import path of every program in this environment: `include` and airflow_local_settings.
    site_packages = next((VENV / "lib").glob("python3.*")) / "site-packages"
    (site_packages / "dbx_project.pth").write_text(f"{ROOT}\n")


def main() -> None:
    """Install when needed, saying how long it took."""
    check_platform()
    if STAMP.is_file() and STAMP.read_text() == wanted():
        return
    print("setup: installing the locked dependencies into .venv (once; 1 to 3 minutes) …", flush=True)
    started = time.monotonic()
    install()
    STAMP.write_text(wanted())
    print(f"setup: done in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
