"""Airflow connections as what Sling and the database drivers want: one module per connection type.

Credentials are looked up when a task runs, travel in memory and through the environment of the Sling process, and are
never written down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol


class AirflowConnection(Protocol):
    """What is read of an Airflow connection."""

    conn_id: str
    conn_type: str
    host: str | None
    port: int | None
    login: str | None
    password: str | None
    schema: str | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The connection's extra fields."""


_SECRET_WORDS = ("secret", "token", "password", "passphrase", "private_key", "credential")


def secrets_of(connection: AirflowConnection) -> Iterator[str]:
    """What of a connection must never be printed: its password, and what its extra fields name like a secret."""
    if connection.password:
        yield connection.password
    yield from _secrets(connection.extra_dejson, hidden=False)


def _secrets(value: Any, *, hidden: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _secrets(each, hidden=hidden or any(word in str(name).lower() for word in _SECRET_WORDS))
    elif isinstance(value, list):
        for each in value:
            yield from _secrets(each, hidden=hidden)
    elif isinstance(value, str) and value and hidden:
        yield value
