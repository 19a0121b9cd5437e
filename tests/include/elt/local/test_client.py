import json
from collections.abc import Callable

import httpx
import pytest

from include.elt.local.client import ApiError, Client

Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer, calls: list[str] | None = None) -> Client:
    """A client whose server is a function; logging in is done for it."""

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        assert request.headers["Authorization"] == "Bearer t"
        if calls is not None:
            calls.append(f"{request.method} {request.url.raw_path.decode()} {request.content.decode()}".strip())
        return answer(request)

    return Client("http://test", "admin", "pw", httpx.MockTransport(handle))


def test_listings_are_read_to_their_end() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        offset = int(request.url.params["offset"])
        items = [{"n": n} for n in range(offset, min(offset + 100, 250))]
        return httpx.Response(200, json={"items": items, "total_entries": 250})

    assert [item["n"] for item in client(answer).pages("/x", "items")] == list(range(250))


def test_a_refusal_is_told_in_the_apis_words() -> None:
    answer = lambda _: httpx.Response(400, json={"detail": "run_id is taken"})  # noqa: E731
    with pytest.raises(ApiError, match=r"run_id is taken \(HTTP 400\)"):
        client(answer).call("GET", "/x")


def test_an_expired_login_is_renewed() -> None:
    answers = iter([httpx.Response(401), httpx.Response(200, json={"state": "running"})])
    assert client(lambda _: next(answers)).run("d", "r").state() == "running"


def test_what_is_not_there_is_none() -> None:
    nothing = client(lambda _: httpx.Response(404))
    assert nothing.dag("d") is None
    assert nothing.run("d", "r").log("t", 1) == []
    with pytest.raises(ApiError, match="there is no DAG d"):
        nothing.trigger("d", {})


def test_pools_follow_the_settings() -> None:
    calls: list[str] = []
    there = {"pools": [{"name": "default_pool", "slots": 128}, {"name": "b", "slots": 1}, {"name": "c", "slots": 3}]}
    pools = client(lambda _: httpx.Response(200, json=there | {"total_entries": 3}), calls)
    assert pools.ensure_pools({"a": 2, "b": 1, "c": 4}) == [
        "pool a made (2 slots)",
        "pool c changed from 3 to 4 slots",
    ]
    made, changed = calls[1:]
    assert made.startswith("POST /api/v2/pools {")
    assert json.loads(made.split(maxsplit=2)[2])["slots"] == 2
    assert changed.startswith("PATCH /api/v2/pools/c?update_mask=slots")


def test_ids_are_quoted() -> None:
    calls: list[str] = []
    run = client(lambda _: httpx.Response(200, json={"content": []}), calls).run(
        "a/b", "manual__2026-01-01T00:00:00+00:00"
    )
    run.log("g.t", 2)
    assert "/dags/a%2Fb/dagRuns/manual__2026-01-01T00%3A00%3A00%2B00%3A00/taskInstances/g.t/logs/2" in calls[0]


def test_lines_of_a_log_that_are_text_count_too() -> None:
    answer = {"content": ["plain", {"event": "x", "level": "error"}]}
    log = client(lambda _: httpx.Response(200, json=answer)).run("d", "r").log("t", 1)
    assert log == [{"event": "plain"}, {"event": "x", "level": "error"}]


def test_a_server_that_is_not_there_is_not_up() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert not Client("http://test", "a", "b", httpx.MockTransport(refuse)).is_up()
