"""One Airflow connection for the provider, the loader and dbt: what each makes of it, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from include.elt.connections import secrets_of
from include.elt.connections.databricks import Workspace, tag
from include.elt.errors import SettingsError
from include.elt.paths import DBT_PROJECT, ROOT

PATH = "/sql/1.0/warehouses/abc"


def connection(**fields: Any) -> Any:
    """A connection of a service principal, with other fields."""
    extra = {"http_path": PATH, "service_principal_oauth": True} | fields.pop("extra", {})
    given = {
        "conn_id": "databricks_default",
        "conn_type": "databricks",
        "host": "dbc-1.cloud.databricks.com",
        "port": None,
        "login": "client",
        "password": "dose-secret",
        "schema": None,
    }
    return SimpleNamespace(**given | fields, extra_dejson=extra)


def token(**fields: Any) -> Any:
    """The same with a token."""
    extra = {"service_principal_oauth": False} | fields.pop("extra", {})
    return connection(**{"login": None, "password": "dapi-secret"} | fields, extra=extra)


def refused(given: Any, catalog: str | None = "main") -> str:
    with pytest.raises(SettingsError) as caught:
        Workspace.of(given, catalog)
    text = str(caught.value)
    assert "databricks_default" in text
    assert "\n" not in text
    assert "secret" not in text.replace("client secret", "").replace("OAuth secret", "").replace("no secret", "")
    return text


@pytest.mark.parametrize("host", ["dbc-1.cloud.databricks.com", "https://dbc-1.cloud.databricks.com/"])
@pytest.mark.parametrize("path", [PATH, PATH.lstrip("/"), PATH + "/"])
def test_host_and_path_have_one_spelling(host: str, path: str) -> None:
    found = Workspace.of(connection(host=host, extra={"http_path": path}))
    assert (found.host, found.http_path) == ("dbc-1.cloud.databricks.com", PATH)


def test_a_service_principal_is_never_sent_as_a_token() -> None:
    found = Workspace.of(connection())
    assert (found.client_id, found.client_secret, found.token) == ("client", "dose-secret", "")
    environment = found.dbt_environment({}, 60)
    assert environment["DBT_ENV_SECRET_DATABRICKS_TOKEN"] == ""


@pytest.mark.parametrize("given", [token(), token(login="token"), token(password=None, extra={"token": "dapi-secret"})])
def test_a_token_is_one(given: Any) -> None:
    found = Workspace.of(given)
    assert (found.client_id, found.client_secret, found.token) == ("", "", "dapi-secret")


def test_the_environment_of_this_process_does_not_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(_host: str) -> None:
        raise ValueError("there is none")

    monkeypatch.setattr("databricks.sdk.config.get_host_metadata", no_network)
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-other")
    monkeypatch.setenv("DATABRICKS_HOST", "https://other.example")
    config = Workspace.of(token()).config()
    assert (config.auth_type, config.host) == ("pat", "https://dbc-1.cloud.databricks.com")
    assert config.authenticate() == {"Authorization": "Bearer dapi-secret"}


def test_the_schema_is_what_the_provider_takes_for_https() -> None:
    """With `analytics` there the provider asks analytics://host/api/2.0/…"""
    assert "leave it empty" in refused(connection(schema="analytics"))
    assert Workspace.of(connection(schema="https")).host


def test_extras_that_win_over_operators() -> None:
    """The provider's hook puts the extras behind its own arguments, so `catalog` there beats `catalog=` in a task."""
    assert "DATABRICKS_CATALOG" in refused(connection(extra={"catalog": "other"}))
    assert "remove it" in refused(connection(extra={"schema": "marts"}))
    assert Workspace.of(connection(extra={"catalog": "main"}), "main").host


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (connection(conn_type="http"), "'databricks' is needed"),
        (connection(host=None), "host name is needed"),
        (connection(host="dbc-1.cloud.databricks.com/?o=1"), "host name is needed"),
        (connection(extra={"http_path": ""}), "http_path"),
        (connection(password=None), "no secret"),
        (connection(login=""), "no client id"),
        (connection(extra={"service_principal_oauth": False}), "service_principal_oauth"),
        (token(password=None), "neither a token"),
        (connection(extra={"azure_tenant_id": "t"}), "azure_tenant_id"),
        (connection(extra={"federated_k8s": True}), "federated_k8s"),
    ],
)
def test_what_is_missing_or_would_be_misunderstood_is_refused(given: Any, says: str) -> None:
    assert says in refused(given)


def test_secrets_are_not_shown_and_all_of_them_are_masked() -> None:
    for given in (connection(), token(), token(password=None, extra={"token": "dapi-secret"})):
        found = Workspace.of(given)
        assert "secret" not in repr(found).replace("client_secret", "")
        assert set(found.secrets) <= set(secrets_of(given))
        assert found.redacted(f"a\n {found.secrets[0]} b") == "a *** b"


def test_dbt_gets_everything_that_its_profile_asks_for() -> None:
    """And the two agree on the names, so that no value is quietly its default."""
    profile = yaml.safe_load((DBT_PROJECT / "profiles.yml").read_text())["jdbt"]["outputs"]["databricks"]
    environment = Workspace.of(connection()).dbt_environment({"run": "manual__2026-01-01T00:00:00"}, 60)
    text = json.dumps(profile)
    assert all(name in text for name in environment)
    assert json.loads(environment["DBT_DATABRICKS_QUERY_TAGS"]) == {"run": "manual__2026-01-01T00_00_00"}
    assert not {"DATABRICKS_HOST", "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_SECRET"} & set(environment)
    assert all(name.startswith("DBT_ENV_SECRET_") for name, value in environment.items() if "secret" in value)


def test_a_tag_has_no_sign_that_separates_tags() -> None:
    assert tag("a:b,c\\d") == "a_b_c_d"
    assert len(tag("x" * 500)) <= 128


def test_nothing_of_databricks_is_imported_for_duckdb() -> None:
    code = (
        "import sys; from include.elt.settings import load_settings; from include.elt.warehouse import open_warehouse;"
        " from include.elt.lake import open_lake; s = load_settings(warehouse='duckdb');"
        " open_warehouse(s); open_lake(s); import include.elt.tasks; "
        "print([m for m in sys.modules if m.split('.')[0] == 'databricks' or"
        " m.startswith(('include.elt.warehouse.databricks', 'include.elt.connections.databricks'))])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.strip() == "[]", result.stdout + result.stderr
