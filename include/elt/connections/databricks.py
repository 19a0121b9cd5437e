"""An Airflow connection of type `databricks`, as what the loader, the Files API and dbt want of it.

The same connection serves the provider's own hooks and operators. What makes one of these clients do something else
than another, silently, is refused here:

- The field *Schema* is what the provider takes for the `https` of its URLs; it stays empty.
- A `catalog` or `schema` among the extras wins over what an operator asks for; DATABRICKS_CATALOG says it instead.
- A service principal without `service_principal_oauth` would be sent as name and password.
- Without a secret dbt would open a browser, and wait.

Cosmos' own profile mappings are not used: they would look the connection up while a DAG file is parsed, and choose a
token for every connection, one of a service principal included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from include.elt.connections import AirflowConnection
from include.elt.errors import SettingsError

if TYPE_CHECKING:
    from databricks.sdk.config import Config

_TAG = 120
"""Characters of a query tag's value; Databricks allows 128."""

_OTHER_WAYS = (
    "azure_tenant_id",
    "use_azure_managed_identity",
    "use_default_azure_credential",
    "federated_k8s",
    "federated_aws",
    "federated_token_provider",
)
"""Ways of the provider to log in that dbt has no counterpart for, or another one."""


@dataclass(frozen=True)
class Workspace:
    """A SQL warehouse of a workspace, and who we are there.

    Attributes:
        connection: id of the Airflow connection, for messages.
        host: host name, without `https://`.
        http_path: path of the SQL warehouse, with its leading slash.
        client_id: of the service principal; empty with a token.
        client_secret: its OAuth secret.
        token: personal access token; empty with a service principal.
    """

    connection: str
    host: str
    http_path: str
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @classmethod
    def of(cls, connection: AirflowConnection, catalog: str | None = None) -> Workspace:
        """Read a connection.

        Args:
            connection: the connection.
            catalog: what DATABRICKS_CATALOG says, which an extra of that name must not contradict.

        Raises:
            SettingsError: something is missing, or is understood differently by the clients that use it.
        """
        name, extra = connection.conn_id, connection.extra_dejson
        if connection.conn_type != "databricks":
            raise SettingsError(f"the connection {name} has the type {connection.conn_type!r}; 'databricks' is needed")
        host = re.sub(r"^https?://", "", (connection.host or str(extra.get("host") or "")).strip()).rstrip("/")
        if not host or "/" in host:
            raise SettingsError(
                f"the connection {name} has the host {host!r}; the workspace's host name is needed, like"
                " dbc-a1b2c3d4-e5f6.cloud.databricks.com"
            )
        if (connection.schema or "").strip().lower() not in ("", "https"):
            raise SettingsError(
                f"the connection {name} has the schema {connection.schema!r}, which Airflow's provider takes for the"
                " https of its URLs; leave it empty. The schemas are those of the contracts and models"
            )
        for key, wanted in (("catalog", catalog), ("schema", None)):
            if extra.get(key) and extra[key] != wanted:
                raise SettingsError(
                    f"the connection {name} has the extra {key}={extra[key]!r}, which would win over what each task"
                    " asks for; remove it. DATABRICKS_CATALOG names the catalog"
                )
        path = str(extra.get("http_path") or "").strip().strip("/")
        if not path:
            raise SettingsError(
                f"the connection {name} has no extra http_path; the SQL warehouse's page shows it under 'Connection"
                " details', like /sql/1.0/warehouses/1234567890abcdef"
            )
        return cls(name, host, f"/{path}", **_login(connection))

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be printed."""
        return tuple(filter(None, (self.client_secret, self.token)))

    def redacted(self, text: object) -> str:
        """A text in one line without our secrets."""
        line = " ".join(str(text).split())
        for secret in self.secrets:
            line = line.replace(secret, "***")
        return line

    def config(self, **more: Any) -> Config:
        """The configuration of databricks-sdk; it looks neither into the environment nor into files for a login.

        Raises:
            SettingsError: the SDK refuses it.
        """
        from databricks.sdk.config import Config

        login: dict[str, Any] = (
            {"auth_type": "pat", "token": self.token}
            if self.token
            else {"auth_type": "oauth-m2m", "client_id": self.client_id, "client_secret": self.client_secret}
        )
        try:
            return Config(host=f"https://{self.host}", product="dbx-project", **login, **more)
        except ValueError as error:
            raise SettingsError(
                f"the connection {self.connection} to {self.host} is refused: {self.redacted(error)}"
            ) from None

    def dbt_environment(self, tags: Mapping[str, str], timeout: int) -> dict[str, str]:
        """What `databricks` in dbt/profiles.yml reads, secrets included; for the environment of dbt alone.

        dbt hides variables whose names begin with DBT_ENV_SECRET_ in its logs and keeps them out of its files.

        Args:
            tags: query tags of dbt's statements.
            timeout: seconds until the warehouse gives up a statement.
        """
        return {
            "DBT_DATABRICKS_HOST": self.host,
            "DBT_DATABRICKS_HTTP_PATH": self.http_path,
            "DBT_DATABRICKS_CLIENT_ID": self.client_id,
            "DBT_ENV_SECRET_DATABRICKS_CLIENT_SECRET": self.client_secret,
            "DBT_ENV_SECRET_DATABRICKS_TOKEN": self.token,
            "DBT_DATABRICKS_QUERY_TAGS": json.dumps({name: tag(value) for name, value in tags.items()}),
            "DBT_DATABRICKS_STATEMENT_TIMEOUT": str(timeout),
        }


def tag(value: str) -> str:
    """The value of a query tag: short, and without the characters that separate tags."""
    return re.sub(r"[\\,:]", "_", value)[:_TAG]


def _login(connection: AirflowConnection) -> dict[str, str]:
    """The fields of `Workspace` that say who we are."""
    name, extra = connection.conn_id, connection.extra_dejson
    other = [key for key in _OTHER_WAYS if extra.get(key)]
    if other:
        raise SettingsError(
            f"the connection {name} logs in with {', '.join(other)}; here a service principal with an OAuth secret"
            " (service_principal_oauth) or a token is needed"
        )
    login, password = (connection.login or "").strip(), connection.password or ""
    if extra.get("service_principal_oauth"):
        if not login or not password:
            raise SettingsError(
                f"the connection {name} has service_principal_oauth and no {'secret' if login else 'client id'}; the"
                " login is the service principal's client id, the password its OAuth secret"
            )
        return {"client_id": login, "client_secret": password}
    if login and login != "token":
        raise SettingsError(
            f"the connection {name} has the login {login!r}; for a service principal set the extra"
            ' {"service_principal_oauth": true}, for a token leave the login empty'
        )
    token = password or str(extra.get("token") or "")
    if not token:
        raise SettingsError(
            f"the connection {name} has neither a token (its password) nor a service principal (login, password and"
            ' the extra {"service_principal_oauth": true})'
        )
    return {"token": token}
