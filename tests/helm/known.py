"""What the chart and the providers of the official image know, as known.json. To write it again:

    python -m tests.helm.known <unpacked chart> <wheels of the providers celery, cncf.kubernetes and fab>

The wheels come from `pip download --no-deps apache-airflow-providers-celery …`; these providers are in the official
image but not in this environment, so their options cannot be asked for.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("known.json")


def chart_keys(chart: Path) -> list[str]:
    """The top-level keys that the chart's schema knows."""
    return sorted(json.loads((chart / "values.schema.json").read_text())["properties"])


def provider_options(wheel: Path) -> dict[str, list[str]]:
    """The options that a provider adds to airflow.cfg, by section."""
    with zipfile.ZipFile(wheel) as archive:
        (source,) = (name for name in archive.namelist() if name.endswith("/get_provider_info.py"))
        names: dict[str, Any] = {}
        exec(archive.read(source).decode(), names)  # a function that returns a literal
    return {name: sorted(section["options"]) for name, section in names["get_provider_info"]()["config"].items()}


def main(chart: Path, wheels: list[Path]) -> None:
    sections = {name: options for wheel in wheels for name, options in provider_options(wheel).items()}
    known = {
        "chart": str(yaml.safe_load((chart / "Chart.yaml").read_text())["version"]),
        "providers": sorted("-".join(wheel.name.split("-")[:2]).replace("_", "-") for wheel in wheels),
        "top_level_keys": chart_keys(chart),
        "provider_options": dict(sorted(sections.items())),
    }
    FILE.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(wheel) for wheel in sys.argv[2:]])
