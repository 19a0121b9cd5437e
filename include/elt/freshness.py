"""How old data may be, as the dbt project says it: `freshness` of a source, `meta.freshness` of a model.

The page, the deadlines and dbt's own look at its sources all go back to these two declarations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PERIODS = {"minute": 60, "hour": 3600, "day": 24 * 3600}
"""Seconds of the periods that dbt knows."""


def seconds_of(span: object) -> int | None:
    """A time span like `36 hours` in seconds; None for anything else."""
    match = re.fullmatch(r"([1-9]\d*) (minute|hour|day)s?", str(span or ""))
    return int(match[1]) * PERIODS[match[2]] if match else None


def of_model(node: Mapping[str, Any]) -> object:
    """What a model's `meta.freshness` says, whatever it is; None without one.

    Args:
        node: the model, as in dbt's manifest.
    """
    meta = (node.get("config") or {}).get("meta") or node.get("meta") or {}
    return meta.get("freshness")


def faults(manifest: Mapping[str, Any]) -> list[str]:
    """The `meta.freshness` that is not understood, one line each: a misspelt one would never be late.

    Args:
        manifest: dbt's, or the part of it that is kept for DAG files.
    """
    return [
        f"{node['original_file_path']}: {node['name']}: meta.freshness is {said!r}; needed is a number with minutes,"
        " hours or days, e.g. 26 hours"
        for node in manifest["nodes"].values()
        if (said := of_model(node)) is not None and seconds_of(said) is None
    ]
