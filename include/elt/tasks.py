"""Airflow tasks of the way into the raw tables: one extract and one load per stream."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any, NoReturn, cast
from urllib.parse import quote, quote_plus

from airflow.sdk import Asset, BaseOperator, Connection, Context, Param, TaskGroup
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    TaskAwaitingInput,
)
from airflow.sdk.execution_time.hitl import upsert_hitl_detail
from airflow.sdk.log import mask_secret, redact  # type: ignore[attr-defined]

from include.elt import metrics
from include.elt.alerts.deadlines import Promise, keep_fresh, wanted
from include.elt.connections import AirflowConnection, secrets_of
from include.elt.contract import read_contracts
from include.elt.errors import EltError, LakeError, SchemaChangeError, SettingsError
from include.elt.extract import Extraction
from include.elt.lake import open_lake
from include.elt.logs import tell
from include.elt.modes import Span, plan
from include.elt.replication import Meta, Replication, Stream, check_against
from include.elt.settings import EXTRACT_POOL, WAREHOUSE_POOL, Settings
from include.elt.sources import open_source
from include.elt.warehouse import LoadResult, TableState, open_warehouse

log = logging.getLogger(__name__)

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "data-platform",
    "retries": 2,
    "retry_delay": timedelta(seconds=20),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}
"""Airflow's `default_args` of every DAG; an error that another try cannot mend fails at once all the same."""

PROBLEM = "problem"
"""XCom of a task that failed: `kind` and `text`, without secrets. Airflow removes it when the task is tried again."""

_PROBLEM_LENGTH = 2000

_EFFECTS = {
    "full-refresh": "would be replaced: {1:,} rows by {0:,}",
    "incremental": "would get {0:,} rows merged into its {1:,}",
    "backfill": "would get {0:,} rows merged into its {1:,}",
    "snapshot": "would get {0:,} rows in addition to its {1:,}",
}
"""What a load would do, by mode; for a dry run."""

_APPROVE = "Approve"
_ANSWER_WITHIN = timedelta(days=3)
"""Time for the answer to `on_schema_change: ask`; the DAG's own timeout may be shorter."""

MARGIN = timedelta(minutes=5)
"""Time that Airflow grants beyond our own timeouts, which end a task with a better message."""


def raw_asset(table: str) -> Asset:
    """The asset of a raw table or mart, the same in every environment, e.g. `raw.raw_orders`."""
    return Asset(name=table, uri=f"elt://warehouse/{table.replace('.', '/')}", group="warehouse")


def pipeline_params(replication: Replication) -> dict[str, Param]:
    """The form that the UI shows before a run is triggered by hand.

    Args:
        replication: its streams are offered for choice.
    """
    streams = [stream.id for stream in replication.streams]
    ranged = [stream.id for stream in replication.streams if stream.has_ranges]
    return {
        "streams": Param(
            streams,
            type="array",
            title="Streams",
            description="Streams to extract and load. Models are built from what the other raw tables hold already.",
            items={"type": "string", "enum": streams},
            examples=streams,
            uniqueItems=True,
        ),
        "full_refresh": Param(
            False,
            type="boolean",
            title="Full refresh",
            description="Read every stream whole and replace its raw table (a snapshot is added, as ever), and rebuild"
            " incremental dbt models from all rows (`dbt build --full-refresh`).",
        ),
        "dbt_select": Param(
            None,
            type=["null", "string"],
            title="dbt models",
            description="Models to build, in dbt's selection syntax, e.g. `+orders` or `tag:mart`. Empty: all.",
        ),
        "dbt_exclude": Param(
            None,
            type=["null", "string"],
            title="dbt models to leave out",
            description="Models not to build, in the same syntax.",
        ),
        "dbt_vars": Param(
            {},
            type="object",
            title="dbt vars",
            description="Variables of the dbt project, as `dbt build --vars` takes them. dbt then parses it anew.",
        ),
        "event_time_start": Param(
            None,
            type=["null", "string"],
            title="Event time from",
            description="First event time that microbatch models build, e.g. `2026-01-01`"
            " (`dbt build --event-time-start`).",
        ),
        "event_time_end": Param(
            None,
            type=["null", "string"],
            title="Event time to",
            description="End of the event time that microbatch models build, not in it itself"
            " (`dbt build --event-time-end`).",
        ),
        **(
            {
                "range_start": Param(
                    None,
                    type=["null", "string"],
                    title="From",
                    description="Read a range of the update key again, and merge it: its first value, e.g."
                    f" `2026-01-01`. For {', '.join(ranged)}; the other streams are read as ever.",
                ),
                "range_end": Param(
                    None,
                    type=["null", "string"],
                    title="To",
                    description="The last value of the range, e.g. `2026-01-31`, which is in it as a whole.",
                ),
            }
            if ranged
            else {}
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Read and check every stream and say what would be loaded. Changes nothing.",
        ),
    }


