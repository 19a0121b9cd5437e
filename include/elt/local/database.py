"""The metadata database: prepared once per version of Airflow, because the check alone takes seconds."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import distributions

from include.elt.local.environment import Home
from include.elt.local.errors import StartError
from include.elt.paths import ROOT, shown

MIGRATION_TIMEOUT = 600
"""Seconds; a new SQLite file takes six on a quiet computer."""


def _versions() -> dict[str, str]:
    """Installed Airflow packages: each may bring tables of its own."""
    return {
        name: package.version
        for package in distributions()
        if (name := package.metadata["Name"]) and name.startswith(("apache-airflow", "apache_airflow"))
    }


def _stamp(home: Home, environment: Mapping[str, str]) -> str | None:
    """What the database was prepared for, or None when that cannot be told without asking Airflow."""
    connection = environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    if not connection.startswith(f"sqlite:///{home.database}") or not home.database.exists():
        return None
    # The inode tells a file that was removed and made again from the one we prepared.
    return json.dumps({"file": home.database.stat().st_ino, "versions": _versions()}, sort_keys=True)


def is_migrated(home: Home, environment: Mapping[str, str]) -> bool:
    """Whether the database is known to fit the installed Airflow."""
    stamp = _stamp(home, environment)
    return stamp is not None and home.migrated.exists() and home.migrated.read_text() == stamp


def migrate(home: Home, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start to make or migrate the metadata database; `finish_migration` waits for it."""
    with (home.component_logs / "migrate.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish_migration(process: subprocess.Popen[bytes], home: Home, environment: Mapping[str, str]) -> None:
    """Wait for a migration and remember that it was done.

    Raises:
        StartError: it failed; the message names its log.
    """
    log = home.component_logs / "migrate.log"
    try:
        code = process.wait(MIGRATION_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise StartError(f"the metadata database was not ready after {MIGRATION_TIMEOUT} s; see {shown(log)}") from None
    if code != 0:
        last = next((line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "")
        raise StartError(f"`airflow db migrate` failed: {last.strip()} (all of it: {shown(log)})")
    if home.database.exists():
        home.database.chmod(0o600)
        with closing(sqlite3.connect(home.database)) as connection:
            # Readers and the writer no longer wait for each other. The file remembers it.
            connection.execute("PRAGMA journal_mode=WAL")
    stamp = _stamp(home, environment)
    if stamp is not None:
        new = home.migrated.with_name(f"{home.migrated.name}.{os.getpid()}")
        new.write_text(stamp)
        new.replace(home.migrated)
