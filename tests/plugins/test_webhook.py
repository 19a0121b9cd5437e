"""The webhook on a real API server: what GitHub, or somebody who is not GitHub, may send."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.elt.paths import ROOT
from tests.plugins.conftest import Server, serving

pytestmark = pytest.mark.slow

SECRET = "a shared secret of tests"
INSTALLATION = "0123456789abcdef0123456789abcdef"
SETTINGS = {
    "WEBHOOK_SECRET": SECRET,
    "WEBHOOK_DAGS": "main=dag_0,gone=no_such_dag",
    "USAGE_TRACKING": "true",
    "DO_NOT_TRACK": "0",
}


def body(ref: str = "refs/heads/main", commit: str = "1" * 40, **more: Any) -> bytes:
    return json.dumps({"ref": ref, "after": commit, **more}).encode()


def signature(content: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


@pytest.fixture(scope="module")
def hooked(serve: Callable[..., Any]) -> Iterator[Server]:
    """A server with the webhook on; dag_0 is one that Airflow can start."""
    with serve({"streams": 2, "models": 2, "loads": 2, "serialized": True}, prefix="/af", **SETTINGS) as running:
        yield running


@pytest.fixture
def send(hooked: Server) -> Iterator[Callable[..., httpx.Response]]:
    with httpx.Client(base_url=f"{hooked.url}/data-platform", trust_env=False, timeout=120) as client:

        def post(content: bytes, signed: str | None = None, event: str = "push", **headers: str) -> httpx.Response:
            given = {"X-GitHub-Event": event, "Content-Type": "application/json", **headers}
            if signed != "":
                given["X-Hub-Signature-256"] = signature(content) if signed is None else signed
            return client.post("/webhook/github", content=content, headers=given)

        yield post


def runs(hooked: Server) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {hooked.token()}"}
    answer = httpx.get(
        f"{hooked.url}/api/v2/dags/dag_0/dagRuns?limit=1000", headers=headers, trust_env=False, timeout=60
    )
    return [run for run in answer.json()["dag_runs"] if run["dag_run_id"].startswith("github__")]


def test_a_push_starts_one_run_and_a_replay_finds_it(send: Callable[..., httpx.Response], hooked: Server) -> None:
    first = send(body(), **{"X-GitHub-Delivery": "1"})
    again = send(body(), **{"X-GitHub-Delivery": "2"})

    assert (first.status_code, first.json()["status"]) == (202, "started"), first.text
    assert (again.status_code, again.json()["status"]) == (202, "already started")
    assert first.json()["run_id"] == again.json()["run_id"]
    [run] = [run for run in runs(hooked) if run["dag_run_id"] == first.json()["run_id"]]
    assert run["conf"]["webhook"] == {"ref": "refs/heads/main", "commit": "1" * 40}
    assert run["triggering_user_name"] == "webhook"


def test_two_hundred_at_once_are_one_run(send: Callable[..., httpx.Response], hooked: Server) -> None:
    content = body(commit="2" * 40)
    before = len(runs(hooked))

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: send(content), range(200)))

    assert {answer.status_code for answer in answers} <= {202, 503}
    accepted = [answer.json() for answer in answers if answer.status_code == 202]
    assert len({each["run_id"] for each in accepted}) == 1
    assert sum(each["status"] == "started" for each in accepted) == 1
    assert len(runs(hooked)) == before + 1


def test_several_api_servers_are_one(hooked: Server) -> None:
    """No server keeps a state of its own: a delivery to two is one run, a login holds on both, both say the same."""
    content = body(commit="3" * 40)
    headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": signature(content)}
    before = len(runs(hooked))
    with serving(Path(hooked.environment["AIRFLOW_HOME"]), None, "/other", **SETTINGS) as second:
        urls = [f"{each.url}/data-platform" for each in (hooked, second)]

        def deliver(number: int) -> httpx.Response:
            url = f"{urls[number % 2]}/webhook/github"
            return httpx.post(url, content=content, headers=headers, trust_env=False, timeout=120)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(deliver, range(24)))
        login = {"Authorization": f"Bearer {hooked.token()}"}
        states = [httpx.get(f"{url}/api/state", headers=login, trust_env=False, timeout=60).json() for url in urls]

    accepted = [answer.json() for answer in answers if answer.status_code == 202]
    assert {answer.status_code for answer in answers} <= {202, 503}
    assert [each["status"] for each in accepted].count("started") == 1
    assert len({each["run_id"] for each in accepted}) == 1
    assert len(runs(hooked)) == before + 1
    assert states[0]["streams"] == states[1]["streams"]
    assert len(states[0]["streams"]) == 2


@pytest.mark.parametrize(
    ("content", "signed", "status"),
    [
        (body(), "", 401),
        (body(), "sha256=" + "0" * 64, 401),
        (body(), signature(body(), "another secret"), 401),
        (body(commit="9" * 40), signature(body()), 401),
        (body(), signature(body()).upper(), 401),
        (body(), signature(body()).removeprefix("sha256="), 401),
        (body(), "sha256=ä", 401),
        (b"x" * 10_000_000, None, 413),
        (b"this is no JSON", None, 400),
        (b"[1, 2]", None, 400),
        (b'{"ref": 7}', None, 400),
        (b"[" * 100_000, None, 400),
        (b"\xff\xfe", None, 400),
    ],
    ids=[
        *("no signature", "a wrong one", "of another secret", "a tampered body", "in capitals", "without its name"),
        *("not ASCII", "10 MB", "not JSON", "a list", "a ref that is no text", "nested deeply", "not UTF-8"),
    ],
)
def test_what_is_refused(
    send: Callable[..., httpx.Response], hooked: Server, content: bytes, signed: str | None, status: int
) -> None:
    before = len(runs(hooked))
    if signed == "sha256=ä":
        with httpx.Client(trust_env=False, timeout=60) as client:
            headers = [(b"X-Hub-Signature-256", "sha256=ä".encode()), (b"X-GitHub-Event", b"push")]
            answer = client.post(f"{hooked.url}/data-platform/webhook/github", content=content, headers=headers)
    else:
        answer = send(content, signed)

    assert answer.status_code == status
    assert SECRET not in answer.text
    assert len(runs(hooked)) == before


def test_a_long_body_that_hides_its_length_is_refused_as_well(hooked: Server) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    answer = httpx.post(f"{hooked.url}/data-platform/webhook/github", content=parts(), trust_env=False, timeout=60)

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("content", "event", "status"),
    [
        (body(ref="refs/heads/feature"), "push", "ignored"),
        (body(ref="refs/tags/main"), "push", "ignored"),
        (body(ref="main"), "push", "ignored"),
        (body(deleted=True), "push", "ignored"),
        (body(), "issues", "ignored"),
        (b"{}", "ping", "pong"),
    ],
)
def test_what_is_no_push_to_a_listed_branch_starts_nothing(
    send: Callable[..., httpx.Response], hooked: Server, content: bytes, event: str, status: str
) -> None:
    before = len(runs(hooked))

    answer = send(content, event=event)

    assert (answer.status_code, answer.json()["status"]) == (202, status)
    assert len(runs(hooked)) == before


def test_a_dag_that_is_not_there_is_told_to_github(send: Callable[..., httpx.Response]) -> None:
    answer = send(body(ref="refs/heads/gone"))

    assert answer.status_code == 503
    assert "there is no DAG no_such_dag" in answer.text


def test_the_schema_of_what_is_open_to_everyone_is_what_it_does(hooked: Server) -> None:
    """schemathesis sends what the schema allows, and what it does not, to the routes that need no login."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{hooked.url}/data-platform/openapi.json"),
            *("--header", f"Authorization: Bearer {hooked.token()}", "--max-examples", "12", "--seed", "1"),
            *("--phases", "examples,coverage,fuzzing", "--no-color", "--request-timeout", "30"),
            *("--include-path-regex", "^/(webhook|register|track|health)"),
        ],
        cwd=hooked.environment["AIRFLOW_HOME"],
        env=hooked.environment | {"NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


class TestUsage:
    """`/register` and `/track/usage`."""

    def post(self, hooked: Server, path: str, told: Any, **headers: str) -> int:
        answer = httpx.post(
            f"{hooked.url}/data-platform{path}", json=told, headers=headers, trust_env=False, timeout=60
        )
        return answer.status_code

    def test_what_fits_the_schema_is_counted(self, hooked: Server) -> None:
        told = {"installation": INSTALLATION, "version": "1.2.3"}

        assert self.post(hooked, "/register", told) == 204
        assert self.post(hooked, "/track/usage", {**told, "feature": "run"}) == 204
        assert self.post(hooked, "/track/usage", {**told, "feature": "run"}, DNT="1") == 204

    @pytest.mark.parametrize(
        "told",
        [
            {},
            [],
            {"installation": INSTALLATION},
            {"installation": "alice@example.com", "version": "1.2.3"},
            {"installation": INSTALLATION, "version": "1.2.3", "email": "alice@example.com"},
            {"installation": INSTALLATION, "version": 1},
            {"installation": INSTALLATION, "version": "1.2.3; drop table"},
        ],
    )
    def test_anything_else_is_refused_and_not_repeated(self, hooked: Server, told: Any) -> None:
        answer = httpx.post(f"{hooked.url}/data-platform/register", json=told, trust_env=False, timeout=60)

        assert answer.status_code == 422
        assert "alice" not in answer.text

    def test_a_long_body_is_refused(self, hooked: Server) -> None:
        assert self.post(hooked, "/register", {"installation": "0" * 100_000, "version": "1.0"}) == 413

    @pytest.mark.parametrize("settings", [{}, {"USAGE_TRACKING": "true", "DO_NOT_TRACK": "1"}])
    def test_it_is_off_by_default_and_with_do_not_track(self, settings: dict[str, str]) -> None:
        """In a process of its own: the application without a server around it."""
        code = (
            "from starlette.testclient import TestClient\nfrom plugins.data_platform.app import application\n"
            "client = TestClient(application())\n"
            f"told = {{'installation': {INSTALLATION!r}, 'version': '1.2.3', 'feature': 'run'}}\n"
            "print(client.post('/register', json=told).status_code, client.post('/track/usage', json=told).status_code)"
        )
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", "PYTHONPATH": str(ROOT), **settings},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        assert result.stdout.splitlines()[-1:] == ["404 404"], result.stderr[-2000:]
