"""`make manifest`: parse the dbt project ahead of time, when it or what it is parsed with has changed.

Cosmos renders the tasks from `dbt/target/manifest.json`, so that no DAG parse runs dbt; and the build starts from
`partial_parse.msgpack` beside it, which dbt accepts only if profile, target and variables are the same as here.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from include.elt.errors import EltError
from include.elt.paths import DBT_PROJECT, shown
from include.elt.settings import Settings, load_settings

MANIFEST = DBT_PROJECT / "target" / "manifest.json"
"""The parsed dbt project."""

_STAMP = MANIFEST.with_name(".parsed")
_TIMEOUT = 600
_OF_DBT = ("target", "logs", "dbt_packages")


class ManifestError(EltError):
    """The dbt project cannot be parsed."""


def dbt_command(*words: str) -> list[str]:
    """A dbt command on this project, with the dbt of this environment."""
    return [
        sys.executable,
        "-m",
        "dbt.cli.main",
        *words,
        "--project-dir",
        str(DBT_PROJECT),
        "--profiles-dir",
        str(DBT_PROJECT),
    ]


def _digest(settings: Settings) -> str:
    """Changes when a file of the project, dbt itself or the environment it is parsed with changes."""
    digest = hashlib.sha256()
    for name in ("dbt-core", "dbt-duckdb", "dbt-databricks"):
        digest.update(f"{name} {version(name)}\n".encode())
    digest.update(json.dumps([settings.warehouse, settings.dbt_environment()], sort_keys=True).encode())
    for file in sorted(DBT_PROJECT.rglob("*")):
        place = file.relative_to(DBT_PROJECT)
        if (
            file.is_file()
            and place.parts[0] not in _OF_DBT
            and file.suffix in {".sql", ".yml", ".yaml", ".csv", ".md", ".py"}
        ):
            digest.update(f"{place}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def build_manifest(settings: Settings) -> Path:
    """Parse the project unless that was done already.

    Args:
        settings: the warehouse and dbt's environment variables.

    Returns:
        The manifest.

    Raises:
        ManifestError: dbt cannot parse the project; the message is dbt's own.
    """
    digest = _digest(settings)
    if MANIFEST.is_file() and _STAMP.is_file() and _STAMP.read_text() == digest:
        return MANIFEST
    print(f"parsing the dbt project into {shown(MANIFEST)} …", flush=True)
    result = subprocess.run(
        dbt_command("--quiet", "parse", "--target", settings.warehouse),
        env=os.environ | settings.dbt_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if result.returncode:
        raise ManifestError(f"dbt cannot parse {shown(DBT_PROJECT)}:\n{result.stdout.strip()}")
    _STAMP.write_text(digest)
    return MANIFEST


def main() -> int:
    """Build the manifest; returns the exit code."""
    try:
        build_manifest(load_settings())
    except EltError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
