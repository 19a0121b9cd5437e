"""What the chart makes of the values: rendered now where helm and the chart are, else the golden render."""

from __future__ import annotations

import configparser
import os
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.helm.profiles import (
    HELM,
    PROFILES,
    TAG,
    at,
    chart,
    containers,
    golden_file,
    golden_text,
    helm,
    made_of,
    not_restricted,
    one,
    pod_template,
    pods,
    read,
    real_render,
    render,
    value_files,
)
from tests.helm.test_values import known_option

PROFILE = pytest.mark.parametrize("profile", PROFILES)
KUBERNETES = "1.34"
"""The version whose fields are known; the chart asks for 1.30 or newer."""

UNKNOWN_OF_THE_CHART = {
    ("scheduler", "standalone_dag_processor"),
    ("webserver", "enable_proxy_fix"),
    ("elasticsearch_configs", "max_retries"),
    ("elasticsearch_configs", "retry_timeout"),
    ("elasticsearch_configs", "timeout"),
}
"""Options that chart 1.22.0 writes for every Airflow and that 3.3.2 does not read."""


def airflow_cfg(profile: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(one(render(profile), "ConfigMap", "airflow-config")["data"]["airflow.cfg"])
    return parser


@PROFILE
def test_helm_lint_finds_nothing(profile: str) -> None:
    result = helm("lint", "--strict", str(chart()), *value_files(profile))

    assert result.returncode == 0, result.stdout + result.stderr
    assert "WARNING" not in result.stdout
    assert "ERROR" not in result.stdout


@PROFILE
def test_the_notes_warn_of_nothing(profile: str) -> None:
    """The chart prints deprecated keys and lost logs there, and only there."""
    arguments = (
        "install",
        "airflow",
        str(chart()),
        "--namespace",
        "airflow",
        "--dry-run=client",
        *value_files(profile),
    )
    result = helm(*arguments)
    if "cluster unreachable" in result.stderr:
        pytest.skip("this helm renders the notes only with a cluster, and there is none; helm 4 does without")

    assert result.returncode == 0, result.stderr
    assert "DEPRECATION" not in result.stdout
    expected = 1 if profile == "kind" else 0  # logs on a volume: the chart cannot know how long it lives
    assert result.stdout.count("WARNING") <= expected


@PROFILE
def test_the_golden_render_was_made_of_these_values(profile: str) -> None:
    """The tests below read it where helm and the chart are missing."""
    assert golden_file(profile).read_text().startswith(made_of(profile)), "docs/deploy.md, Checks: how to renew it"


@PROFILE
def test_the_golden_render_is_what_the_chart_makes(profile: str) -> None:
    """UPDATE_GOLDEN=1 writes it anew."""
    text = golden_text(profile, real_render(profile))
    if os.environ.get("UPDATE_GOLDEN"):
        golden_file(profile).write_text(text)

    assert text == golden_file(profile).read_text()


@PROFILE
def test_kubernetes_knows_every_field(profile: str) -> None:
    """As `kubectl apply --validate=strict` looks at it, the pod of a task included; KEDA's own kind is left out."""
    documents = [each for each in render(profile) if each["kind"] != "ScaledObject"]
    if task := pod_template(render(profile)):
        documents.append({**task, "metadata": {"name": "task", **task["metadata"]}})
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("file", ["namespace.yaml", "volume.yaml", "webhook-ingress.yaml"])
def test_kubernetes_knows_every_field_of_what_stands_beside(file: str) -> None:
    for document in read(file):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a"}}

    with pytest.raises(kubernetes_validate.ValidationError, match="podSelektor"):
        kubernetes_validate.validate({**policy, "spec": {"podSelektor": {}}}, KUBERNETES, strict=True)


@PROFILE
def test_trap_1_scheduler_task_and_executor_have_one_image(profile: str) -> None:
    documents = render(profile)
    ours = {
        each["image"]
        for pod in pods(documents).values()
        for each in containers(pod)
        if not each["image"].startswith(("redis:", "quay.io/prometheus/", "docker.io/bitnamilegacy/"))
    }

    (image,) = ours
    assert image.endswith(f"dbx-project:{TAG}")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(one(documents, "ConfigMap", "airflow-config")["data"]["airflow.cfg"])
    executor = parser["kubernetes_executor"]
    assert f"{executor['worker_container_repository']}:{executor['worker_container_tag']}" == image


@PROFILE
def test_trap_2_a_task_reaches_the_api_server_and_every_policy_is_about_one_component(profile: str) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in render(profile) if each["kind"] == "NetworkPolicy"}
    (rule,) = policies["airflow-api-server-policy"]["ingress"]

    assert {"podSelector": {"matchLabels": {"tier": "airflow", "component": "worker", "release": "airflow"}}} in rule[
        "from"
    ]
    assert rule["ports"] == [{"port": 8080}]
    if task := pod_template(render(profile)):
        assert {"tier": "airflow", "component": "worker", "release": "airflow"}.items() <= task["metadata"][
            "labels"
        ].items()
    for name, spec in policies.items():
        assert spec["podSelector"]["matchLabels"], name
        for allowed in spec.get("ingress") or []:
            assert allowed["from"], f"{name} lets everybody in"
            assert allowed["ports"], f"{name} opens every port"
    assert airflow_cfg(profile)["core"]["execution_api_server_url"] == "http://airflow-api-server:8080/execution/"


@PROFILE
def test_trap_3_the_migration_is_a_hook_that_makes_the_pools(profile: str) -> None:
    job = one(render(profile), "Job", "airflow-run-airflow-migrations")

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade"
    assert "before-hook-creation" in job["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    assert [each["kind"] for each in render(profile)].count("Job") == 1
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1].startswith("airflow db migrate &&")
    assert "include.elt.pools" in container["args"][-1]
    assert "EXTRACT_SLOTS" in {each["name"] for each in container["env"]}


