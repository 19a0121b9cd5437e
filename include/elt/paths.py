"""Where the parts of the project lie, seen from its root."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The project's root: the folder that holds dags/, include/ and dbt/."""

REPLICATIONS = ROOT / "include" / "replications"
"""One plain Sling replication file per source."""

SAMPLE_DATA = ROOT / "include" / "sample_data"
"""The small shop that `make run` loads when nothing else is given."""

DBT_PROJECT = ROOT / "dbt"
"""The dbt project `jdbt`."""


def shown(path: Path | str) -> str:
    """Return `path` as a person should read it: relative to the project when it lies inside."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
