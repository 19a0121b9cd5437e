"""`make deploy` with stand-ins for helm and kubectl, secrets of a try-out, the pools, and what the document says."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from include.elt.paths import ROOT
from include.elt.settings import load_settings
from tests.conftest import AIRFLOW, _clean_environment
from tests.helm.profiles import HELM, read

DOCUMENT = ROOT / "docs" / "deploy.md"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what `make deploy` uses, with stand-ins that write down how they were called."""
    shutil.copytree(HELM, tmp_path / "helm")
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(tmp_path / "helm/values-kind.yaml", tmp_path / "helm/values-staging.yaml")
    for name in ("helm", "kubectl"):
        stand_in = tmp_path / "bin" / name
        stand_in.parent.mkdir(exist_ok=True)
        stand_in.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n[ ! -e {tmp_path}/{name}-fails ]\n')
        stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    return tmp_path


def deploy(project: Path, *variables: str, **environ: str) -> tuple[int, str, list[str]]:
    result = subprocess.run(
        ["make", "deploy", *variables],
        cwd=project,
        env={"PATH": f"{project}/bin:{os.environ['PATH']}", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    calls = project / "calls"
    return result.returncode, result.stderr, calls.read_text().splitlines() if calls.exists() else []


def test_a_deployment_is_one_helm_call_and_a_look_at_the_rollout(project: Path) -> None:
    code, _, calls = deploy(project, "ENVIRONMENT=staging", "IMAGE_TAG=0123abc")

    assert code == 0
    assert calls == [
        (
            "helm upgrade --install airflow airflow --repo https://airflow.apache.org --version 1.22.0"
            " --namespace airflow --values values.yaml --values values-staging.yaml"
            " --set-string defaultAirflowTag=0123abc --timeout 20m"
        ),
        "kubectl --namespace airflow rollout status deployment,statefulset --selector release=airflow --timeout 15m",
    ]


def test_celery_comes_before_the_environment(project: Path) -> None:
    code, _, (helm_call, _) = deploy(project, "ENVIRONMENT=staging", "IMAGE_TAG=1.2.3", "EXECUTOR=celery")

    assert code == 0
    assert "--values values.yaml --values values-celery.yaml --values values-staging.yaml" in helm_call


def test_databricks_comes_before_the_environment(project: Path) -> None:
    layer = project / "helm/values-databricks.yaml"
    variables = ("ENVIRONMENT=staging", "IMAGE_TAG=1.2.3", "EXECUTOR=celery", "WAREHOUSE=databricks")
    code, error, calls = deploy(project, *variables)
    assert (code, calls) == (2, [])
    assert "helm/values-databricks.yaml still has placeholders:" in error

    layer.write_text(layer.read_text().replace("example", "shop"))
    code, _, (helm_call, _) = deploy(project, *variables)

    assert code == 0
    values = ("values.yaml", "values-celery.yaml", "values-databricks.yaml", "values-staging.yaml")
    assert " ".join(f"--values {name}" for name in values) in helm_call


def test_a_dry_run_waits_for_no_rollout(project: Path) -> None:
    _, _, calls = deploy(project, "ENVIRONMENT=staging", "IMAGE_TAG=1.2.3", "HELM_ARGS=--dry-run=server")

    assert [call.split()[0] for call in calls] == ["helm"]
    assert calls[0].endswith("--dry-run=server")


def test_a_chart_of_one_s_own_keeps_its_version(project: Path) -> None:
    _, _, calls = deploy(project, "ENVIRONMENT=staging", "IMAGE_TAG=1.2.3", CHART="oci://mirror.example.com/airflow")

    assert "airflow oci://mirror.example.com/airflow --version 1.22.0" in calls[0]


def test_a_failed_upgrade_is_a_failure_and_nothing_is_waited_for(project: Path) -> None:
    (project / "helm-fails").touch()
    code, _, calls = deploy(project, "ENVIRONMENT=staging", "IMAGE_TAG=1.2.3")

    assert code != 0
    assert [call.split()[0] for call in calls] == ["helm"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (["IMAGE_TAG=1.2.3"], "ENVIRONMENT=''"),
        (["ENVIRONMENT=nowhere", "IMAGE_TAG=1.2.3"], "ENVIRONMENT='nowhere'"),
        (["ENVIRONMENT=celery", "IMAGE_TAG=1.2.3"], "ENVIRONMENT='celery'"),
        (["ENVIRONMENT=databricks", "IMAGE_TAG=1.2.3"], "ENVIRONMENT='databricks'"),
        (["ENVIRONMENT=staging", "IMAGE_TAG=1.2.3", "WAREHOUSE=snow"], "WAREHOUSE='snow'"),
        (["ENVIRONMENT=../x", "IMAGE_TAG=1.2.3"], "ENVIRONMENT='../x'"),
        (["ENVIRONMENT=staging"], "IMAGE_TAG=''"),
        (["ENVIRONMENT=staging", "IMAGE_TAG=latest"], "IMAGE_TAG='latest'"),
        (["ENVIRONMENT=staging", "IMAGE_TAG=main"], "IMAGE_TAG='main'"),
        (["ENVIRONMENT=staging", "IMAGE_TAG=3"], "IMAGE_TAG='3'"),
        (["ENVIRONMENT=staging", "IMAGE_TAG=1.2.3", "EXECUTOR=local"], "EXECUTOR='local'"),
        (["ENVIRONMENT=prod", "IMAGE_TAG=1.2.3"], "placeholders"),
    ],
)
def test_what_would_go_wrong_later_is_refused_before_helm_runs(
    project: Path, variables: list[str], message: str
) -> None:
    code, error, calls = deploy(project, *variables)

    assert code == 2
    assert message in error
    assert calls == []


class TestTryOutSecrets:
    def made(self) -> dict[str, dict[str, str]]:
        text = subprocess.run(
            [HELM / "try-out-secrets.sh"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
        documents = list(yaml.safe_load_all(text))
        assert {each["metadata"]["namespace"] for each in documents} == {"airflow"}
        return {each["metadata"]["name"]: each["stringData"] for each in documents}

    def test_they_are_random(self) -> None:
        first, second = self.made(), self.made()

        assert first.keys() == second.keys()
        assert {name for name in first if first[name] == second[name]} == {"airflow-connections"}

    def test_they_are_the_ones_of_production_and_the_database_s(self) -> None:
        external = {
            each["metadata"]["name"] for each in read("externalsecrets.yaml") if each["kind"] == "ExternalSecret"
        }

        assert self.made().keys() == external | {"airflow-postgresql"}

    def test_they_fit_together(self) -> None:
        made = self.made()
        password = made["airflow-postgresql"]["postgres-password"]

        assert len(base64.urlsafe_b64decode(made["airflow-fernet-key"]["fernet-key"])) == 32
        assert len(made["airflow-jwt-secret"]["jwt-secret"]) >= 64
        for url in (*made["airflow-metadata"].values(), made["airflow-result-backend"]["connection"]):
            assert f"postgres:{password}@airflow-postgresql:5432/postgres" in url
        assert "sslmode" not in made["airflow-metadata"]["connection-async"]
        assert made["airflow-redis-password"]["password"] in made["airflow-broker-url"]["connection"]


class TestPools:
    def test_they_are_the_ones_of_the_settings(self) -> None:
        environ = {**_clean_environment(), "EXTRACT_SLOTS": "7"}
        text = subprocess.run(
            [sys.executable, "-m", "include.elt.pools"],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout

        assert {name: pool["slots"] for name, pool in json.loads(text).items()} == load_settings(
            extract_slots=7
        ).pools()

    def test_a_refused_setting_fails_the_job(self) -> None:
        environ = {**_clean_environment(), "EXTRACT_SLOTS": "none"}
        result = subprocess.run(
            [sys.executable, "-m", "include.elt.pools"],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            timeout=60,
            check=False,
        )

        assert result.returncode == 2
        assert b"EXTRACT_SLOTS" in result.stderr
        assert result.stdout == b""

    @pytest.mark.slow
    def test_the_command_of_the_migration_job_migrates_and_makes_them_also_a_second_time(self, tmp_path: Path) -> None:
        (job,) = (each["migrateDatabaseJob"] for each in read("values.yaml"))
        command = [word.replace("/tmp/", f"{tmp_path}/") for word in job["args"]]
        environ = _clean_environment() | AIRFLOW | {"AIRFLOW_HOME": str(tmp_path), "EXTRACT_SLOTS": "3"}
        environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
        for slots in ("3", "5"):
            environ["EXTRACT_SLOTS"] = slots
            subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, timeout=250)
            listed = subprocess.run(
                ["airflow", "pools", "list", "--output", "json"],
                env=environ,
                check=True,
                capture_output=True,
                text=True,
                timeout=100,
            ).stdout
            pools = {pool["pool"]: int(pool["slots"]) for pool in json.loads(listed[listed.index("[{") :])}

            assert pools["extract"] == int(slots)
            assert pools["warehouse"] == 1


class TestDocument:
    def test_it_names_what_exists(self) -> None:
        text = DOCUMENT.read_text(encoding="utf-8")
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

        assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
        assert [
            path for path in re.findall(r"\bhelm/[a-z-]+\.(?:yaml|sh)\b", text) if not (ROOT / path).is_file()
        ] == []
        assert {path.name for path in HELM.iterdir()} <= set(re.findall(r"[a-z-]+\.(?:yaml|sh)\b", text))

    def test_it_says_what_was_not_run(self) -> None:
        assert "## Not run" in DOCUMENT.read_text(encoding="utf-8")

    def test_the_argo_values_turn_the_hooks_off(self) -> None:
        (block,) = (
            yaml.safe_load(each)
            for each in re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
            if "kind: Application" in each
        )
        helm = block["spec"]["sources"][0]["helm"]

        assert block["spec"]["sources"][0]["targetRevision"] == "1.22.0"
        assert helm["valuesObject"]["migrateDatabaseJob"]["useHelmHooks"] is False
        assert helm["valuesObject"]["migrateDatabaseJob"]["jobAnnotations"] == {"argocd.argoproj.io/hook": "Sync"}
        for file in helm["valueFiles"]:
            assert (ROOT / file.removeprefix("$values/")).is_file()
