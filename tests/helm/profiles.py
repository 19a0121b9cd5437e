"""The profiles that helm/ offers, their merged values, and what the chart makes of them.

`HELM_CHART` names the unpacked chart 1.22.0, or its values.schema.json alone; `HELM` the binary, else the one on PATH.
Where they are missing, the render is the golden one of golden/, which holds what it was made of: a test compares that
with the values as they are, so that no golden render outlives a change of them. There, scripts of the chart are
shortened to a checksum.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.elt.paths import ROOT

HELM = ROOT / "helm"

PROFILES: dict[str, tuple[str, ...]] = {
    "base": ("values.yaml",),
    "celery": ("values.yaml", "values-celery.yaml"),
    "prod": ("values.yaml", "values-prod.yaml"),
    "prod-celery": ("values.yaml", "values-celery.yaml", "values-prod.yaml"),
    "databricks": ("values.yaml", "values-databricks.yaml", "values-prod.yaml"),
    "databricks-celery": ("values.yaml", "values-celery.yaml", "values-databricks.yaml", "values-prod.yaml"),
    "kind": ("values.yaml", "values-kind.yaml"),
}

WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"}


def _merge(below: Any, above: Any) -> Any:
    """As Helm merges files: maps by key, a null takes the key away, everything else replaces."""
    if not isinstance(above, dict):
        return above
    below = below if isinstance(below, dict) else {}
    merged = {**below, **{key: _merge(below.get(key), value) for key, value in above.items()}}
    return {key: value for key, value in merged.items() if not (key in above and above[key] is None)}


def read(name: str) -> list[Any]:
    """The documents of a file under helm/."""
    return list(yaml.safe_load_all((HELM / name).read_text(encoding="utf-8")))


def values(profile: str) -> dict[str, Any]:
    """Our values of a profile, without the chart's defaults."""
    merged: dict[str, Any] = {}
    for file in PROFILES[profile]:
        merged = _merge(merged, read(file)[0])
    return merged


def at(tree: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or None."""
    here: Any = tree
    for key in path.split("."):
        if not isinstance(here, Mapping) or key not in here:
            return None
        here = here[key]
    return here


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar with its dotted path."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from leaves(value, f"{path}[{number}]")
    else:
        yield path, tree


def _given() -> Path:
    given = os.environ.get("HELM_CHART")
    if not given:
        pytest.skip("HELM_CHART names neither the unpacked Airflow chart 1.22.0 nor its values.schema.json")
    return Path(given)


def schema() -> Path:
    """The chart's values.schema.json; skips where it is not present."""
    given = _given()
    return given / "values.schema.json" if given.is_dir() else given


def chart() -> Path:
    """The unpacked chart; skips where it is not present."""
    given = _given()
    if not given.is_dir():
        pytest.skip(f"HELM_CHART={given} is the schema only; a render needs the unpacked chart")
    return given


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm; skips where it is not installed."""
    binary = shutil.which(os.environ.get("HELM", "helm"))
    if binary is None:
        pytest.skip("helm is not installed (HELM names the binary, else it is looked for on PATH)")
    return subprocess.run([binary, *arguments], cwd=HELM, capture_output=True, text=True, timeout=120, check=False)


def value_files(profile: str) -> list[str]:
    return [word for file in PROFILES[profile] for word in ("--values", file)]


TAG = "0.0.0"
"""Of the image in every render."""

OURS = ("airflow.cfg", "pod_template_file.yaml")
"""What is kept whole in a golden render, of all texts with several lines: it comes from our values."""


def present() -> bool:
    """Whether helm and the unpacked chart are here, for a real render."""
    given = os.environ.get("HELM_CHART")
    return bool(given) and Path(str(given)).is_dir() and shutil.which(os.environ.get("HELM", "helm")) is not None


def real_render(profile: str) -> tuple[dict[str, Any], ...]:
    """Everything that the chart makes of a profile, now."""
    options = ("--namespace", "airflow", "--set-string", f"defaultAirflowTag={TAG}")
    result = helm("template", "airflow", str(chart()), *options, *value_files(profile))
    assert result.returncode == 0, result.stderr
    return tuple(document for document in yaml.load_all(result.stdout, yaml.CSafeLoader) if document)


def golden_file(profile: str) -> Path:
    return Path(__file__).parent / "golden" / f"{profile}.yaml"


@functools.cache
def render(profile: str) -> tuple[dict[str, Any], ...]:
    """What the chart makes of a profile: a real render where that is possible, else the golden one."""
    if present():
        return real_render(profile)
    return tuple(yaml.load_all(golden_file(profile).read_text(encoding="utf-8"), yaml.CSafeLoader))


def made_of(profile: str) -> str:
    """The first lines of a golden render: what it was made of."""
    deploy = (HELM / "deploy.sh").read_text(encoding="utf-8")
    version = next(line.partition("=")[2] for line in deploy.splitlines() if line.startswith("CHART_VERSION="))
    given = hashlib.sha256(json.dumps(values(profile), sort_keys=True).encode()).hexdigest()
    return f"# The chart {version} with {' '.join(PROFILES[profile])}\n# sha256 of the merged values: {given}\n"


def golden_text(profile: str, documents: tuple[dict[str, Any], ...]) -> str:
    """A render as its golden file: sorted, without comments, scripts of the chart as checksums."""

    def shortened(tree: Any, key: str = "") -> Any:
        if isinstance(tree, dict):
            return {name: shortened(value, name) for name, value in tree.items()}
        if isinstance(tree, list):
            return [shortened(value) for value in tree]
        if key == "pod_template_file.yaml":
            return yaml.safe_dump(yaml.safe_load(tree), width=110)
        if isinstance(tree, str) and "\n" in tree.strip() and key not in OURS:
            return f"sha256 {hashlib.sha256(tree.encode()).hexdigest()[:16]}"
        return tree

    ordered = sorted(documents, key=lambda each: (each["kind"], each["metadata"]["name"]))
    return made_of(profile) + yaml.dump_all([shortened(each) for each in ordered], Dumper=_Dumper, width=110)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such; short maps and lists on one line."""


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    lines = "\n".join(line.rstrip() for line in text.splitlines()) + "\n" if "\n" in text else text
    return dumper.represent_scalar("tag:yaml.org,2002:str", lines, style="|" if "\n" in lines else None)


_Dumper.add_representer(str, _text)
_Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]