@PROFILE
def test_traps_4_and_5_pod_security_restricted_admits_every_pod(profile: str) -> None:
    found = pods(render(profile))

    assert {name: wrong for name, pod in found.items() if (wrong := not_restricted(pod))} == {}
    assert len(found) >= 7
    assert ("Pod of a task" in found) == ("celery" not in profile)


def test_a_pod_that_is_not_restricted_would_be_found() -> None:
    pod: dict[str, Any] = {
        "containers": [{"name": "a"}],
        "hostNetwork": True,
        "volumes": [{"name": "v", "hostPath": {}}],
    }

    assert not_restricted(pod) == [
        "hostNetwork is set",
        "volume v: hostPath",
        "a: allowPrivilegeEscalation != false",
        "a: unrestricted capabilities",
        "a: runAsNonRoot != true",
        "a: seccompProfile",
    ]


@PROFILE
def test_every_container_has_memory_and_a_read_only_root(profile: str) -> None:
    for name, pod in pods(render(profile)).items():
        for container in containers(pod):
            assert at(container, "resources.limits.memory"), f"{name} {container['name']}"
            if "postgresql" not in name:
                assert at(container, "securityContext.readOnlyRootFilesystem"), f"{name} {container['name']}"


@PROFILE
def test_trap_6_the_logs_of_a_task_stay(profile: str) -> None:
    logging = airflow_cfg(profile)["logging"]
    if profile != "kind":
        assert logging["remote_logging"] == "True"
        assert logging["remote_base_log_folder"].startswith("s3://")
        return
    task = pod_template(render(profile))
    assert task
    (volume,) = (each for each in task["spec"]["volumes"] if each["name"] == "logs")
    assert volume["persistentVolumeClaim"]["claimName"] == "airflow-data"


@PROFILE
def test_trap_7_the_chart_makes_no_secret_and_no_user(profile: str) -> None:
    documents = render(profile)

    assert [each["metadata"]["name"] for each in documents if each["kind"] == "Secret"] == []
    assert "create-user" not in yaml.safe_dump_all(documents)


@PROFILE
def test_trap_7_a_second_render_is_the_same(profile: str) -> None:
    """Nothing random: Argo CD and a diff before an upgrade stay quiet."""
    assert real_render(profile) == real_render(profile)


@PROFILE
def test_trap_8_who_may_make_pods_and_has_a_token(profile: str) -> None:
    documents = render(profile)
    bound = {
        subject["name"]
        for each in documents
        if each["kind"] == "RoleBinding" and each["roleRef"]["name"] == "airflow-pod-launcher-role"
        for subject in each["subjects"]
    }
    with_token = {
        each["metadata"]["name"]
        for each in documents
        if each["kind"] == "ServiceAccount" and each.get("automountServiceAccountToken") is not False
    }

    assert bound & with_token == (set() if "celery" in profile else {"airflow-scheduler"})
    for pod in pods(documents).values():
        assert pod["serviceAccountName"] != "default"


@PROFILE
def test_trap_9_airflow_reads_every_option_of_the_rendered_file(profile: str) -> None:
    parser = airflow_cfg(profile)
    unknown = {
        (section, option)
        for section in parser.sections()
        for option in parser[section]
        if not known_option(section, option)
    }

    assert unknown - UNKNOWN_OF_THE_CHART == set()


@PROFILE
def test_trap_10_what_is_written_lies_on_a_volume(profile: str) -> None:
    for name, pod in pods(render(profile)).items():
        for container in containers(pod):
            if "dbx-project" not in container["image"]:
                continue
            mounts = {each["mountPath"] for each in container["volumeMounts"]}
            assert {"/tmp", "/opt/airflow/airflow.cfg"} <= mounts, f"{name} {container['name']}"
            assert not any("airflow_local_settings" in mount for mount in mounts)
            volumes = {each["name"] for each in pod["volumes"]}
            assert {each["name"] for each in container["volumeMounts"]} <= volumes
    task = pod_template(render(profile))
    worker = task["spec"] if task else one(render(profile), "Deployment", "airflow-worker")["spec"]["template"]["spec"]
    mounts = {each["mountPath"] for each in worker["containers"][0]["volumeMounts"]}
    assert {"/opt/airflow/scratch", "/opt/airflow/logs"} <= mounts
    assert ("/opt/airflow/data" in mounts) is ("databricks" not in profile)


@PROFILE
def test_every_secret_that_a_pod_reads_is_one_that_is_made_before(profile: str) -> None:
    made = {
        each["metadata"]["name"]
        for each in yaml.safe_load_all((HELM / "externalsecrets.yaml").read_text())
        if each["kind"] == "ExternalSecret"
    }
    read = {
        reference["name"]
        for pod in pods(render(profile)).values()
        for container in containers(pod)
        for reference in [
            *(at(each, "valueFrom.secretKeyRef") or {} for each in container.get("env") or []),
            *(at(each, "secretRef") or {} for each in container.get("envFrom") or []),
        ]
        if reference
    }

    assert read - made == ({"airflow-postgresql"} if profile == "kind" else set())


@pytest.mark.parametrize("profile", ["celery", "prod-celery"])
def test_keda_counts_the_queue_with_the_named_connection(profile: str) -> None:
    (scaled,) = (each for each in render(profile) if each["kind"] == "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]

    assert scaled["spec"]["maxReplicaCount"] == 4
    assert trigger["type"] == "postgresql"
    assert trigger["metadata"]["connectionFromEnv"] == "AIRFLOW_CONN_AIRFLOW_DB"
    assert "/ 8)" in trigger["metadata"]["query"]