@contextmanager
def airflow_errors(context: Context) -> Iterator[None]:
    """Fail at once where another try cannot help; let Airflow try again where it can. The page shows the reason.

    Args:
        context: Airflow's, of the task.

    Raises:
        EltError: the error, if trying again may help.
        AirflowFailException: the same, if it may not.
    """
    try:
        yield
    except EltError as error:
        text = str(redact(str(error)))[:_PROBLEM_LENGTH]
        context["ti"].xcom_push(key=PROBLEM, value={"kind": error.kind, "text": text})
        if isinstance(context["task"], ExtractOperator | LoadOperator):
            tags = _stream_tags(context)
            metrics.count("stream.failures", tags)
            tell("failed", **tags, run_id=context["run_id"], kind=error.kind, text=text)
        if not error.final:
            raise
        raise AirflowFailException(str(error)) from None  # the message says it all; a cause would repeat it


def look_up(name: str) -> AirflowConnection:
    """An Airflow connection; its secrets are masked in the task's log from here on, as they are and percent-encoded.

    Args:
        name: its id.

    Raises:
        SettingsError: there is none of that id.
    """
    try:
        connection = Connection.get(name)
    except AirflowNotFoundException:
        raise SettingsError(
            f"there is no Airflow connection {name}; make one, or set AIRFLOW_CONN_{name.upper()}"
        ) from None
    found = cast("AirflowConnection", connection)
    for secret in secrets_of(found):
        for spelling in (secret, quote(secret, safe=""), quote_plus(secret)):
            mask_secret(spelling)
    return found


def query_tags(context: Context) -> dict[str, str]:
    """What a warehouse is told of the task that asks it, so that cost can be told apart by it."""
    ti = context["ti"]
    return {"dag": ti.dag_id, "task": ti.task_id, "run": str(context["run_id"])}


def dbt_environment(settings: Settings, context: Context) -> dict[str, str]:
    """The environment of dbt in a task; with Databricks it holds secrets, so it is never a template field of a task.

    Raises:
        AirflowFailException: the connection is missing or says something that is not understood.
    """
    environment = settings.dbt_environment()
    if settings.warehouse == "databricks":
        from include.elt.connections.databricks import Workspace

        with airflow_errors(context):
            workspace = Workspace.of(look_up(settings.databricks_connection), settings.databricks_catalog)
        tags = {"project": "jdbt", **query_tags(context)}
        environment |= workspace.dbt_environment(tags, settings.dbt_timeout)
    return environment


def _span(context: Context) -> Span:
    """What a run asks for: its form, its data interval, whether it is one of a backfill."""
    params, run = context["params"], context["dag_run"]
    first, last = params.get("range_start"), params.get("range_end")
    if bool(first) != bool(last):
        raise SettingsError("the range of the run's form has one end only; give range_start and range_end")
    start, end = run.data_interval_start, run.data_interval_end
    return Span(
        range=(str(first), str(last)) if first else None,
        interval=(start, end) if start and end else None,
        is_backfill=run.run_type == "backfill",
        full_refresh=params["full_refresh"],
    )