def one(documents: tuple[dict[str, Any], ...], kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def pod_template(documents: tuple[dict[str, Any], ...]) -> dict[str, Any] | None:
    """The pod of a task. It lies in a ConfigMap as text, where no validator looks."""
    text = one(documents, "ConfigMap", "airflow-config")["data"].get("pod_template_file.yaml")
    return yaml.safe_load(text) if text else None


def pods(documents: tuple[dict[str, Any], ...]) -> dict[str, dict[str, Any]]:
    """The spec of every pod of a render, the task's included, by kind and name."""
    found = {}
    for document in documents:
        name = f"{document['kind']} {document['metadata']['name']}"
        if document["kind"] in WORKLOADS:
            found[name] = document["spec"]["template"]["spec"]
        elif document["kind"] == "CronJob":
            found[name] = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    if task := pod_template(documents):
        found["Pod of a task"] = task["spec"]
    return found


def containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*(pod.get("initContainers") or []), *pod["containers"]]


def not_restricted(pod: Mapping[str, Any]) -> list[str]:
    """What Pod Security's level `restricted` refuses in a pod, in its own words as far as they are short."""
    wrong = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in pod.get("volumes") or []:
        wrong += [f"volume {volume['name']}: {kind}" for kind in volume.keys() - {"name"} - allowed]
    of_pod = pod.get("securityContext") or {}
    for container in containers(pod):
        name = container["name"]
        own = container.get("securityContext") or {}
        both = {**of_pod, **own}
        if own.get("allowPrivilegeEscalation") is not False:
            wrong.append(f"{name}: allowPrivilegeEscalation != false")
        if "ALL" not in at(own, "capabilities.drop") if at(own, "capabilities.drop") else True:
            wrong.append(f"{name}: unrestricted capabilities")
        if set(at(own, "capabilities.add") or ()) - {"NET_BIND_SERVICE"}:
            wrong.append(f"{name}: capabilities.add")
        if both.get("runAsNonRoot") is not True:
            wrong.append(f"{name}: runAsNonRoot != true")
        if both.get("runAsUser") == 0:
            wrong.append(f"{name}: runAsUser=0")
        if at(both, "seccompProfile.type") not in {"RuntimeDefault", "Localhost"}:
            wrong.append(f"{name}: seccompProfile")
        if own.get("privileged"):
            wrong.append(f"{name}: privileged")
        if own.get("procMount", "Default") != "Default":
            wrong.append(f"{name}: procMount")
        wrong += [f"{name}: hostPort" for port in container.get("ports") or [] if port.get("hostPort")]
    return wrong
