"""The last look at an image while it is built; a failure fails the build.

usage: python check_image.py dependencies LOCK    everything of the lock is installed, in its version
       python check_image.py project              every DAG can be imported, and Sling is there for this machine
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def check_dependencies(lock: Path) -> list[str]:
    """What is not installed as the lock says.

    A base's own build of a version (`3.3.2+local.1`) counts as that version, as it does for the installer.
    """
    from packaging.requirements import Requirement

    wrong = []
    for line in lock.read_text().splitlines():
        if not line or not line[0].isalnum():
            continue
        wanted = Requirement(line.rstrip(" \\"))
        if wanted.marker and not wanted.marker.evaluate():
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            found = "missing"
        if found == "missing" or not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name}: {found} instead of {wanted.specifier}")
    return wrong


def check_project() -> list[str]:
    """What keeps the DAGs or Sling from working in here."""
    from airflow.dag_processing.dagbag import DagBag

    from include.elt.manifest import MANIFEST
    from include.elt.settings import load_settings

    wrong = []
    if not MANIFEST.is_file():
        wrong.append(f"{MANIFEST} was not built")
    sling = load_settings().sling()
    if not sling.is_file():
        wrong.append(f"{sling} is not there")
    bag = DagBag()
    wrong += [f"{file}: {error}" for file, error in bag.import_errors.items()]
    if not bag.dags:
        wrong.append("there is no DAG")
    print(f"build: {len(bag.dags)} DAGs: {', '.join(sorted(bag.dags))}")
    return wrong


def main(what: str, *arguments: str) -> int:
    """Check; returns the exit code."""
    wrong = check_dependencies(Path(*arguments)) if what == "dependencies" else check_project()
    for each in wrong:
        print(f"build: {each}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
