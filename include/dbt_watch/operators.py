"""The two operators: one `dbt build` for all, and a task per node that watches it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, AssetAlias, BaseOperator, Context
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
)
from airflow.sdk.timezone import utcnow
from airflow.triggers.base import StartTriggerArgs

from include.dbt_watch.project import Batch, DbtProject, Session, selection
from include.dbt_watch.results import FAILED, LEFT_OUT, OK, SKIPPED, Board, Result, owners
from include.dbt_watch.status import KEY, Publisher, Reader
from include.dbt_watch.trigger import ANSWERED, DbtNodeTrigger, excerpt
from include.dbt_watch.verdict import BUILD_ALONE, Snapshot, verdict

_DONE = "dbt_done"
"""Key of what a build has done in Airflow's store of task states, which outlives a try."""

_BATCHES = "dbt_batches"
"""Likewise of the batches that microbatch models have left undone."""


@dataclass(frozen=True)
class Plan:
    """What a run's build does.

    Attributes:
        select: dbt's `--select`: each entry one of its selections.
        exclude: dbt's `--exclude`.
        chosen: what the run's form chose among the nodes, in words; those without a result are then skipped and not
            missing. Empty where it chose nothing.
        options: more options of `dbt build`, e.g. `--full-refresh`.
        variables: dbt's `--vars`.
        environment: environment variables for dbt; may hold secrets.
        fresh: sources whose freshness is looked at before anything is built, as unique ids. What depends on one that
            is not fresh is not built.
    """

    select: Sequence[str] = ()
    exclude: Sequence[str] = ()
    chosen: str = ""
    options: Sequence[str] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    fresh: Sequence[str] = ()


Planner = Callable[[Context], Plan]
"""Decides what a run's build does. May skip or fail the task."""

Keeper = Callable[[Path, Context], None]
"""Is given dbt's target folder once at the end of each call of `dbt build`, whatever came of it."""


