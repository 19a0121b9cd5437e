"""Airflow connections as what Sling and the database drivers want: one module per connection type.

Credentials are looked up when a task runs, travel in memory and through the environment of the Sling process, and are
never written down.
"""

from __future__ import annotations

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
