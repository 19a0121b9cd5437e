"""The values files as they stand, without helm and the chart; the schema where it is present.

`Trap n` are the ten ways in which a deployment with the official chart goes wrong silently, each tested here on the
values or in test_render.py on what the chart makes of them, most in both.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import asyncpg
import cosmos.settings
import jsonschema
import pytest
import yaml
from airflow.configuration import conf

from include.elt.paths import ROOT
from include.elt.replication import read_replication
from include.elt.settings import Settings, load_settings
from tests.helm.known import chart_keys, unknown_keys
from tests.helm.profiles import HELM, PROFILES, at, leaves, read, schema, values

KNOWN = json.loads(Path(__file__).with_name("known.json").read_text())
PROFILE = pytest.mark.parametrize("profile", PROFILES)

OUR_VARIABLES = {name.upper() for name in Settings.model_fields}
FOREIGN_VARIABLES = {"DBT_SEND_ANONYMOUS_USAGE_STATS", "DO_NOT_TRACK"}

RESTRICTED_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

# The chart's components, and what of them lies outside the global security contexts.
AIRFLOW_COMPONENTS = ("apiServer", "scheduler", "dagProcessor", "triggerer", "migrateDatabaseJob", "cleanup")
OTHER_COMPONENTS = ("statsd", "redis", "pgbouncer")


def environment(profile: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in values(profile)["env"]}


def known_option(section: str, option: str) -> bool:
    """Whether Airflow 3.3.2, a provider of the official image, or Cosmos reads an option."""
    if section == "cosmos":  # reads more than it declares
        return f'"cosmos", "{option}"' in Path(cosmos.settings.__file__).read_text()
    if section in KNOWN["provider_options"]:
        return option in KNOWN["provider_options"][section]
    return option in conf.configuration_description.get(section, {}).get("options", {})


@PROFILE
def test_the_chart_s_schema_accepts_the_values(profile: str) -> None:
    validator = jsonschema.Draft7Validator(json.loads(schema().read_text()))

    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(values(profile))] == []


@pytest.mark.parametrize("file", sorted(path.name for path in HELM.glob("values*.yaml")))
def test_every_key_is_one_of_the_chart(file: str) -> None:
    """The schema lets unknown ones pass at the top: `apiSever: {replicas: 3}` would be accepted and ignored."""
    assert list(unknown_keys(read(file)[0], KNOWN["keys"])) == []


def test_a_misspelt_key_would_be_found() -> None:
    wrong = {
        "apiSever": {},
        "apiServer": {"replcas": 3, "resources": {"anything": 1}},
        "workers": {"celery": {"ked": 1}},
    }

    assert list(unknown_keys(wrong, KNOWN["keys"])) == ["apiSever", "apiServer.replcas", "workers.celery.ked"]


def test_the_known_keys_are_the_ones_of_the_pinned_chart() -> None:
    assert f"CHART_VERSION={KNOWN['chart']}\n" in (HELM / "deploy.sh").read_text()
    assert chart_keys(schema().parent) == KNOWN["keys"]


@pytest.mark.parametrize("file", sorted(path.name for path in HELM.glob("*.yaml")))
def test_no_key_is_given_twice(file: str) -> None:
    """YAML takes the last one, silently."""

    class Strict(yaml.SafeLoader):
        pass

    def no_duplicates(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"line {node.start_mark.line + 1}: {keys}"
        return loader.construct_mapping(node)

    Strict.add_constructor("tag:yaml.org,2002:map", no_duplicates)
    list(yaml.load_all((HELM / file).read_text(), Strict))


@PROFILE
def test_every_option_of_airflow_cfg_is_one_that_airflow_reads(profile: str) -> None:
    """Neither helm nor Airflow complains about a misspelt one."""
    options = [(section, option) for section, given in values(profile)["config"].items() for option in given]
    options += [
        tuple(name.removeprefix("AIRFLOW__").lower().split("__", 1))  # type: ignore[misc]
        for name in [*environment(profile), *(each["envName"] for each in values(profile)["secret"])]
        if name.startswith("AIRFLOW__")
    ]

    assert [option for option in options if not known_option(*option)] == []
    assert ("database", "sql_alchemy_conn_async") in options


def test_a_misspelt_option_would_be_found() -> None:
    assert known_option("workers", "min_heartbeat_interval")
    assert known_option("kubernetes_executor", "delete_worker_pods")
    assert not known_option("workers", "min_heartbeat_intervall")
    assert not known_option("kubernetes_executor", "delete_pods")
    assert not known_option("cosmos", "no_such")
    assert not known_option("no_such", "option")


@PROFILE
def test_the_tasks_wait_for_the_api_server_as_they_do_locally(profile: str) -> None:
    assert values(profile)["config"]["workers"] == {"min_heartbeat_interval": "1", "execution_api_timeout": "60"}


@PROFILE
def test_every_variable_is_a_setting_of_this_project_with_an_allowed_value(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment(profile)

    assert set(given) - FOREIGN_VARIABLES <= OUR_VARIABLES
    for name in OUR_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(_env_file=None)
    assert read_replication(settings.shop_replication(), settings.variables()).streams


@PROFILE
def test_what_the_settings_say_is_written_to_a_volume_of_the_tasks(profile: str) -> None:
    given = environment(profile)
    for executor in ("kubernetes", "celery"):
        mounts = [each["mountPath"] for each in at(values(profile), f"workers.{executor}.extraVolumeMounts")]
        volumes = {each["name"] for each in at(values(profile), f"workers.{executor}.extraVolumes")}

        assert {each["name"] for each in at(values(profile), f"workers.{executor}.extraVolumeMounts")} == volumes
        for name in {"DUCKDB_PATH", "LAKE", "ARTIFACTS", "SCRATCH"} & given.keys():
            elsewhere = given[name].startswith(("s3://", "/Volumes/"))
            assert elsewhere or any(given[name].startswith(mount) for mount in mounts), name


@pytest.mark.parametrize("profile", ["databricks", "databricks-celery"])
def test_with_databricks_nothing_binds_a_task_to_a_node_or_a_volume(profile: str) -> None:
    assert environment(profile).keys() - environment("base").keys() == {
        "WAREHOUSE",
        "DATABRICKS_CATALOG",
        "DATABRICKS_SLOTS",
    }
    assert environment("base").keys() - environment(profile).keys() == {"DUCKDB_PATH"}
    for executor in ("kubernetes", "celery"):
        workers = at(values(profile), f"workers.{executor}")
        assert "affinity" not in workers
        assert [each["name"] for each in workers["extraVolumes"]] == ["scratch"]


def test_the_volume_of_the_duckdb_mode_exists_and_keeps_its_tasks_on_one_node() -> None:
    (claim,) = read("volume.yaml")

    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    for executor in ("kubernetes", "celery"):
        workers = at(values("base"), f"workers.{executor}")
        assert workers["extraVolumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (term,) = workers["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert term["labelSelector"]["matchLabels"]["component"] == "worker"


@PROFILE
def test_there_is_no_password_and_no_key_in_the_values(profile: str) -> None:
    secret_keys = re.compile(
        r"(password|pass|fernetKey|secretKey|jwtSecret|brokerUrl|privateKey|token)$", re.IGNORECASE
    )
    given = [
        (path, value)
        for path, value in leaves(values(profile))
        if secret_keys.search(path) and isinstance(value, str) and value and not path.startswith("secret[")
    ]

    assert [path for path, _ in given] == []
    assert not re.search(r"://[^/\s:]*:[^@\s]+@|BEGIN [A-Z ]*PRIVATE", yaml.safe_dump(values(profile)))
    assert not values(profile).keys() & {"extraSecrets", "fernetKey", "apiSecretKey", "jwtSecret", "webserverSecretKey"}


@PROFILE
def test_every_secret_is_named_and_comes_from_the_secret_store_with_its_key(profile: str) -> None:
    merged = values(profile)
    wanted = {
        (merged["fernetKeySecretName"], "fernet-key"),
        (merged["apiSecretKeySecretName"], "api-secret-key"),
        (merged["jwtSecretName"], "jwt-secret"),
        (merged["data"]["metadataSecretName"], "connection"),
        *((each["secretName"], each["secretKey"]) for each in merged["secret"]),
        *((each["secretRef"]["name"], "") for each in yaml.safe_load(merged["extraEnvFrom"])),
    }
    if merged["executor"] == "CeleryExecutor":
        wanted |= {
            (merged["data"]["brokerUrlSecretName"], "connection"),
            (merged["data"]["resultBackendSecretName"], "connection"),
            (merged["redis"]["passwordSecretName"], "password"),
        }
    made = {(name, "") for name in ("airflow-connections",)}
    for each in read("externalsecrets.yaml"):
        if each["kind"] == "ExternalSecret":
            spec, name = each["spec"], each["metadata"]["name"]
            made |= {(name, item["secretKey"]) for item in spec.get("data", [])}
            made |= {(name, key) for key in at(spec, "target.template.data") or {}}

    assert wanted <= made


def test_the_async_url_of_the_metadata_database_is_one_that_asyncpg_takes() -> None:
    """Airflow would hand `sslmode` on to asyncpg, which does not know it."""
    with pytest.raises(TypeError, match="sslmode"):
        asyncio.run(asyncpg.connect(host="127.0.0.1", port=1, sslmode="require"))
    (metadata,) = (each for each in read("externalsecrets.yaml") if each["metadata"]["name"] == "airflow-metadata")
    urls = metadata["spec"]["target"]["template"]["data"]
    assert urls["connection"].startswith("postgresql://")  # KEDA reads it too, and knows no driver
    assert urls["connection"].endswith("?sslmode=require")
    assert urls["connection-async"].startswith("postgresql+asyncpg://")
    assert urls["connection-async"].endswith("?ssl=require")


@PROFILE
def test_trap_1_one_place_names_the_image(profile: str) -> None:
    merged = values(profile)

    assert merged["defaultAirflowRepository"]
    assert merged["defaultAirflowTag"] == "unset"  # a deployment that forgets it fails to pull
    assert "defaultAirflowDigest" not in merged
    for image in ("airflow", "pod_template"):
        assert {key: value for key, value in merged["images"][image].items() if value} == {"pullPolicy": "IfNotPresent"}
    assert not merged["config"]["kubernetes_executor"].keys() & {"worker_container_repository", "worker_container_tag"}
    assert "podTemplate" not in merged


@PROFILE
def test_trap_2_the_tasks_may_call_the_api_server(profile: str) -> None:
    merged = values(profile)
    allowed = at(merged, "apiServer.networkPolicy.ingress.from")

    assert merged["networkPolicies"] == {"enabled": True}
    assert {"podSelector": {"matchLabels": {"tier": "airflow", "component": "worker", "release": "airflow"}}} in allowed
    assert {} not in allowed
    assert all(any(selector.get("matchLabels") for selector in each.values()) for each in allowed)


def test_nothing_else_gets_in() -> None:
    namespace, policy = read("namespace.yaml")

    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert policy["metadata"]["namespace"] == namespace["metadata"]["name"] == "airflow"


@PROFILE
def test_trap_3_the_migration_is_a_hook_and_helm_does_not_wait(profile: str) -> None:
    job = values(profile)["migrateDatabaseJob"]
    helm_call = [line for line in (HELM / "deploy.sh").read_text().splitlines() if not line.strip().startswith("#")]

    assert job["enabled"]
    assert job["useHelmHooks"]
    assert not re.search(r"--(wait|atomic|rollback-on-failure)", "\n".join(helm_call))


@PROFILE
def test_trap_4_every_component_has_restricted_contexts(profile: str) -> None:
    merged = values(profile)

    assert RESTRICTED_POD.items() <= at(merged, "securityContexts.pod").items()
    assert at(merged, "securityContexts.pod.runAsUser") == 50000
    assert at(merged, "securityContexts.containers") == RESTRICTED_CONTAINER
    for name in AIRFLOW_COMPONENTS:  # take the global ones
        assert not at(merged, f"{name}.securityContexts")
    for name in OTHER_COMPONENTS:  # also those that are off: somebody may enable them
        assert RESTRICTED_POD.items() <= at(merged, f"{name}.securityContexts.pod").items(), name
        assert at(merged, f"{name}.securityContexts.pod.runAsUser"), name
        assert at(merged, f"{name}.securityContexts.container") == RESTRICTED_CONTAINER, name
    assert at(merged, "pgbouncer.metricsExporterSidecar.securityContexts.container") == RESTRICTED_CONTAINER


@PROFILE
def test_trap_5_the_pod_of_a_task_has_resources(profile: str) -> None:
    """Its restricted contexts, image and volumes are tested on the render, out of the ConfigMap."""
    for path in ("workers.kubernetes", *(["workers.celery"] if "celery" in profile else [])):
        resources = at(values(profile), f"{path}.resources")
        assert {"cpu", "memory", "ephemeral-storage"} == resources["requests"].keys()
        assert {"memory", "ephemeral-storage"} == resources["limits"].keys()


@PROFILE
def test_trap_6_logs_outlive_their_pod(profile: str) -> None:
    merged = values(profile)
    logging = merged["config"]["logging"]

    if logging["remote_logging"] == "True":
        assert logging["remote_base_log_folder"].startswith("s3://")
        assert logging["remote_log_conn_id"] == "aws_default"
    else:
        assert merged["logs"]["persistence"]["enabled"]
        assert merged["logs"]["persistence"]["existingClaim"] == "airflow-data"


@PROFILE
def test_trap_7_there_is_no_default_user_and_the_chart_makes_no_key(profile: str) -> None:
    merged = values(profile)

    assert merged["createUserJob"]["enabled"] is False
    assert "webserver" not in merged
    assert all(merged[key] for key in ("fernetKeySecretName", "apiSecretKeySecretName", "jwtSecretName"))
    if merged["postgresql"]["enabled"]:
        assert merged["postgresql"]["auth"] == {"existingSecret": "airflow-postgresql"}
        assert re.search(r"^    postgresPassword: ~$", (HELM / "values-kind.yaml").read_text(), re.MULTILINE)


@PROFILE
def test_trap_8_a_task_has_no_token_to_make_pods_with(profile: str) -> None:
    merged = values(profile)
    with_token = {
        name
        for name in ("apiServer", "scheduler", "dagProcessor", "triggerer", "statsd", "redis", "migrateDatabaseJob")
        if at(merged, f"{name}.serviceAccount.automountServiceAccountToken") is not False
    }

    assert with_token == {"apiServer", "scheduler"}
    for executor in ("kubernetes", "celery"):
        account = at(merged, f"workers.{executor}.serviceAccount")
        assert account["create"] is True
        assert account["automountServiceAccountToken"] is False
    if merged["executor"] == "CeleryExecutor":
        assert merged["allowPodLaunching"] is False


@PROFILE
def test_trap_9_no_unknown_option_is_ours(profile: str) -> None:
    """The chart's own unknown ones are listed in test_render.py."""
    assert not {"webserver", "elasticsearch_configs"} & values(profile)["config"].keys()