class DbtBuild(BaseOperator):
    """One `dbt build` for all the nodes of a group, the only task of it that takes a worker.

    It fails when dbt did not come to its end, when something failed that has no task (a hook), and, while there are
    tries left, when a node failed: the next try builds what failed and what was skipped, as `dbt retry` would. On its
    last try a node that failed is told by the node's task only, which is red; the build itself has ended well then.

    Args:
        project: the dbt project.
        plan: decides what a run's build does.
        keep: is given dbt's artifacts.
        assets: assets by node. A task that a trigger ends emits no asset events in Airflow 3.3, so the build does.
        kwargs: Airflow's own.
    """

    ui_color = "#ffe0cc"

    def __init__(
        self,
        *,
        project: DbtProject,
        plan: Planner,
        keep: Keeper,
        assets: Mapping[str, Asset],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.project = project
        self.plan = plan
        self.keep = keep
        self.assets = assets
        self._alias = AssetAlias(f"{self.dag_id}.{self.task_id}")
        self.outlets = [*self.outlets, self._alias]

    def execute(self, context: Context) -> None:
        """Build."""
        plan = self.plan(context)
        ti: Any = context["ti"]
        last = ti.try_number > ti.max_tries
        with self.project.session(plan.environment, plan.variables) as dbt:
            manifest = dbt.manifest
            self.log.info("the project was parsed %s", dbt.parsed)
            notes = _Notes(context, manifest)
            excluded = [*plan.exclude]
            stale = stale_sources(dbt, plan.fresh)
            excluded += [f"source:{unique_id.removeprefix('source.')}+" for unique_id in stale]
            board, words = self._begin(dbt, plan, excluded, notes.read())
            begun = notes.batches()
            for unique_id, left in begun.items():
                self.log.info("%s: %s batches are left by the try before", unique_id, len(left))
                dbt.only_batches(unique_id, left)
            for unique_id, why in stale.items():
                self.log.warning("%s: %s; what depends on it is not built", unique_id, why)
                board.add(Result(unique_id, "error", why))
            with Publisher(
                str(ti.id),
                board,
                manifest,
                ti.xcom_push,
                last=last,
                chosen=bool(plan.chosen),
                changed=notes.write,
                # There, whoever waits comes after the build, and only one thread may talk to Airflow at a time: while
                # one does, the other has no way to it.
                live=not in_dag_test(),
            ) as publisher:
                try:
                    result = dbt.invoke("build", *words, *plan.options, callbacks=[publisher])
                finally:
                    self.keep(dbt.target, context)
            notes.write_batches(unfinished_batches(result, begun))
            nothing = plan.chosen and not board.results and not list(result.result or ())
        counts = _counts(board)
        self.log.info("dbt build: %s; %s status writes, %.2f s", counts, publisher.writes, publisher.seconds)
        if nothing:
            raise AirflowFailException(f"{plan.chosen} selects nothing of what this DAG builds")
        self._judge(board, bool(result.success), last=last)
        self._tell_assets(context, board)

    def on_kill(self) -> None:
        """Stop dbt as Ctrl-C does: it cancels the queries that run. Airflow calls this in the thread that runs dbt."""
        raise KeyboardInterrupt("the task was stopped")

    def _begin(
        self, dbt: Session, plan: Plan, excluded: Sequence[str], done: frozenset[str]
    ) -> tuple[Board, list[str]]:
        """The board and the selection: everything, or on a further try what the ones before left undone."""
        belongs = owners(dbt.manifest)
        if not done:
            return Board(belongs), selection(plan.select, excluded)
        selected = dbt.listed(plan.select, excluded)
        left = {each for each in selected - done if each.split(".")[0] not in ("source", "exposure")}
        self.log.info("%s of %s nodes and tests are left by the try before", len(left), len(selected))
        return Board(belongs, done & selected, selected), dbt.only(left)

    def _judge(self, board: Board, success: bool, *, last: bool) -> None:
        """Fail where the tasks of the nodes do not tell it, or where another try follows."""
        failed = sorted(node for node, outcome in board.outcomes.items() if outcome.outcome == FAILED)
        if board.strays:
            told = "; ".join(f"{each.unique_id}: {each.message}" for each in board.strays)
            raise AirflowException(f"dbt build failed outside the models: {told}")
        if not success and not failed:
            raise AirflowException("dbt build failed, and no model is the reason; see dbt's lines above")
        if failed and not last:
            raise AirflowException(f"{', '.join(failed)} failed; the next try builds what is left")
        if failed:
            self.log.error("%s failed; the tasks of these nodes tell why", ", ".join(failed))

    def _tell_assets(self, context: Context, board: Board) -> None:
        """Emit the events of the assets of nodes that were built. In `dag.test()` their tasks do it themselves."""
        if in_dag_test():
            return
        for node, asset in self.assets.items():
            if (outcome := board.outcomes.get(node)) is not None and outcome.outcome == OK:
                document = outcome.document()
                extra = {name: document[name] for name in ("seconds", "rows", "tests") if name in document}
                context["outlet_events"][self._alias].add(asset, extra={"model": node, **extra})


class DbtNode(BaseOperator):
    """A dbt node and its tests. Starts, waits and ends in the triggerer.

    Takes a worker only to build its node alone: when it was cleared and the build is over, or when the build skipped it
    and what it depends on is fine by now. Tries are the build's, so this task has none of its own.

    Args:
        node: unique id of the dbt node.
        build: task id of the build.
        project: the dbt project.
        plan: decides what a run's build does; a node that is built alone has the same options.
        keep: is given dbt's artifacts.
        kwargs: Airflow's own.
    """

    ui_color = "#d6f5e3"
    start_from_trigger = True

    def __init__(
        self, *, node: str, build: str, project: DbtProject, plan: Planner, keep: Keeper, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.node = node
        self.build = build
        self.project = project
        self.plan = plan
        self.keep = keep
        self.start_from_trigger = True
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=f"{DbtNodeTrigger.__module__}.{DbtNodeTrigger.__qualname__}",
            trigger_kwargs={"node": node, "build": build},
            next_method="build_alone",
            next_kwargs=None,
            timeout=None,
        )

    def execute(self, context: Context) -> None:
        """Without a triggerer (`dag.test()`): take the verdict of the build, which goes first."""
        seen = self._look(context)
        if in_dag_test() and not seen.ended:
            raise AirflowRescheduleException(utcnow())  # type: ignore[no-untyped-call]
        found = verdict(self.node, None, seen)
        if found is None or found.what == BUILD_ALONE:
            self.build_alone(context, {"why": found.why if found else "the build has not ended", "build": seen.build})
            return
        outcome = dict(seen.nodes.get(self.node, {}))
        for line in excerpt(self.node, found, outcome):
            self.log.info("%s", line)
        if found.what == FAILED:
            raise AirflowFailException(f"{self.node}: {found.why}")
        if found.what == LEFT_OUT:
            raise AirflowSkipException(found.why)
        self._tell_assets(context, outcome)

    def build_alone(self, context: Context, event: Mapping[str, Any] | None = None) -> None:
        """In a worker: build this node and run its tests, nothing else."""
        told = event or {}
        self.log.info("%s is built here: %s", self.node, told.get("why"))
        ti: Any = context["ti"]
        # Noted at once: the build is not to answer for what this task has begun.
        ti.xcom_push(key=ANSWERED, value=told.get("build"))
        plan = self.plan(context)
        with self.project.session(plan.environment, plan.variables) as dbt:
            belongs = owners(dbt.manifest)
            wanted = {test for test, node in belongs.items() if node == self.node}
            if not self.node.startswith("source."):
                wanted.add(self.node)
            elif stale := stale_sources(dbt, [each for each in plan.fresh if each == self.node]):
                raise AirflowFailException(stale[self.node])
            if not wanted:
                return
            board = Board(belongs, selected=wanted)
            publisher = Publisher("", board, dbt.manifest, lambda *_: None, last=True, chosen=False)
            with publisher:
                try:
                    result = dbt.invoke("build", *dbt.only(wanted), *plan.options, callbacks=[publisher])
                finally:
                    self.keep(dbt.target, context)
        outcome = board.outcomes.get(self.node)
        if board.strays or not result.success or outcome is None or outcome.outcome in (FAILED, SKIPPED):
            why = outcome.why if outcome else "; ".join(each.message for each in board.strays)
            raise AirflowException(f"{self.node}: {why or 'dbt build failed; see its lines above'}")
        self._tell_assets(context, outcome.document())

    def on_kill(self) -> None:
        """Stop dbt as Ctrl-C does."""
        raise KeyboardInterrupt("the task was stopped")

    def _tell_assets(self, context: Context, outcome: Mapping[str, Any]) -> None:
        extra = {name: outcome[name] for name in ("seconds", "rows", "tests") if name in outcome}
        for asset in self.outlets:
            if isinstance(asset, Asset):
                context["outlet_events"][asset].extra = {"model": self.node, **extra}

    def _look(self, context: Context) -> Snapshot:
        """The build of this run."""
        ti: Any = context["ti"]
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[self.build], run_ids=[ti.run_id]).get(ti.run_id, {})
        reader = Reader()
        head = ti.xcom_pull(task_ids=self.build, key=KEY)
        reader.take([ti.xcom_pull(task_ids=self.build, key=key) for key in reader.missing(head)])
        state = states.get(self.build)
        return reader.snapshot(None if state is None else str(getattr(state, "value", state)), True, head)


