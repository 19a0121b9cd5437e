"""`POST /webhook/github`: a push to a branch starts a run of the DAG that the settings name for it.

No login of Airflow: the sender proves itself by the HMAC-SHA256 that GitHub computes over the body with the shared
secret (docs.github.com, "Validating webhook deliveries"). The run is started through Airflow's public API, in process,
in the name of a service user, so that Airflow's own permissions, checks and audit log hold.

The run id is made of the signed body, never of a header, which is not signed: a delivery that is sent again, or two
hundred at once, find the same run, also with several API servers, because the metadata database knows one run per id.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Annotated, Any, Literal
from urllib.parse import quote

import httpx
from airflow.api_fastapi.app import get_auth_manager
from fastapi import APIRouter, Header, HTTPException, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from include.elt.settings import Settings, load_settings

LIMIT = 1_000_000
"""Bytes of a body; GitHub's own pushes are far smaller, and it sends at most 25 MB."""

_AT_ONCE = asyncio.Semaphore(2)
"""Runs that a process starts at a time. Each takes threads and connections of the API server, which others need; two
hundred deliveries at once would else leave it without any for half a minute (seen)."""

_TIMEOUT = 60.0
_TOKEN_SECONDS = 60

router = APIRouter(prefix="/webhook", tags=["public"])


class Delivered(BaseModel):
    """What became of a delivery."""

    status: Literal["started", "already started", "ignored", "pong"]
    dag_id: str | None = None
    run_id: str | None = None
    reason: str | None = None


async def read_limited(request: Request, limit: int) -> bytes:
    """The body of a request.

    Raises:
        HTTPException: 413 as soon as it is longer than `limit` bytes, whatever its header says.
    """
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and int(told) > limit:
        raise HTTPException(413, f"at most {limit:,} bytes")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise HTTPException(413, f"at most {limit:,} bytes")
    return bytes(body)


def signed(secret: str, body: bytes, signature: str | None) -> bool:
    """Whether a signature like `sha256=…` is that of the body; takes the same time for every wrong one."""
    wanted = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted.encode(), (signature or "").encode("utf-8", "replace"))


def run_id_of(body: bytes) -> str:
    """The run that a body starts, always the same one."""
    return f"github__{hashlib.sha256(body).hexdigest()[:32]}"


_ANSWERS: dict[int | str, dict[str, Any]] = {
    400: {"description": "No JSON object, or no ref"},
    401: {"description": "The signature is missing or wrong"},
    413: {"description": "The body is too long"},
    503: {"description": "The webhook is not set up, or Airflow could not start the run"},
}


@router.post("/github", status_code=202, responses=_ANSWERS)
async def github(
    request: Request,
    x_hub_signature_256: Annotated[str | None, Header()] = None,
    x_github_event: Annotated[str | None, Header()] = None,
) -> Delivered:
    """A delivery of GitHub: starts the DAG that `WEBHOOK_DAGS` names for the branch."""
    settings = load_settings()
    if settings.webhook_secret is None:
        raise HTTPException(503, "the webhook is off; WEBHOOK_SECRET switches it on")
    body = await read_limited(request, LIMIT)
    if not signed(settings.webhook_secret.get_secret_value(), body, x_hub_signature_256):
        raise HTTPException(401, "the signature is missing or wrong")
    if x_github_event == "ping":
        return Delivered(status="pong")
    push = _push(body)
    if x_github_event != "push":
        return Delivered(status="ignored", reason="not a push")
    if push.get("deleted") is True:
        return Delivered(status="ignored", reason="the branch was deleted")
    branch = push["ref"].removeprefix("refs/heads/")
    dag_id = settings.webhook_branches().get(branch) if branch != push["ref"] else None
    if dag_id is None:
        return Delivered(status="ignored", reason="WEBHOOK_DAGS names no DAG for this ref")
    return await _start(request, settings, dag_id, run_id_of(body), push)


def _push(body: bytes) -> dict[str, Any]:
    """The body of a push.

    Raises:
        HTTPException: 400 for anything else.
    """
    try:
        push = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
    if not isinstance(push, dict) or not isinstance(push.get("ref", ""), str):
        raise HTTPException(400, "the body is not what GitHub sends")
    return {"ref": ""} | push


async def _start(request: Request, settings: Settings, dag_id: str, run_id: str, push: dict[str, Any]) -> Delivered:
    """Start the run through Airflow's public API."""
    token = await run_in_threadpool(_token, settings.webhook_user)
    commit = push.get("after")
    conf = {"webhook": {"ref": push["ref"][:250], "commit": commit[:64] if isinstance(commit, str) else None}}
    transport = httpx.ASGITransport(app=request.scope["airflow"])
    async with (
        _AT_ONCE,
        httpx.AsyncClient(transport=transport, base_url="http://airflow.internal", timeout=_TIMEOUT) as client,
    ):
        answer = await client.post(
            f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns",
            json={"dag_run_id": run_id, "logical_date": None, "conf": conf, "note": "started by a push to GitHub"},
            headers={"Authorization": f"Bearer {token}"},
        )
    if answer.status_code == 409:
        return Delivered(status="already started", dag_id=dag_id, run_id=run_id)
    if answer.is_success:
        return Delivered(status="started", dag_id=dag_id, run_id=run_id)
    reasons = {403: f"{settings.webhook_user} may not trigger {dag_id}", 404: f"there is no DAG {dag_id}"}
    reason = reasons.get(answer.status_code, f"Airflow answered {answer.status_code}")
    raise HTTPException(503, f"the run was not started: {reason}", headers={"Retry-After": "10"})


def _token(name: str) -> str:
    """A token of the service user, for a minute.

    Raises:
        HTTPException: 503 when there is no such user, or the auth manager is one that we do not know.
    """
    manager: Any = get_auth_manager()
    kind = type(manager).__name__
    if kind == "SimpleAuthManager":
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        user: Any = SimpleAuthManagerUser(username=name, role="user")
    elif kind == "FabAuthManager":
        user = manager.security_manager.find_user(username=name)
    else:
        raise HTTPException(503, f"the webhook knows the auth managers Simple and FAB, not {kind}")
    if user is None or not getattr(user, "is_active", True):
        raise HTTPException(503, f"there is no active user {name} (WEBHOOK_USER)")
    return str(manager.generate_jwt(user, expiration_time_in_seconds=_TOKEN_SECONDS))
