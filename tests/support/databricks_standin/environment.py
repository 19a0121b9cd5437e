"""`python -m tests.support.databricks_standin.environment`: what the stand-in needs, in the folder `.databricks`.

An environment of its own from its own lock file, because Spark and its libraries are not what the product is tested
with, and the catalog, compiled with the JDK of this computer. Ends at once when everything is there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
FOLDER = ROOT / ".databricks"
PYTHON = FOLDER / "venv" / "bin" / "python"
JAR = FOLDER / "standin.jar"


def _host() -> str:
    """The first address, or in a worker of pytest-xdist one further on per worker."""
    first, _, last = os.environ.get("DATABRICKS_STANDIN_HOST", "127.0.0.77").rpartition(".")
    return f"{first}.{int(last) + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:])}"


HOST = _host()
"""A loopback address of its own, so that the server can have the port that all clients take, 443. Each worker of the
tests has another one, and with DATABRICKS_STANDIN_HOST a second run of the tests can go on at the same time."""

_STAMP = FOLDER / "ready"


def _digest() -> str:
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for name in ("requirements.lock", "StandInCatalog.java"):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


def unavailable() -> str | None:
    """Why the stand-in cannot run here; None when it can."""
    if shutil.which("java") is None or shutil.which("javac") is None:
        return "there is no JDK here (java and javac, 17 or newer)"
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, 443))
        except PermissionError:
            return "port 443 is not ours: run as root, or set net.ipv4.ip_unprivileged_port_start=443"
        except OSError as error:
            return f"{HOST}:443 is not free: {error}"
    return None


def missing() -> str | None:
    """Why the stand-in is not ready to be started; None when it is."""
    if not _STAMP.is_file() or _STAMP.read_text() != _digest():
        return "the stand-in for Databricks is not set up; `make test-databricks` does it"
    return None


def install() -> None:
    """Make the environment and compile the catalog."""
    _STAMP.unlink(missing_ok=True)
    FOLDER.mkdir(exist_ok=True)
    uv = ROOT / ".venv" / "bin" / "uv"
    if not PYTHON.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, FOLDER / "venv"], check=True, timeout=120)
    lock = HERE / "requirements.lock"
    sync = [uv, "pip", "sync", "--quiet", "--python", PYTHON, "--require-hashes", lock]
    subprocess.run(sync, check=True, timeout=1800)
    [jars] = (FOLDER / "venv" / "lib").glob("python3.*/site-packages/pyspark/jars")
    with tempfile.TemporaryDirectory() as classes:
        compiler = ["javac", "-nowarn", "-Xlint:-options", "-d", classes, "-cp", f"{jars}/*"]
        subprocess.run([*compiler, HERE / "StandInCatalog.java"], check=True, timeout=300)
        subprocess.run(["jar", "cf", JAR, "-C", classes, "."], check=True, timeout=120)
    _STAMP.write_text(_digest())


def main() -> int:
    """Set up; returns 3 when this computer cannot run it."""
    if reason := unavailable():
        print(f"the tests on the stand-in for Databricks do not run: {reason}", file=sys.stderr)
        return 3
    if missing():
        print("setting up the stand-in for Databricks in .databricks (once; about a minute) …", flush=True)
        install()
    return 0


if __name__ == "__main__":
    os.environ.pop("VIRTUAL_ENV", None)
    sys.exit(main())