def stale_sources(dbt: Session, sources: Sequence[str]) -> dict[str, str]:
    """Sources that are too old, with the reason. A warning does not count.

    Args:
        dbt: calls dbt.
        sources: unique ids of the sources to look at.
    """
    if not sources:
        return {}
    names = [f"source:{unique_id.removeprefix('source.')}" for unique_id in sources]
    result = dbt.invoke("source freshness", "--select", *names)
    stale = {}
    for each in result.result or ():
        if str(each.status) in ("error", "runtime error"):
            age = getattr(each, "age", None)
            why = str(each.message or (f"last loaded {age / 3600:.1f} hours ago" if age else "it is too old"))
            stale[str(each.node.unique_id)] = f"the source is not fresh: {why}"
    return stale


def unfinished_batches(result: Any, begun: Mapping[str, Sequence[Batch]]) -> dict[str, list[Batch]]:
    """The batches that failed, of microbatch models of which others are built.

    A model without any batch is left to be built from its beginning.

    Args:
        result: of `dbt build`.
        begun: models of which this build was to build the rest.
    """
    found = {}
    for each in getattr(result.result, "results", None) or ():
        batches = getattr(each, "batch_results", None)
        if batches and batches.failed and (batches.successful or each.node.unique_id in begun):
            found[str(each.node.unique_id)] = list(batches.failed)
    return found


