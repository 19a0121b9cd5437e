"""Parses a dbt project ahead of time: what DAG files and builds start from.

usage: python -m include.dbt_watch.parse FOLDER PROFILES_YML PROFILE TARGET

Writes beside dbt's own manifest.json and partial_parse.msgpack, in FOLDER/target: the target's schema, and
`graph.json`, the few fields of each node that Cosmos reads. A thousand models are 20 MB in manifest.json, and each
parse of a DAG file would read them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

GRAPH = "graph.json"
"""Manifest with what Cosmos reads, beside dbt's."""

_NODE = (
    "unique_id",
    "resource_type",
    "depends_on",
    "original_file_path",
    "package_name",
    "tags",
    "config",
    "fqn",
    "name",
)
_CONFIG = ("materialized", "tags", "meta", "schema", "group", "enabled")


def slim(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with nothing but what Cosmos reads to select and wire nodes.

    Tests and exposures are left away but for the tests of sources, which decide whether a source has a task.
    """

    def fields(node: dict[str, Any]) -> dict[str, Any]:
        kept = {name: node[name] for name in _NODE if name in node}
        kept["config"] = {name: value for name, value in node.get("config", {}).items() if name in _CONFIG and value}
        kept["depends_on"] = {"nodes": node.get("depends_on", {}).get("nodes", [])}
        if node["resource_type"] == "source":
            kept |= {name: node.get(name) for name in ("freshness", "source_name", "loader")}
        return kept

    nodes = {
        unique_id: fields(node)
        for unique_id, node in manifest["nodes"].items()
        if node["resource_type"] in ("model", "seed", "snapshot")
        or (
            node["resource_type"] == "test"
            and any(each.startswith("source.") for each in node["depends_on"]["nodes"])
            and not any(each.startswith("model.") for each in node["depends_on"]["nodes"])
        )
    }
    sources = {unique_id: fields(node) for unique_id, node in manifest["sources"].items()}
    project = {"project_name": manifest["metadata"].get("project_name")}
    return {"metadata": project, "nodes": nodes, "sources": sources, "selectors": manifest.get("selectors", {})}


def main(folder: str, profiles: str, profile: str, target: str) -> int:
    """Parse; returns dbt's exit code."""
    from cosmos.config import ProfileConfig

    from include.dbt_watch.project import SCHEMA, DbtProject, Session

    artifacts = Path(folder, "target")
    config = ProfileConfig(profile_name=profile, target_name=target, profiles_yml_filepath=profiles)
    project = DbtProject(Path(folder), artifacts / "manifest.json", config)
    session = Session(project, artifacts, Path(profiles).parent, {})
    result = session.invoke("--quiet parse")
    if not result.success:
        return 1
    (artifacts / SCHEMA).write_text(f"{session.credentials.schema}\n")
    text = json.dumps(slim(json.loads((artifacts / "manifest.json").read_bytes())), separators=(",", ":"))
    temporary = artifacts / f"{GRAPH}.tmp"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(artifacts / GRAPH)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