@PROFILE
def test_trap_10_the_root_is_read_only_and_there_is_somewhere_to_write(profile: str) -> None:
    merged = values(profile)

    assert at(merged, "securityContexts.containers.readOnlyRootFilesystem") is True
    assert {"name": "tmp", "mountPath": "/tmp"} in merged["volumeMounts"]
    assert [each["name"] for each in merged["volumes"]] == ["tmp"]
    assert merged["config"]["cosmos"]["cache_dir"].startswith("/tmp/")
    # transform.py reads dbt's results from the temporary copy of the project, where dbt puts them by itself.
    assert not {"DBT_TARGET_PATH", "DBT_LOG_PATH"} & environment(profile).keys()


@PROFILE
def test_our_local_settings_are_not_covered_by_the_chart_s(profile: str) -> None:
    assert "airflowLocalSettings" not in values(profile) or values(profile)["airflowLocalSettings"] is None
    assert re.search(r"^airflowLocalSettings: ~$", (HELM / "values.yaml").read_text(), re.MULTILINE)


@pytest.mark.parametrize("profile", ["prod", "prod-celery"])
def test_production_survives_the_loss_of_a_node(profile: str) -> None:
    for name in ("apiServer", "scheduler", "dagProcessor", "triggerer"):
        assert at(values(profile), f"{name}.replicas") == 2
        assert at(values(profile), f"{name}.podDisruptionBudget") == {"enabled": True, "config": {"maxUnavailable": 1}}


