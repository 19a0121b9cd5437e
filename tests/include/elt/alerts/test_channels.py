"""What arrives at the other end of a channel: a generic webhook, Slack's, a mail server."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from include.elt.alerts import run as sending
from include.elt.alerts.causes import Alert
from include.elt.local.environment import free_port
from tests.support.receiver import Receiver, receiving

EVIL = "{{ conn.alerts.password }} <!channel> {{ 7 * 7 }}"
ALERT = Alert(
    "failed stream", "raw_orders", "jaffle_shop", "manual__2026-01-01", "sales", EVIL, "shop.raw_orders.extract"
)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as running:
        connection = {"conn_type": "http", "host": running.url, "schema": "hook", "password": "tok/en"}
        slack = {"conn_type": "slackwebhook", "host": running.url, "password": "T0/B0/token"}
        monkeypatch.setenv("AIRFLOW_CONN_ALERTS", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW_CONN_CHAT", json.dumps(slack))
        monkeypatch.setenv("AIRFLOW_CONN_GONE", json.dumps({**connection, "host": "http://127.0.0.1:1"}))
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/team")
        yield running


def test_the_webhook_gets_everything_that_a_person_needs(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERTS", "webhook:alerts")

    assert sending.send([ALERT]) == 1

    [body] = receiver.bodies
    assert body["title"] == "failed stream: raw_orders (jaffle_shop)"
    assert body["owner"] == "sales"
    assert body["what_to_do"]
    assert body["link"] == (
        "https://airflow.example/team/dags/jaffle_shop/runs/manual__2026-01-01/tasks/shop.raw_orders.extract"
    )
    assert receiver.headers[0]["authorization"] == "Bearer tok/en"


def test_text_of_data_is_never_rendered_as_a_template(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value in a CSV file could else ask for a password, or call everybody in a channel."""
    monkeypatch.setenv("ALERTS", "webhook:alerts,slack:chat")

    sending.send([ALERT])

    by_text = {"slack" if "text" in body and "title" not in body else "webhook": body for body in receiver.bodies}
    assert by_text["webhook"]["text"] == EVIL
    assert "{{ 7 * 7 }}" in by_text["slack"]["text"]
    assert "&lt;!channel&gt;" in by_text["slack"]["text"]
    assert "tok/en" not in json.dumps(receiver.bodies)


def test_a_channel_that_does_not_work_keeps_no_other_from_working(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ALERTS", "webhook:gone,webhook:no_such_connection,webhook:alerts")

    assert sending.send([ALERT]) == 1

    assert len(receiver.bodies) == 1
    assert caplog.text.count("alert not sent through webhook") == 2
    assert "tok/en" not in caplog.text


def test_an_alert_that_cannot_be_sent_raises_nothing(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERTS", "webhook:alerts")
    receiver.status = 500

    assert sending.send([ALERT]) == 0


def test_the_triggerer_sends_without_blocking(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERTS", "webhook:alerts")
    run = {"dag_id": "jaffle_shop", "dag_run_id": "manual__1", "state": "running"}

    asyncio.run(sending.tell_missed_deadline(90, context={"dag_run": run}))

    [body] = receiver.bodies
    assert (body["kind"], body["subject"]) == ("missed deadline", "jaffle_shop")
    assert "within 90 seconds" in body["text"]


def test_a_silenced_alert_is_not_sent(receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from include.elt.alerts import silences

    file = tmp_path / "silences.yaml"
    file.write_text("- {until: 9999-12-31, reason: of a test, subject: raw_orders}\n")
    monkeypatch.setattr(sending, "read_silences", lambda: silences.read_silences(file))
    monkeypatch.setenv("ALERTS", "webhook:alerts")

    assert sending.send([ALERT, Alert(**{**vars(ALERT), "subject": "raw_users"})]) == 1

    assert [body["subject"] for body in receiver.bodies] == ["raw_users"]


def test_a_mail_arrives_at_a_mail_server(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: list[Any] = []

    class Inbox:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  (aiosmtpd's name)
            arrived.append(envelope)
            return "250 taken"

    controller = Controller(Inbox(), hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        options = {"disable_tls": True, "disable_ssl": True, "from_email": "airflow@example.com", "timeout": 10}
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": controller.port, "extra": options}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        monkeypatch.setenv("ALERTS", "email:data@example.com")

        assert sending.send([ALERT]) == 1
    finally:
        controller.stop()

    [envelope] = arrived
    mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
    body = mail.get_body(("html",))
    assert body is not None
    assert (envelope.mail_from, envelope.rcpt_tos) == ("airflow@example.com", ["data@example.com"])
    assert mail["Subject"] == "failed stream: raw_orders (jaffle_shop)"
    assert "{{ 7 * 7 }}" in body.get_content(), "as it was, and no 49"
    assert "Owner: sales" in body.get_content()


def test_a_mail_has_a_subject_of_one_line_and_no_markup_of_data(monkeypatch: pytest.MonkeyPatch) -> None:
    from include.elt.alerts.channels import notifiers

    alert = Alert(**{**vars(ALERT), "subject": "a\nBcc: all@example.com", "text": "<script>1</script>"})

    [(kind, mail)] = notifiers(alert, [("email", "data@example.com")])

    told: Any = mail
    assert (kind, told.to) == ("email", "data@example.com")
    assert "\n" not in told.subject
    assert "&lt;script&gt;" in told.html_content
