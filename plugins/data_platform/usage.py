"""`POST /register` and `POST /track/usage`: who wants to may tell which versions and features are in use.

Off unless `USAGE_TRACKING=true`, and off with `DO_NOT_TRACK=1` all the same. Anonymous: the bodies hold a random id, a
version and the name of a feature, anything else is refused; no address is kept. What comes is counted in Airflow's
metrics (docs/metrics.md), nothing is stored.
"""

from __future__ import annotations

import json
import os
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Header, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.elt import metrics
from include.elt.settings import load_settings
from plugins.data_platform.webhook import read_limited

LIMIT = 4_000
"""Bytes of a body."""

router = APIRouter(tags=["public"])

Body = TypeVar("Body", bound=BaseModel)
Version = Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){1,3}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Registration(_Strict):
    """An installation that says that it exists."""

    installation: str = Field(pattern=r"^[0-9a-f]{32}$", description="32 random hexadecimal digits")
    version: Version


class Usage(_Strict):
    """The use of a feature."""

    installation: str = Field(pattern=r"^[0-9a-f]{32}$", description="32 random hexadecimal digits")
    version: Version
    feature: Literal["run", "page", "webhook", "backfill", "dry_run", "dbt_select"]


_ANSWERS: dict[int | str, dict[str, Any]] = {
    404: {"description": "Usage is not tracked here"},
    413: {"description": "The body is too long"},
    422: {"description": "The body is not as it should be"},
}


def _body(model: type[BaseModel]) -> dict[str, object]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


async def _read(request: Request, model: type[Body]) -> Body | None:
    """The body, or None for a sender who does not want to be counted.

    Raises:
        HTTPException: 404 while it is off, 413 for a body that is too long, 422 for one that is not as it should be.
    """
    if not load_settings().usage_tracking or os.environ.get("DO_NOT_TRACK", "0") not in ("", "0", "false"):
        raise HTTPException(404, "usage is not tracked here")
    body = await read_limited(request, LIMIT)
    try:
        found = model.model_validate(json.loads(body))
    except (ValueError, RecursionError) as error:
        where = (
            [".".join(map(str, each["loc"])) for each in error.errors()] if isinstance(error, ValidationError) else []
        )
        raise HTTPException(422, f"not as it should be: {', '.join(where) or 'not JSON'}") from None
    return None if request.headers.get("dnt") == "1" or request.headers.get("sec-gpc") == "1" else found


@router.post("/register", status_code=204, responses=_ANSWERS, openapi_extra=_body(Registration))
async def register(request: Request, dnt: Annotated[str | None, Header()] = None) -> Response:  # noqa: ARG001
    """Count an installation."""
    if await _read(request, Registration) is not None:
        metrics.count("usage.registrations")
    return Response(status_code=204)


@router.post("/track/usage", status_code=204, responses=_ANSWERS, openapi_extra=_body(Usage))
async def usage(request: Request, dnt: Annotated[str | None, Header()] = None) -> Response:  # noqa: ARG001
    """Count the use of a feature."""
    if (told := await _read(request, Usage)) is not None:
        metrics.count("usage.features", {"feature": told.feature})
    return Response(status_code=204)
