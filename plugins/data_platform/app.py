"""The web application: the page, its API, and what is open to everyone."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from sqlalchemy import text
from starlette.middleware.base import RequestResponseEndpoint

from plugins.data_platform import dbtdocs, reading, usage, webhook
from plugins.data_platform.access import LOGIN, Asked
from plugins.data_platform.answers import (
    CompletenessOfAll,
    Health,
    Lineage,
    Loads,
    Models,
    Overview,
    Problems,
    State,
    Streams,
)

STATIC = Path(__file__).with_name("static")

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ERRORS: dict[int | str, dict[str, object]] = {401: {"description": "No login"}, 403: {"description": "No permission"}}

api = APIRouter(prefix="/api", dependencies=LOGIN, responses=_ERRORS, tags=["data"])
page = APIRouter(dependencies=LOGIN, responses=_ERRORS, tags=["page"])
public = APIRouter(tags=["public"])


@api.get("/overview")
def overview(asked: Asked) -> Overview:
    """How the platform is, in a few figures."""
    return reading.overview(asked)


@api.get("/problems")
def problems(asked: Asked) -> Problems:
    """What is wrong now, the worst first: since when, whose it is, what it holds up and what to do."""
    return reading.problems(asked)


@api.get("/state")
def state(asked: Asked) -> State:
    """All that the page shows, in one answer."""
    return reading.state(asked)


@api.get("/streams")
def streams(asked: Asked) -> Streams:
    """Every stream: its last load, its last task, how fresh it is, its last 20 loads. Of one DAG or run, if given."""
    return reading.streams(asked)


@api.get("/loads")
def loads(asked: Asked, table: Annotated[str, Query(min_length=1, max_length=250, pattern=r"^[^\x00]*$")]) -> Loads:
    """The last 20 loads of one raw table, e.g. `raw.raw_orders`."""
    return reading.loads(asked, table)


@api.get("/models")
def models(asked: Asked) -> Models:
    """Every model, snapshot and seed, and every source with tests, as dbt left it. Of one DAG or run, if given."""
    return reading.models(asked)


@api.get("/completeness")
def completeness(asked: Asked) -> CompletenessOfAll:
    """Rows of every raw table and mart beside what is usual, as `health_report` counts them. Of one DAG, if given."""
    return reading.completeness(asked)


@api.get("/lineage")
def lineage(
    asked: Asked,
    node: Annotated[str | None, Query(max_length=500, description="Id of a node of dbt, or a raw table")] = None,
    depth: Annotated[int, Query(ge=1, le=50, description="Steps from that node")] = 3,
) -> Lineage:
    """The graph from sources over models to exposures; with `node`, what lies around it."""
    return reading.lineage(asked, node, depth)


@page.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> JSONResponse:
    """The schema of this API."""
    app: FastAPI = request.app
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schema["servers"] = [{"url": request.url.path.removesuffix("/openapi.json")}]
    return JSONResponse(schema)


@page.get("/", include_in_schema=False)
def index() -> FileResponse:
    """The page; it holds no data."""
    return FileResponse(STATIC / "index.html")


@page.get("/dbt-docs", include_in_schema=False)
def dbt_docs() -> Response:
    """The project's documentation, as dbt shows it."""
    text = dbtdocs.page()
    if text is None:
        raise HTTPException(
            404, "the dbt project was not parsed; `make manifest` does it, and so does the image's build"
        )
    return HTMLResponse(text, headers={"Content-Security-Policy": dbtdocs.POLICY})


@page.get("/static/{name}", include_in_schema=False)
def static(name: str) -> FileResponse:
    """A file of the page."""
    file = STATIC / name
    if name not in {each.name for each in STATIC.iterdir()}:
        raise HTTPException(404, "there is no such file")
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    return FileResponse(file, media_type=kinds.get(file.suffix))


@public.get("/health")
def health(session: SessionDep) -> Health:
    """Whether page and metadata database answer."""
    session.execute(text("SELECT 1"))
    return Health()


@cache
def application() -> FastAPI:
    """The application, made once per process."""
    app = FastAPI(
        title="Data platform",
        version="1",
        description="What the streams and models of this platform did last, for people and programs.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )

    @app.middleware("http")
    async def headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    for router in (api, page, public, webhook.router, usage.router):
        app.include_router(router)
    return app
