"""An Airflow connection of type `mssql`: SQL Server and what speaks its protocol."""

from __future__ import annotations

import json
import os
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from include.elt.connections import AirflowConnection
from include.elt.errors import SettingsError

if TYPE_CHECKING:
    import pymssql

ENCRYPT = ("disable", "false", "true", "strict")
INTENTS = ("ReadWrite", "ReadOnly")
_EXTRAS = (
    "encrypt",
    "trust_server_certificate",
    "certificate",
    "hostname_in_certificate",
    "app_name",
    "application_intent",
)
_OTHERS = ("sqlalchemy_scheme",)
"""Extras of Airflow's own hook that say nothing to us."""

_LONGEST = 128
"""Characters of a user, password or database in the protocol."""

_CONNECT_TIMEOUT = 30
"""Seconds."""

_ENVIRONMENT = threading.Lock()
"""Held while FreeTDS is told by an environment variable where its configuration is."""


@dataclass(frozen=True)
class MssqlConnection:
    """Where a SQL Server database is and who asks it.

    Attributes:
        name: id of the Airflow connection, for messages.
        host: name or address of the server.
        port: its TCP port.
        user: who asks.
        password: never shown.
        database: the database; Airflow calls it schema.
        encrypt: `disable` (nothing), `false` (the log-in), `true` (everything) or `strict` (TDS 8: TLS first).
        trust_server_certificate: whether any certificate will do.
        certificate: PEM file of the authority, or of the server itself; '' for the computer's authorities.
        hostname_in_certificate: the name to find there, if it is not the host's; ''.
        app_name: the name that the server's views show.
        application_intent: `ReadOnly` for a readable secondary.
    """

    name: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    encrypt: str
    trust_server_certificate: bool
    certificate: str
    hostname_in_certificate: str
    app_name: str
    application_intent: str

    @classmethod
    def from_airflow(cls, connection: AirflowConnection) -> MssqlConnection:
        """Read an Airflow connection.

        Raises:
            SettingsError: something is missing, is not allowed, or could not travel unharmed.
        """
        extras = connection.extra_dejson
        where = f"the connection {connection.conn_id}"
        needed = {"host": connection.host, "login": connection.login, "schema (the database)": connection.schema}
        missing = [name for name, value in needed.items() if not value]
        if missing:
            raise SettingsError(f"{where} has no {', no '.join(missing)}")
        unknown = [name for name in extras if name not in _EXTRAS + _OTHERS]
        if unknown:
            raise SettingsError(f"{where} has the unknown extra {', '.join(unknown)}; known: {', '.join(_EXTRAS)}")
        if not re.fullmatch(r"[\w.-]+|[0-9a-fA-F:]+", str(connection.host)):
            raise SettingsError(
                f"{where} has host={connection.host!r}; it has to be a name or an address, without port or instance"
                " (an instance is found by its port)"
            )
        texts = {"login": connection.login, "password": connection.password, "schema": connection.schema}
        for name, text in texts.items():
            # The driver of Sling counts a character beyond the first plane as one of two halves and cuts the text.
            if re.search("[\0\U00010000-\U0010ffff]", text or "") or len(text or "") > _LONGEST:
                raise SettingsError(
                    f"{where} has a {name} that SQL Server's protocol or Sling's driver cannot carry: at most"
                    f" {_LONGEST} characters, no emoji or others beyond U+FFFF, no NUL"
                )
        found = cls(
            name=connection.conn_id,
            host=str(connection.host),
            port=connection.port or 1433,
            user=str(connection.login),
            password=connection.password or "",
            database=str(connection.schema),
            encrypt=_choice(where, "encrypt", extras.get("encrypt", "true"), ENCRYPT),
            trust_server_certificate=_choice(
                where, "trust_server_certificate", extras.get("trust_server_certificate", "false"), ("true", "false")
            )
            == "true",
            certificate=str(extras.get("certificate", "")),
            hostname_in_certificate=str(extras.get("hostname_in_certificate", "")),
            app_name=str(extras.get("app_name", "dbx-project")),
            application_intent=_choice(
                where, "application_intent", extras.get("application_intent", INTENTS[0]), INTENTS
            ),
        )
        if found.encrypt == "strict" and found.trust_server_certificate:
            raise SettingsError(f"{where} has encrypt=strict, which does not go with trust_server_certificate")
        if found.certificate and not Path(found.certificate).is_file():
            raise SettingsError(f"{where} has certificate={found.certificate!r}, and there is no such file")
        return found

    def sling(self) -> dict[str, Any]:
        """As the properties of a Sling connection, with the password: for Sling's environment and nothing else.

        A URL whose parameters carry everything: of single properties Sling 1.4.11 makes a URL in which a space of the
        password becomes a plus, a user with an `@` breaks the URL, a database is cut at an `&`, and a password such as
        `$HOME` is taken for the name of a variable.
        """
        parameters = {
            "user id": self.user,
            "password": self.password,
            "database": self.database,
            "encrypt": self.encrypt,
            "TrustServerCertificate": str(self.trust_server_certificate).lower(),
            "certificate": "" if self.trust_server_certificate else self.certificate,
            "hostNameInCertificate": self.hostname_in_certificate,
            "app_name": self.app_name,
            "ApplicationIntent": self.application_intent,
            "dial timeout": str(_CONNECT_TIMEOUT),
        }
        query = "&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in parameters.items() if value
        )
        host = f"[{self.host}]" if ":" in self.host else self.host
        return {"type": "sqlserver", "url": f"sqlserver://{host}:{self.port}?{query}"}

    def connect(self, timeout: int) -> pymssql.Connection:
        """A connection of Airflow's hook, by the same user and with the same demands on TLS as Sling's.

        The hook of this connection itself would hand our extras to a driver that does not know them; and the driver,
        pymssql, can be told what certificate to demand only by FreeTDS' configuration file. One thread at a time opens
        a connection; nobody waits for what is asked through it.

        Args:
            timeout: seconds a statement may take.
        """
        from airflow.providers.microsoft.mssql.hooks.mssql import MsSqlHook
        from airflow.sdk import Connection

        connection = Connection(
            conn_id=self.name,
            conn_type="mssql",
            host=self.host,
            port=self.port,
            login=self.user,
            password=self.password,
            schema=self.database,
            extra=json.dumps(self.driver(timeout)),
        )
        with TemporaryDirectory(prefix="freetds-") as folder, _ENVIRONMENT:
            configuration = Path(folder) / "freetds.conf"
            configuration.write_text("\n".join(self._freetds()) + "\n", encoding="utf-8")
            before = os.environ.get("FREETDSCONF")
            os.environ["FREETDSCONF"] = str(configuration)
            try:
                return MsSqlHook(connection=connection).get_conn()
            finally:
                if before is None:
                    del os.environ["FREETDSCONF"]
                else:
                    os.environ["FREETDSCONF"] = before

    def driver(self, timeout: int) -> dict[str, Any]:
        """As further arguments of `pymssql.connect`."""
        encryption = {"disable": "off", "false": "request", "true": "require"}.get(self.encrypt)
        return {
            "appname": self.app_name,
            "read_only": self.application_intent == "ReadOnly",
            "login_timeout": _CONNECT_TIMEOUT,
            "timeout": timeout,
            "autocommit": True,
            "tds_version": "7.4",
        } | ({"encryption": encryption} if encryption else {})

    def _freetds(self) -> Iterator[str]:
        """Lines of FreeTDS' configuration: what pymssql has no arguments for."""
        yield "[global]"
        if self.encrypt == "strict":
            yield "encryption = strict"
        if self.encrypt != "disable" and not self.trust_server_certificate:
            yield f"ca file = {self.certificate or ssl.get_default_verify_paths().cafile or 'system'}"
            yield "check certificate hostname = yes"
            if self.hostname_in_certificate:
                yield f"certificate hostname = {self.hostname_in_certificate}"


def _choice(where: str, name: str, value: object, allowed: tuple[str, ...]) -> str:
    """One of the allowed values, whatever its case; a JSON boolean is its word."""
    for one in allowed:
        if str(value).lower() == one.lower():
            return one
    raise SettingsError(f"{where} has {name}={value!r}; allowed: {', '.join(allowed)}")
