"""The "Data platform" page in Airflow's user interface: in the navigation, on DAGs, on runs and on the dashboard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

Message = MutableMapping[str, Any]


class LazyApp:
    """The web application, imported at its first request: every Airflow process loads this file, one of them serves."""

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Serve a request (ASGI)."""
        from plugins.data_platform.app import application

        # Airflow's own application, whose public API the webhook calls in process.
        await application()({**scope, "airflow": scope.get("app")}, receive, send)


class DataPlatformPlugin(AirflowPlugin):
    """What Airflow is told. Every address is relative, so that it holds under a path prefix."""

    name = "data_platform"
    fastapi_apps: list[Any] = [{"app": LazyApp(), "url_prefix": "/data-platform", "name": "Data platform"}]
    external_views: list[Any] = [
        {
            "name": "Data",
            "href": "data-platform/",
            "url_route": "data-platform",
            "destination": "nav",
            "nav_top_level": True,
            "icon": "data-platform/static/icon.svg",
            "icon_dark_mode": "data-platform/static/icon-dark.svg",
        },
        {
            "name": "Data platform",
            "href": "data-platform/?dag_id={DAG_ID}",
            "url_route": "data-platform-dag",
            "destination": "dag",
            "icon": "data-platform/static/icon.svg",
            "icon_dark_mode": "data-platform/static/icon-dark.svg",
        },
        {
            "name": "Data platform",
            "href": "data-platform/?dag_id={DAG_ID}&run_id={RUN_ID}",
            "url_route": "data-platform-run",
            "destination": "dag_run",
            "icon": "data-platform/static/icon.svg",
            "icon_dark_mode": "data-platform/static/icon-dark.svg",
        },
    ]
    react_apps: list[Any] = [
        {
            "name": "DataPlatformCard",
            "bundle_url": "data-platform/static/dashboard.js",
            "url_route": "data-platform-card",
            "destination": "dashboard",
        }
    ]