class _Notes:
    """What a build has done, kept where its next try finds it: a bit per node and test of the project.

    Of a microbatch model of which some batches failed, the failed ones.

    Airflow's store of task states outlives a try. Clearing a task begins a new round of tries, which Airflow tells by
    another `max_tries`; what was done in the round before does not count then.
    """

    def __init__(self, context: Context, manifest: Any) -> None:
        ti: Any = context["ti"]
        self._store: Any = context.get("task_state_store")
        self._ids = sorted({*manifest.nodes, *manifest.unit_tests})
        digest = hashlib.sha256("\n".join(self._ids).encode()).hexdigest()[:16]
        self._round = f"{ti.max_tries} {digest}"
        self._first = ti.try_number <= 1
        self._last: frozenset[str] = frozenset()

    def read(self) -> frozenset[str]:
        """Nodes and tests that earlier tries of this round have done."""
        found = self._found(_DONE)
        bits = int.from_bytes(base64.b64decode(str(found["done"])), "big") if found else 0
        return frozenset(each for number, each in enumerate(self._ids) if bits >> number & 1)

    def batches(self) -> dict[str, list[Batch]]:
        """Batches of microbatch models that the try before has left undone."""
        found = self._found(_BATCHES)
        return {
            unique_id: [(datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in left]
            for unique_id, left in (found["batches"] if found else {}).items()
        }

    def write_batches(self, batches: Mapping[str, Sequence[Batch]]) -> None:
        """Note the batches that are left undone."""
        if self._store is not None and (batches or self._found(_BATCHES)):
            texts = {name: [[each.isoformat() for each in one] for one in left] for name, left in batches.items()}
            self._store.set(_BATCHES, {"round": self._round, "batches": texts})

    def _found(self, key: str) -> dict[str, Any] | None:
        """What the try before has noted, if it is of this round."""
        found = None if self._first or self._store is None else self._store.get(key)
        return found if isinstance(found, dict) and found.get("round") == self._round else None

    def write(self, board: Board) -> None:
        """Note what is done by now."""
        done = frozenset(board.done)
        if self._store is None or done == self._last:
            return
        bits = sum(1 << number for number, each in enumerate(self._ids) if each in done)
        packed = base64.b64encode(bits.to_bytes(len(self._ids) // 8 + 1, "big")).decode()
        self._store.set(_DONE, {"round": self._round, "done": packed})
        self._last = done


def _counts(board: Board) -> str:
    found: dict[str, int] = {}
    for outcome in board.outcomes.values():
        found[outcome.outcome] = found.get(outcome.outcome, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items())) or "nothing"


def in_dag_test() -> bool:
    """Whether this task runs inside `dag.test()`: in the process of the DAG run, one task after the other."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.supervisor import InProcessSupervisorComms

    return isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), InProcessSupervisorComms)


def long_enough(timeout: timedelta, retries: int) -> timedelta:
    """How long a node may wait for a build that may take `timeout` per try, and wait for its own turn as long again."""
    return min(timedelta(days=1), timeout * (retries + 2))
