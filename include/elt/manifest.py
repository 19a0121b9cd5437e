"""`make manifest`: parse the dbt project ahead of time, when it or what it is parsed with has changed.

Cosmos renders the tasks from `dbt/target/graph.json`, so that no DAG parse runs dbt, and each build starts from the
parsed project beside it (`include/dbt_watch/project.py` says when).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from include.dbt_watch.parse import GRAPH
from include.elt.errors import EltError
from include.elt.paths import DBT_PROJECT, ROOT, shown
from include.elt.settings import Settings, load_settings

MANIFEST = DBT_PROJECT / "target" / "manifest.json"
"""The parsed dbt project."""

PROJECT = "jdbt"
"""Name of the dbt project and of its profile."""

_STAMP = MANIFEST.with_name(".parsed")
_FILES = ".files.json"
_TIMEOUT = 600
_OF_DBT = ("target", "logs", "dbt_packages")


class ManifestError(EltError):
    """The dbt project cannot be parsed."""


def _digest(settings: Settings) -> str:
    """Changes when a file of the project, dbt itself or the environment it is parsed with changes."""
    digest = hashlib.sha256()
    for name in ("dbt-core", "dbt-duckdb", "dbt-databricks"):
        digest.update(f"{name} {version(name)}\n".encode())
    digest.update(json.dumps([settings.warehouse, settings.dbt_environment()], sort_keys=True).encode())
    digest.update(json.dumps(_files(), sort_keys=True).encode())
    return digest.hexdigest()


def _files() -> dict[str, str]:
    """The files of the project that dbt parses, with the digest of each."""
    found = {}
    for file in sorted(DBT_PROJECT.rglob("*")):
        place = file.relative_to(DBT_PROJECT)
        if (
            file.is_file()
            and place.parts[0] not in _OF_DBT
            and file.suffix in {".sql", ".yml", ".yaml", ".csv", ".md", ".py"}
        ):
            found[str(place)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def changed_files() -> list[str]:
    """Files of the project that are not as they were when it was parsed: changed, new or gone."""
    stamp = MANIFEST.with_name(_FILES)
    parsed = json.loads(stamp.read_bytes()) if stamp.is_file() else {}
    return sorted({name for name, _ in set(parsed.items()) ^ set(_files().items())})


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
    if MANIFEST.with_name(GRAPH).is_file() and _STAMP.is_file() and _STAMP.read_text() == digest:
        return MANIFEST
    print(f"parsing the dbt project into {shown(MANIFEST)} …", flush=True)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "include.dbt_watch.parse", str(DBT_PROJECT), str(DBT_PROJECT / "profiles.yml")),
            *(PROJECT, settings.warehouse),
        ],
        cwd=ROOT,
        env=os.environ | settings.dbt_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if result.returncode:
        raise ManifestError(f"dbt cannot parse {shown(DBT_PROJECT)}:\n{result.stdout.strip()}")
    MANIFEST.with_name(_FILES).write_text(json.dumps(_files()))
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
