"""What a `dbt build` has done, in the form in which it is told to the Data platform page.

A run's artifacts lie on the disk of the worker that built them, which an API server in Kubernetes does not see. So each
dbt invocation tells its results, and the part of the graph they belong to, as an XCom of the task that called dbt. An
XCom also stays when the task fails, which an asset event would not.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from include.elt import metrics
from include.elt.logs import tell

KEY = "dbt_results"
"""Key of the XCom. What it holds is compressed: results of 2,000 models are 0.9 MB as JSON and 0.1 MB like this."""

TREND = "dbt_seconds"
"""Key of a second, small XCom. What spans many runs reads it instead of the results themselves."""

_BUILT = ("model", "snapshot", "seed")
_TESTS = ("test", "unit_test")
_MESSAGE = 600
"""Characters of a message that are kept; dbt's own begin with what is wrong."""

_STATUS = {"success": "ok", "pass": "ok", "error": "failed", "fail": "failed", "runtime error": "failed"}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def status_of(word: str) -> str:
    """Dbt's status of a node in the product's words: ok, warn, failed, skipped."""
    return _STATUS.get(word, word)


def summary(run_results: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a page needs of the results of one dbt invocation.

    Args:
        run_results: dbt's run_results.json.
        manifest: the manifest.json of the same invocation.

    Returns:
        `generated_at`, `seconds` of the invocation, and `nodes`: one entry for each node that was built or tested, its
        sources and the exposures that read it. An entry has `id`, `type`, `name` and `depends_on`, and where there is
        one `status`, `seconds`, `rows`, `message`, `tests` (count per status), `failed_tests`, `owner`, `description`,
        `relation`, `tags`, `layer`, `materialized` and `freshness`.
    """
    entries: dict[str, dict[str, Any]] = {}
    results = list(run_results.get("results", []))
    for result in results:
        if _kind(result["unique_id"]) in _BUILT:
            entries[result["unique_id"]] = _described(result["unique_id"], manifest) | _outcome(result)
    built = list(entries)
    for result in results:
        if _kind(result["unique_id"]) not in _TESTS:
            continue
        target = node_of_test(result["unique_id"], manifest, built)
        if target is None:
            continue
        entry = entries.setdefault(target, _described(target, manifest))
        status = status_of(result["status"])
        tests = entry.setdefault("tests", {})
        tests[status] = tests.get(status, 0) + 1
        if status in ("failed", "warn"):
            found = _test(result["unique_id"], manifest)
            entry.setdefault("failed_tests", []).append(
                {
                    "name": found.get("name") or result["unique_id"].split(".")[2],
                    "status": status,
                    "failures": result.get("failures"),
                    "message": _message(result),
                }
            )
    for name in list(entries):
        for parent in entries[name]["depends_on"]:
            if _kind(parent) == "source":
                entries.setdefault(parent, _described(parent, manifest))
    for name, exposure in manifest.get("exposures", {}).items():
        read = exposure.get("depends_on", {}).get("nodes", [])
        if any(node in entries for node in read):
            entries[name] = _described(name, manifest)
    return {
        "generated_at": run_results.get("metadata", {}).get("generated_at"),
        "seconds": round(float(run_results.get("elapsed_time") or 0), 3),
        "nodes": [
            {key: value for key, value in entry.items() if value not in (None, "", [])} for entry in entries.values()
        ],
    }


def node_of_test(identity: str, manifest: Mapping[str, Any], built: Iterable[str]) -> str | None:
    """The node that a test says something about: the one it is declared on, else the last built of those it reads.

    Args:
        identity: unique id of the test.
        manifest: dbt's manifest.
        built: ids of the nodes that were built, in dbt's order.
    """
    test = _test(identity, manifest)
    declared = test.get("attached_node") or test.get("node_of_test_unique_id")
    order = {node: place for place, node in enumerate(built)}
    read = test.get("depends_on", {}).get("nodes", [])
    found = declared or max(read, key=lambda node: order.get(node, -1), default=None)
    return None if found is None else str(found)


def trend(summarised: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a summary that is compared over many runs.

    Args:
        summarised: what `summary` gave.

    Returns:
        `seconds` of each node that was built and not skipped, by id, and `failed`: ids of the nodes that failed or have
        a failed test.
    """
    nodes = summarised["nodes"]
    return {
        "seconds": {
            node["id"]: node["seconds"] for node in nodes if "seconds" in node and node.get("status") != "skipped"
        },
        "failed": [
            node["id"] for node in nodes if node.get("status") == "failed" or node.get("tests", {}).get("failed")
        ],
    }


def packed(value: Mapping[str, Any]) -> str:
    """A summary, or the trend of one, as the text that stands in the XCom."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def unpacked(text: object) -> dict[str, Any] | None:
    """What stands in such an XCom, or None for what is none of ours (that of a custom XCom backend, say)."""
    if not isinstance(text, str):
        return None
    try:
        value = json.loads(zlib.decompress(base64.b64decode(text.strip('"'), validate=True)))
    except (ValueError, zlib.error):
        return None
    return value if isinstance(value, dict) else None


def publish(
    context: Mapping[str, Any],
    run_results: Mapping[str, Any],
    manifest: Mapping[str, Any],
    of_run: Mapping[str, Any] | None = None,
) -> None:
    """Tell the results of a dbt invocation: as an XCom of the task that called dbt, as metrics, in its log.

    Args:
        context: Airflow's, of that task.
        run_results: dbt's run_results.json.
        manifest: dbt's manifest.json.
        of_run: the same with the results of the run's earlier invocations; for the XCom, as the others were told them.
    """
    told = summary(of_run or run_results, manifest)
    context["ti"].xcom_push(key=KEY, value=packed(told))
    context["ti"].xcom_push(key=TREND, value=packed(trend(told)))
    for node in summary(run_results, manifest)["nodes"]:
        tags = {"dag_id": context["ti"].dag_id, "model": node["name"]}
        if "seconds" in node or "tests" in node:
            tell(
                "built",
                **tags,
                run_id=context["run_id"],
                tests=node.get("tests", {}),
                failed_tests=[test["name"] for test in node.get("failed_tests", [])],
                **{name: node.get(name) for name in ("status", "seconds", "rows")},
            )
        if "seconds" in node:
            metrics.timing("model.time", node["seconds"], tags)
            metrics.count("model.builds", {**tags, "status": node["status"]})
        for status, number in node.get("tests", {}).items():
            metrics.count("model.tests", {**tags, "status": status}, by=number)


def _kind(identity: str) -> str:
    return identity.split(".", 1)[0]


def _test(identity: str, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    found = manifest.get("nodes", {}).get(identity) or manifest.get("unit_tests", {}).get(identity) or {}
    return found if isinstance(found, Mapping) else {}


def _message(result: Mapping[str, Any]) -> str | None:
    message = result.get("message")
    return None if not message else _COLOUR.sub("", str(message)).strip()[:_MESSAGE]


def _outcome(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a result says about a node that was built."""
    status = status_of(result["status"])
    rows = (result.get("adapter_response") or {}).get("rows_affected")
    return {
        "status": status,
        "seconds": round(float(result.get("execution_time") or 0), 3),
        "rows": rows if isinstance(rows, int) and rows >= 0 else None,
        "message": _message(result) if status in ("failed", "warn", "skipped") else None,
    }


def _described(identity: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the project says about a node, source or exposure."""
    kind = _kind(identity)
    where = {"source": "sources", "exposure": "exposures"}.get(kind, "nodes")
    node = manifest.get(where, {}).get(identity) or {}
    config = node.get("config") or {}
    meta = config.get("meta") or node.get("meta") or {}
    schema, alias = node.get("schema"), node.get("identifier") or node.get("alias")
    owner = meta.get("owner")
    if kind == "exposure":
        schema, owner = None, (node.get("owner") or {}).get("name") or (node.get("owner") or {}).get("email")
    fqn = node.get("fqn") or []
    return {
        "id": identity,
        "type": kind,
        "name": f"{node['source_name']}.{node['name']}" if kind == "source" and node else _name(identity, node),
        "depends_on": [
            parent for parent in (node.get("depends_on") or {}).get("nodes", []) if _kind(parent) in (*_BUILT, "source")
        ],
        "owner": owner,
        "description": str(node.get("description") or "").strip()[:_MESSAGE],
        "relation": f"{schema}.{alias}" if schema and alias else None,
        "tags": node.get("tags") or None,
        "layer": fqn[1] if kind in _BUILT and len(fqn) > 2 else None,
        "materialized": config.get("materialized") if kind in _BUILT else None,
        "freshness": meta.get("freshness"),
        "url": node.get("url") if kind == "exposure" else None,
    }


def _name(identity: str, node: Mapping[str, Any]) -> str:
    return str(node.get("label") or node.get("name") or identity.split(".")[-1])
