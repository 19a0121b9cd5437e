"""What linters and schemas say of the files around the code: Dockerfile, scripts, workflows, compose.yml.

The programs come with the development lock file; a machine for which there is no wheel skips them, and says so.
actionlint has no such wheel: it runs in the workflow `CI`, and here where it is on PATH.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.elt.paths import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOW = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
ACTION = re.compile(r"^\s*(?:- )?uses: (\S+?)@(\S+)(?: # (\S+))?$", re.MULTILINE)


def program(name: str) -> str:
    """A linter of the environment or of PATH; skips where there is none."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed, and its package has no wheel for this machine")
    return found


def says(*command: str, given: str = "") -> str:
    """What a linter prints; nothing where it has nothing to say."""
    result = subprocess.run(
        [program(command[0]), *command[1:]],
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return "" if result.returncode == 0 else result.stdout + result.stderr


def scripts() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()
    return [name for name in listed if name.endswith(".sh") or name == ".ci/run"]


def read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def steps(file: Path) -> list[dict[str, Any]]:
    return [step for job in read(file)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("file", ["Dockerfile", "tests/ship/standin/Containerfile"])
def test_hadolint(file: str) -> None:
    assert says("hadolint", file) == ""


def test_shellcheck_of_every_script() -> None:
    names = scripts()

    assert {"docker/build.sh", "helm/deploy.sh", "tests/ship/kind.sh", ".ci/run"} <= set(names)
    assert says("shellcheck", *names) == ""


@WORKFLOW
def test_shellcheck_of_every_command_of_a_workflow(file: Path) -> None:
    for step in steps(file):
        if "run" in step:
            assert "${{" not in step["run"], "an expression is text of the script: give it as a variable"
            assert says("shellcheck", "--shell=bash", "-", given=f"set -eo pipefail\n{step['run']}") == "", step["run"]


def test_zizmor() -> None:
    assert says("zizmor", "--offline", "--quiet", ".github") == ""


def test_actionlint() -> None:
    assert says("actionlint") == ""


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", [str(file.relative_to(ROOT)) for file in WORKFLOWS]),
        ("vendor.dependabot", [".github/dependabot.yml"]),
        ("vendor.compose-spec", ["compose.yml"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_schemas(schema: str, files: list[str]) -> None:
    assert says("check-jsonschema", "--builtin-schema", schema, *files) == ""


@WORKFLOW
def test_every_action_is_pinned_by_its_commit_and_says_its_version(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    found = ACTION.findall(text)

    assert len(found) == text.count("uses: ")
    for name, commit, version in found:
        assert re.fullmatch(r"[0-9a-f]{40}", commit), f"{name}@{commit}"
        assert re.fullmatch(r"v\d+(\.\d+)*", version), f"{name}: which version is {commit}?"


def test_an_action_has_one_version() -> None:
    found = {(name, commit) for file in WORKFLOWS for name, commit, _ in ACTION.findall(file.read_text())}

    assert len(found) == len({name for name, _ in found})


@WORKFLOW
def test_a_workflow_may_do_little_and_ends(file: Path) -> None:
    workflow = read(file)

    assert workflow["permissions"] == {}
    assert "pull_request_target" not in workflow[True]  # YAML's `on`
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 90, name
        assert job["permissions"]["contents"] == ("write" if file.stem == "update" else "read"), name
    for step in steps(file):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_workflows_name_commands_and_files_that_exist() -> None:
    text = "\n".join(file.read_text() for file in WORKFLOWS)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {word for line in re.findall(r"\bmake ((?:[a-z-]+ ?)+)", text) for word in line.split()}

    assert called <= targets
    assert {"lint", "types", "check", "test", "run"} <= called
    for path in re.findall(r"(?<![\w/.])((?:tests|helm|docker)/[\w./-]+\.(?:sh|yaml))", text):
        assert (ROOT / path).is_file(), path


def test_the_tests_run_on_every_python_that_is_promised() -> None:
    matrix = read(ROOT / ".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    (first, last) = runpy.run_path(str(ROOT / "bootstrap.py"))["PYTHONS"]

    assert matrix == [f"{first[0]}.{minor}" for minor in range(first[1], last[1] + 1)]


def test_sql_server_is_the_one_of_compose() -> None:
    service = read(ROOT / ".github/workflows/ci.yml")["jobs"]["mssql"]["services"]["mssql"]

    assert service["image"] in read(ROOT / "compose.yml")["services"]["mssql"]["image"]


def test_both_major_versions_of_helm_are_tried() -> None:
    matrix = read(ROOT / ".github/workflows/ci.yml")["jobs"]["helm"]["strategy"]["matrix"]["helm"]

    assert [module.partition("@v")[2].partition(".")[0] for module in matrix] == ["3", "4"]
    assert matrix[0].endswith("@v3.19.5"), "the oldest that the chart takes: docs/deploy.md"


def test_the_development_container_has_the_python_of_the_images() -> None:
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    given = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))

    assert re.search(r"python3\.12 AS airflow", (ROOT / "Dockerfile").read_text())
    assert given["image"] == "mcr.microsoft.com/devcontainers/python:3.12-bookworm"
    assert int(given["containerEnv"]["AIRFLOW_PORT"]) in given["forwardPorts"]
