"""What the API answers: the types of its JSON, which are its OpenAPI schema."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, Field

StreamStatus = Literal[
    "ok", "rejected", "failed", "running", "retrying", "needs approval", "skipped", "not run", "never loaded"
]
Freshness = Literal["fresh", "late", "stale", "unknown"]
Verdict = Literal["match", "within tolerance", "differs", "not counted"]
NodeStatus = Literal["ok", "warn", "failed", "skipped", "not run", "unknown"]


class Load(BaseModel):
    """One committed load of a stream."""

    at: datetime
    run_id: str | None = None
    rows: int | None = Field(None, description="Rows that came into the raw table")
    rejected: int | None = None
    bytes: int | None = None
    seconds: float | None = Field(None, description="Extraction and load together")


class Stream(BaseModel):
    """One stream with its last load, its last task and how fresh it is."""

    table: str = Field(description="Raw table, also the name of the asset")
    stream: str
    replication: str | None = None
    owner: str | None = None
    dag_id: str
    load_task: str
    extract_task: str
    run_id: str | None = Field(None, description="Run that `status` is about")
    status: StreamStatus
    problem: str | None = Field(None, description="Why it failed")
    problem_kind: str | None = Field(None, description="What kind of failure it is")
    failed_task: str | None = None
    loaded_at: datetime | None = Field(None, description="Commit of the last load")
    loaded_by: str | None = Field(None, description="Run of the last load")
    mode: str | None = None
    rows: int | None = None
    rows_read: int | None = None
    rows_total: int | None = None
    rows_inserted: int | None = None
    rows_updated: int | None = None
    rows_deleted: int | None = None
    rows_duplicate: int | None = None
    rejected: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    rows_per_second: float | None = None
    watermark: str | None = None
    schema_hash: str | None = None
    schema_change: str | None = None
    source_rows: int | None = Field(None, description="Rows of the whole source, where they were counted")
    tolerated: int | None = Field(None, description="Rows by which source and raw table may differ")
    difference: int | None = Field(None, description="Rows of the raw table and rejected ones, minus the source's")
    verdict: Verdict = Field("not counted", description="Source against raw table")
    late_after: int | None = Field(None, description="Seconds after a load when the stream is late")
    stale_after: int | None = Field(None, description="Seconds after a load when it is stale")
    freshness: Freshness
    history: list[int | None] = Field(description="Rows of up to 20 last loads, the newest first")
    totals: list[int | None] = Field(description="Rows of the table after each of them")
    rows_usual: int | None = Field(None, description="Median of the rows of the table on the days, or loads, before")
    unusual: str | None = Field(None, description="How the table grew or shrank unusually, or that it is gone")


class FailedTest(BaseModel):
    """A test of dbt that did not pass."""

    name: str
    status: str
    failures: int | None = None
    message: str | None = None


class Node(BaseModel):
    """A source, model, snapshot, seed or exposure of the dbt project."""

    id: str
    type: str
    name: str
    dag_id: str
    run_id: str | None = Field(None, description="Run in which it was built last")
    task_id: str | None = Field(None, description="Its task in Airflow")
    built_at: datetime | None = Field(None, description="When it was built last; of one that is skipped, before that")
    status: NodeStatus
    seconds: float | None = None
    rows: int | None = None
    message: str | None = None
    tests: dict[str, int] = Field(default_factory=dict, description="Tests by status")
    failed_tests: list[FailedTest] = Field(default_factory=list)
    failing_since: datetime | None = Field(
        None, description="Begin of the first of the runs in which it has failed ever since; at most 12 runs back"
    )
    trend: list[float | None] = Field(default_factory=list, description="Seconds in the last runs, the newest first")
    depends_on: list[str] = Field(default_factory=list)
    owner: str | None = None
    description: str | None = None
    relation: str | None = None
    layer: str | None = None
    materialized: str | None = None
    tags: list[str] = Field(default_factory=list)
    late_after: int | None = None
    freshness: Freshness = "unknown"
    url: str | None = None


class Completeness(BaseModel):
    """How many rows a raw table or mart has, beside what it uses to have."""

    table: str
    target: str = Field(description="Raw table, or id of the node of dbt")
    dag_id: str
    owner: str | None = None
    rows: int | None = Field(None, description="Its rows: as counted, or after a later load; null for one that is gone")
    rows_usual: int | None = Field(None, description="Median of its rows before")
    unusual: str | None = Field(None, description="How it grew or shrank unusually, or that it is gone")
    before: list[int] = Field(description="Its rows on up to 20 days before, or after its loads before; newest first")
    counted_at: datetime | None = Field(None, description="When health_report counted it; null if it never did")
    updated_at: datetime | None = Field(None, description="When it was loaded or built last")


class Run(BaseModel):
    """The latest run of a DAG."""

    dag_id: str
    run_id: str
    state: str
    started_at: datetime | None = None
    ended_at: datetime | None = None


class Problem(BaseModel):
    """One thing that is wrong now: a cause, not its consequences."""

    severity: Literal["failed", "warning"]
    kind: str = Field(description="As in an alert, e.g. `failed stream`; or `needs approval`, `unusual size`")
    subject: str = Field(description="Stream, model or DAG")
    target: str | None = Field(None, description="Raw table, or id of the node of dbt")
    dag_id: str
    run_id: str | None = None
    task_id: str | None = Field(None, description="Task whose log says more")
    owner: str | None = None
    since: datetime | None = Field(None, description="When it went wrong; null if it was never right")
    text: str = Field(description="What happened")
    what_to_do: str
    holds_up: list[str] = Field(
        default_factory=list, description="Up to 20 names of models and exposures after it, exposures first"
    )
    held_up: int = Field(0, description="How many there are")
    silenced_until: date | None = Field(None, description="Last day on which its alerts are silenced")


class Problems(BaseModel):
    """Answer of `/api/problems`: what is wrong, the worst first."""

    now: datetime
    total: int
    problems: list[Problem]


class Streams(BaseModel):
    """Answer of `/api/streams`."""

    now: datetime
    total: int
    streams: list[Stream]
    runs: list[Run]


class Loads(BaseModel):
    """Answer of `/api/loads`: up to 20 last loads of one raw table, the newest first."""

    now: datetime
    total: int
    loads: list[Load]


class Models(BaseModel):
    """Answer of `/api/models`: models, snapshots and seeds, and the sources that have tests."""

    now: datetime
    total: int
    models: list[Node]


class Lineage(BaseModel):
    """Answer of `/api/lineage`: nodes whose `depends_on` are the edges."""

    now: datetime
    total: int
    nodes: list[Node]


class CompletenessOfAll(BaseModel):
    """Answer of `/api/completeness`: raw tables, and the marts that were counted."""

    now: datetime
    total: int
    tables: list[Completeness]


class State(BaseModel):
    """Answer of `/api/state`: all that the page shows, read once."""

    now: datetime
    streams: list[Stream]
    nodes: list[Node]
    completeness: list[Completeness]
    runs: list[Run]
    problems: list[Problem]


class Overview(BaseModel):
    """Answer of `/api/overview`: the figures of the page's head and of the dashboard's card."""

    now: datetime
    problems: int = Field(description="Things that are wrong")
    streams: int
    streams_failed: int
    streams_late: int
    rows_rejected: int
    rows_last_loads: int
    models: int
    models_failed: int
    tests: int
    tests_failed: int
    runs: list[Run]


class Health(BaseModel):
    """Answer of `/health`."""

    status: Literal["ok"] = "ok"