@PROFILE
def test_the_triggerer_is_on(profile: str) -> None:
    """dbt's models are tasks that wait in it."""
    assert at(values(profile), "triggerer.enabled") is True
    assert at(values(profile), "triggerer.replicas") >= 1


@PROFILE
@pytest.mark.parametrize("component", ["apiServer", "scheduler", "dagProcessor", "triggerer"])
def test_every_component_has_probes_and_resources(profile: str, component: str) -> None:
    merged = values(profile)[component]

    assert merged["livenessProbe"]["failureThreshold"] >= 3
    assert {"cpu", "memory"} <= merged["resources"]["requests"].keys()
    assert "memory" in merged["resources"]["limits"]
    assert "cpu" not in merged["resources"]["limits"]
    if component in ("apiServer", "scheduler"):
        probe = merged["startupProbe"]
        assert probe["failureThreshold"] * probe["periodSeconds"] >= 300


def test_the_webhook_has_a_way_in_of_its_own_that_is_not_the_ui_s() -> None:
    (ingress,) = read("webhook-ingress.yaml")
    ui = at(values("prod"), "ingress.apiServer")
    (rule,) = ingress["spec"]["rules"]

    assert ingress["spec"]["ingressClassName"] != ui["ingressClassName"]
    assert rule["host"] not in {host["name"] for host in ui["hosts"]}
    (path,) = rule["http"]["paths"]
    assert (path["path"], path["pathType"]) == ("/data-platform/webhook/github", "Exact"), "nothing else of the server"


def test_the_versions_are_the_ones_of_the_lock_file() -> None:
    (airflow,) = re.findall(r"^apache-airflow==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)

    assert values("base")["airflowVersion"] == airflow
