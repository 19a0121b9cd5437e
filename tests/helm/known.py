"""What the chart and the providers of the official image know, as known.json. To write it again:

    python -m tests.helm.known <unpacked chart> <wheels of the providers celery, cncf.kubernetes and fab>

The wheels come from `pip download --no-deps apache-airflow-providers-celery …`; these providers are in the official
image but not in this environment, so their options cannot be asked for.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("known.json")


Keys = dict[str, Any]


def chart_keys(chart: Path) -> Keys:
    """The keys that the chart's schema names, as a tree; None where it names none.

    It is stricter than the schema, which leaves some maps open that it lists the keys of: `workers.celery.ked` would be
    accepted and ignored. The values of the PostgreSQL chart are not described there.
    """

    def keys(schema: Mapping[str, Any]) -> Keys | None:
        given = schema.get("properties")
        more = schema.get("additionalProperties", False)
        return {name: keys(below) for name, below in sorted(given.items())} if given and not more else None

    top = json.loads((chart / "values.schema.json").read_text())["properties"]
    return {name: keys(below) if name != "postgresql" else None for name, below in sorted(top.items())}


def unknown_keys(values: Any, known: Keys | None, path: str = "") -> Iterator[str]:
    """The dotted paths of our values that no tree of known keys has."""
    if not isinstance(values, dict) or known is None:
        return
    for name, below in values.items():
        if name not in known:
            yield f"{path}{name}"
        else:
            yield from unknown_keys(below, known[name], f"{path}{name}.")


def provider_options(wheel: Path) -> dict[str, list[str]]:
    """The options that a provider adds to airflow.cfg, by section."""
    with zipfile.ZipFile(wheel) as archive:
        (source,) = (name for name in archive.namelist() if name.endswith("/get_provider_info.py"))
        names: dict[str, Any] = {}
        exec(archive.read(source).decode(), names)  # a function that returns a literal
    return {name: sorted(section["options"]) for name, section in names["get_provider_info"]()["config"].items()}


def main(chart: Path, wheels: list[Path]) -> None:
    sections = {name: options for wheel in wheels for name, options in provider_options(wheel).items()}
    known: dict[str, Any] = {
        "chart": str(yaml.safe_load((chart / "Chart.yaml").read_text())["version"]),
        "providers": sorted("-".join(wheel.name.split("-")[:2]).replace("_", "-") for wheel in wheels),
        "keys": chart_keys(chart),
        "provider_options": dict(sorted(sections.items())),
    }
    lines = [f'"{name}": {json.dumps(value)}' for name, value in known.items() if name != "keys"]
    keys = [f'  "{name}": {json.dumps(below)}' for name, below in known["keys"].items()]
    lines.append('"keys": {\n' + ",\n".join(keys) + "\n}")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(wheel) for wheel in sys.argv[2:]])
