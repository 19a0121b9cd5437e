"""Where alerts go: Airflow notifiers for Slack, e-mail and a generic webhook, chosen by the setting `ALERTS`.

A notifier of Airflow renders its texts as Jinja templates when it is called. Ours hold values of rows and messages of
servers, so `notify` is called, which renders nothing: `{{ conn.shop.password }}` in a CSV file stays what it is.
"""

from __future__ import annotations

import html
import logging
from typing import Any
from urllib.parse import quote

import httpx
from airflow.sdk import BaseHook
from airflow.sdk.bases.notifier import BaseNotifier

from include.elt.alerts.causes import Alert

log = logging.getLogger(__name__)

TIMEOUT = 15.0
"""Seconds for one message."""


class WebhookNotifier(BaseNotifier):
    """Posts an alert as JSON.

    Args:
        conn_id: connection of type `http`: host (with `https://`), port, and the path in `schema`; a password becomes
            a bearer token.
        body: what is posted.
    """

    def __init__(self, conn_id: str, body: dict[str, Any]) -> None:
        super().__init__()
        self.conn_id = conn_id
        self.body = body

    def notify(self, context: Any) -> None:  # noqa: ARG002  (the signature is Airflow's)
        """Send it.

        Raises:
            httpx.HTTPError: it could not be delivered.
        """
        connection: Any = BaseHook.get_connection(self.conn_id)
        with httpx.Client(transport=httpx.HTTPTransport(retries=2), timeout=TIMEOUT) as client:
            client.post(**self._request(connection)).raise_for_status()

    async def async_notify(self, context: Any) -> None:  # noqa: ARG002
        """Send it from the triggerer.

        Raises:
            httpx.HTTPError: it could not be delivered.
        """
        connection: Any = await BaseHook.aget_connection(self.conn_id)
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=2), timeout=TIMEOUT) as client:
            (await client.post(**self._request(connection))).raise_for_status()

    def _request(self, connection: Any) -> dict[str, Any]:
        host = connection.host or ""
        url = host if "://" in host else f"https://{host}"
        url = f"{url}:{connection.port}" if connection.port else url
        headers = {"Authorization": f"Bearer {connection.password}"} if connection.password else {}
        return {
            "url": f"{url.rstrip('/')}/{(connection.schema or '').lstrip('/')}",
            "json": self.body,
            "headers": headers,
        }


def link_to(alert: Alert) -> str:
    """Address of the task or run that an alert is about."""
    from airflow.sdk.configuration import conf

    base = str(conf.get("api", "base_url", fallback="")).rstrip("/")
    run = f"{base}/dags/{quote(alert.dag_id, safe='')}/runs/{quote(alert.run_id, safe='')}"
    return f"{run}/tasks/{quote(alert.task_id, safe='')}" if alert.task_id else run


def notifiers(alert: Alert, channels: list[tuple[str, str]]) -> list[tuple[str, BaseNotifier]]:
    """A notifier per channel.

    Args:
        alert: the message.
        channels: pairs of `webhook`, `slack` or `email` and its connection or address (`Settings.alert_channels`).
    """
    link = link_to(alert)
    lines = [alert.text, f"Owner: {alert.owner}", f"Run: {alert.run_id}", f"What to do: {alert.what_to_do}"]
    found: list[tuple[str, BaseNotifier]] = []
    for kind, target in channels:
        notifier: BaseNotifier
        if kind == "slack":
            from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

            text = "\n".join(_slack(line) for line in lines)
            notifier = SlackWebhookNotifier(
                slack_webhook_conn_id=target,
                text=f"*{_slack(alert.title)}*\n{text}\n<{link}|Open in Airflow>",
                timeout=15,
            )
        elif kind == "email":
            from airflow.providers.smtp.notifications.smtp import SmtpNotifier

            body = "".join(f"<p>{html.escape(line)}</p>" for line in lines).replace("\n", "<br>")
            body += f'<p><a href="{html.escape(link)}">Open in Airflow</a></p>'
            subject = " ".join(alert.title.split())
            notifier = SmtpNotifier(to=target, subject=subject, html_content=body)
        else:
            notifier = WebhookNotifier(target, alert.as_dict(link))
        found.append((kind, notifier))
    return found


def _slack(text: str) -> str:
    """Text that Slack shows as it is; no channel is called by a value that reads `<!channel>`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
