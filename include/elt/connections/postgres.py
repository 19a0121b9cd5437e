"""An Airflow connection of type `postgres`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from include.elt.connections import AirflowConnection
from include.elt.errors import SettingsError

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True)
class PostgresConnection:
    """Where a PostgreSQL database is and who asks it.

    Attributes:
        name: id of the Airflow connection, for messages.
        host: name or address of the server.
        port: its TCP port.
        user: who asks.
        password: never shown.
        database: the database; Airflow calls it schema.
        sslmode: as in libpq.
    """

    name: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    sslmode: str

    @classmethod
    def from_airflow(cls, connection: AirflowConnection) -> PostgresConnection:
        """Read an Airflow connection.

        Raises:
            SettingsError: it lacks a host, a login or a database, or its sslmode is not one of libpq's.
        """
        needed = {"host": connection.host, "login": connection.login, "schema (the database)": connection.schema}
        missing = [name for name, value in needed.items() if not value]
        if missing:
            raise SettingsError(f"the connection {connection.conn_id} has no {', no '.join(missing)}")
        sslmode = str(connection.extra_dejson.get("sslmode", "prefer"))
        if sslmode not in SSL_MODES:
            raise SettingsError(
                f"the connection {connection.conn_id} has sslmode={sslmode!r}; allowed: {', '.join(SSL_MODES)}"
            )
        return cls(
            name=connection.conn_id,
            host=str(connection.host),
            port=connection.port or 5432,
            user=str(connection.login),
            password=connection.password or "",
            database=str(connection.schema),
            sslmode=sslmode,
        )

    def sling(self) -> dict[str, Any]:
        """As the properties of a Sling connection, without the password.

        Sling 1.4.11 makes a URL of them in which a space in a password becomes a plus; its driver reads `PGPASSWORD`
        as it is.
        """
        return {
            "type": "postgres",
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "database": self.database,
            "sslmode": self.sslmode,
        }

    def variables(self) -> dict[str, str]:
        """What Sling's driver reads from the environment."""
        return {"PGPASSWORD": self.password}

    def driver(self) -> dict[str, Any]:
        """As arguments of `psycopg.connect`."""
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
            "sslmode": self.sslmode,
        }