class ExtractOperator(BaseOperator):
    """Extract one stream into the lake. Returns the location of the extraction and its counts.

    Args:
        replication: the replication.
        stream: the stream of it.
        settings: settings of the deployment.
        kwargs: Airflow's own.
    """

    ui_color = "#d9ead3"

    def __init__(self, *, replication: Replication, stream: Stream, settings: Settings, **kwargs: Any) -> None:
        super().__init__(
            pool=EXTRACT_POOL,
            execution_timeout=timedelta(seconds=settings.extract_timeout) + MARGIN,
            **kwargs,
        )
        self.replication = replication
        self.stream = stream
        self.settings = settings
        self._extraction: Extraction | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Extract, or skip a stream that the run's form leaves out."""
        params = context["params"]
        if self.stream.id not in params["streams"]:
            raise AirflowSkipException(f"stream {self.stream.id} is not among the chosen streams")
        with airflow_errors(context):
            span = _span(context)
            if span.is_backfill and not self.stream.has_ranges:
                raise AirflowSkipException(
                    f"stream {self.stream.id} is left out of a backfill: {self.stream.mode} reads what there is now"
                )
            contracts = read_contracts()
            check_against(self.replication, contracts)
            contract = contracts[self.stream.table]
            reading = plan(self.stream, contract, span, lambda: self._state(context))
            source = open_source(self.replication, self.stream, contract, self.settings, look_up)
            lake = open_lake(self.settings, look_up)
            self._extraction = Extraction(self.replication, self.stream, contract, self.settings, source, lake)
            manifest, location = self._extraction.run(context["run_id"], reading, dry_run=params["dry_run"])
        tell(
            "extracted",
            **_stream_tags(context),
            run_id=context["run_id"],
            mode=manifest.mode,
            rows=manifest.rows,
            rejected=manifest.rows_rejected,
            seconds=manifest.seconds,
        )
        return {
            "location": location,
            "mode": manifest.mode,
            "rows": manifest.rows,
            "rejected": manifest.rows_rejected,
        }

    def _state(self, context: Context) -> TableState | None:
        warehouse = open_warehouse(self.settings, look_up, query_tags(context))
        return warehouse.state(self.stream.table, self.stream.update_key)

    def on_kill(self) -> None:
        """End Sling when the task is stopped."""
        if self._extraction is not None:
            self._extraction.kill()


class LoadOperator(BaseOperator):
    """Load what the stream's extract task left in the lake, and tell it with the event of the table's asset.

    Args:
        replication: the replication.
        stream: the stream of it.
        settings: settings of the deployment.
        extract_task_id: the task whose extraction is loaded.
        kwargs: Airflow's own.
    """

    ui_color = "#cfe2f3"

    def __init__(
        self, *, replication: Replication, stream: Stream, settings: Settings, extract_task_id: str, **kwargs: Any
    ) -> None:
        self.asset = raw_asset(stream.table)
        super().__init__(
            pool=WAREHOUSE_POOL,
            execution_timeout=timedelta(seconds=settings.load_timeout + settings.wait_timeout) + MARGIN,
            outlets=[self.asset],
            **kwargs,
        )
        self.replication = replication
        self.stream = stream
        self.settings = settings
        self.extract_task_id = extract_task_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Load, or say what a dry run would load."""
        return self._load(context, self.stream.meta)

    def decided(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on when a person has answered whether the raw table may get other columns (`on_schema_change: ask`).

        Raises:
            AirflowFailException: the answer is no, or nobody gave one in time.
        """
        if "error" in event or event.get("chosen_options") != [_APPROVE]:
            who = (event.get("responded_by_user") or {}).get("name")
            why = "nobody answered in time" if "error" in event else f"{who or 'somebody'} rejected it"
            text = f"{self.stream.table}: the change of its columns was not approved: {why}; the table is as before"
            context["ti"].xcom_push(key=PROBLEM, value={"kind": SchemaChangeError.kind, "text": text})
            raise AirflowFailException(text)
        return self._load(context, self.stream.meta.model_copy(update={"on_schema_change": "add"}))

    def _ask(self, context: Context, error: SchemaChangeError) -> NoReturn:
        """Leave the worker until a person has answered, in Airflow's own form for that."""
        upsert_hitl_detail(
            ti_id=context["ti"].id,
            options=[_APPROVE, "Reject"],
            subject=f"May {self.stream.table} get other columns?",
            body=f"{error}\n\nApproved, columns are added and types widened; nothing is removed.",
            params={},
        )
        raise TaskAwaitingInput(method_name=self.decided.__name__, timeout=_ANSWER_WITHIN)

    def _load(self, context: Context, policy: Meta) -> dict[str, Any]:
        extracted = context["ti"].xcom_pull(task_ids=self.extract_task_id)
        if not extracted:
            raise AirflowFailException(
                f"{self.extract_task_id} left no extraction; clear it to extract the stream again"
            )
        with airflow_errors(context):
            warehouse = open_warehouse(self.settings, look_up, query_tags(context))
            if extracted["location"] is None:
                before = warehouse.count(self.stream.table)
                what = _EFFECTS[extracted["mode"]].format(extracted["rows"], before or 0)
                raise AirflowSkipException(f"dry run: {self.stream.table} {what}, {extracted['rejected']} rejected")
            contract = read_contracts()[self.stream.table]
            lake = open_lake(self.settings, look_up)
            manifest = lake.read_manifest(extracted["location"])
            try:
                result = warehouse.load_from(lake, extracted["location"], manifest, policy)
            except SchemaChangeError as error:
                if policy.on_schema_change != "ask":
                    raise
                self._ask(context, error)
        try:
            lake.prune(self.replication.name, self.stream.id, self.settings.lake_keep)
        except LakeError as error:  # the load is committed; old extractions can wait for the next one
            log.warning("old extractions were not removed: %s", error)
        extra = asdict(result) | {
            "stream": self.stream.id,
            "mode": manifest.mode,
            "extract_seconds": manifest.seconds,
            "seconds": round(manifest.seconds + result.seconds, 3),
            "schema_hash": manifest.schema_hash,
            "replication": self.replication.name,
            "owner": self.owner,
            "late_after": contract.late_after,
            "stale_after": contract.stale_after,
            "tolerated": self.stream.meta.tolerated(manifest.source_rows) if manifest.source_rows is not None else None,
        }
        context["outlet_events"][self.asset].extra = extra
        self._count(context, result, manifest.mode, manifest.seconds)
        return extra

    def _count(self, context: Context, result: LoadResult, mode: str, extract_seconds: float) -> None:
        """Tell the load as metrics, and as one structured log line."""
        tags = _stream_tags(context)
        tell(
            "loaded",
            **tags,
            run_id=context["run_id"],
            table=result.table,
            mode=mode,
            rows=result.rows_loaded,
            rejected=result.rows_rejected,
            rows_total=result.rows_total,
            seconds=result.seconds,
        )
        if result.repeated:
            return
        metrics.count("stream.loads", tags)
        for name, number in (("rows", result.rows_loaded), ("rejected", result.rows_rejected), ("bytes", result.bytes)):
            metrics.count(f"stream.{name}", tags, by=number)
        metrics.timing("stream.extract_time", extract_seconds, tags)
        metrics.timing("stream.load_time", result.seconds, tags)
        metrics.gauge("stream.table_rows", result.rows_total, tags)


def _stream_tags(context: Context) -> dict[str, str]:
    """Tags of the metrics of the stream whose task runs."""
    task: Any = context["task"]
    return {"dag_id": context["ti"].dag_id, "replication": task.replication.name, "stream": task.stream.id}


def extract_and_load(replication: Replication, settings: Settings) -> dict[str, LoadOperator]:
    """The task group of a replication: extract and load per stream, in the DAG at hand.

    A table whose contract says how old it may be (`freshness`, `warn_after`) gives the DAG a deadline.

    Args:
        replication: its streams become tasks `<group>.<stream>.extract` and `.load`, where the group is the
            replication's name up to the first underscore, so that it stays when the kind of source changes.
        settings: settings of the deployment.

    Returns:
        The load tasks by raw table, for what comes after them.
    """
    group_id = replication.name.split("_")[0]
    loads: dict[str, LoadOperator] = {}
    with TaskGroup(group_id, tooltip=f"Streams of {replication.file.name}") as group:
        for stream in replication.streams:
            with TaskGroup(stream.id, tooltip=f"{stream.name} → {stream.table}"):
                common: dict[str, Any] = {"replication": replication, "stream": stream, "settings": settings}
                extract = ExtractOperator(task_id="extract", **common)
                load = LoadOperator(task_id="load", extract_task_id=extract.task_id, **common)
                extract >> load
            loads[stream.table] = load
    if wanted():
        limits = {table: contract.late_after for table, contract in read_contracts().items()}
        keep_fresh(
            group.dag,
            {
                table: Promise(load.task_id, load.owner, limit)
                for table, load in loads.items()
                if (limit := limits.get(table))
            },
        )
    return loads
