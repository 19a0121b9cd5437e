"""Calls dbt in this process, on the project as it was parsed ahead of time.

dbt accepts a partial parse only where the profile and its environment variables are the ones it was made with, which
in an image they never are: each process would parse the whole project again. Here the parsed project is handed to dbt
as it is, after a check of everything that parsing depends on: dbt's version, the adapter's type, the target, the
database and schema, the environment variables that the project itself reads, and no `vars`. Otherwise dbt parses.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cosmos.config import ProfileConfig

log = logging.getLogger(__name__)

PARSED = "partial_parse.msgpack"
"""What dbt leaves beside manifest.json: the parsed project in the form that dbt itself reads quickest."""

_QUIET = ("--no-use-colors", "--no-send-anonymous-usage-stats", "--log-level-file", "none", "--no-version-check")

Batch = tuple[datetime, datetime]
"""A batch of a microbatch model: from, and to before."""


@dataclass(frozen=True)
class DbtProject:
    """A dbt project, and how dbt is called on it.

    Attributes:
        folder: of dbt_project.yml.
        manifest: manifest.json as it was made ahead of time; `partial_parse.msgpack` stands beside it.
        profile: Cosmos' description of profile and target.
    """

    folder: Path
    manifest: Path
    profile: ProfileConfig

    @contextmanager
    def session(self, environment: Mapping[str, str], variables: Mapping[str, Any] | None = None) -> Iterator[Session]:
        """Within the block dbt can be called; its environment variables are set, its files are in a folder of its own.

        Args:
            environment: environment variables for dbt. They are unset afterwards.
            variables: dbt's `--vars`.
        """
        with (
            tempfile.TemporaryDirectory(prefix="dbt_") as scratch,
            self.profile.ensure_profile() as (profiles, more),
            _environment({**environment, **more}),
            _no_semaphores_left(),
        ):
            yield Session(self, Path(scratch), profiles.parent, dict(variables or {}))


@dataclass
class Session:
    """Calls of dbt that share a parsed project.

    Attributes:
        project: the project.
        target: the folder of dbt's artifacts.
        profiles: the folder of profiles.yml.
        variables: dbt's `--vars`.
        parsed: how the project came to be parsed: `ahead of time`, or why not.
    """

    project: DbtProject
    target: Path
    profiles: Path
    variables: dict[str, Any]
    parsed: str = ""
    _manifest: Any = field(default=None, repr=False)

    @property
    def manifest(self) -> Any:
        """The parsed project, as dbt's `Manifest`.

        Raises:
            DbtError: dbt cannot parse it.
        """
        if self._manifest is None:
            self.parsed = self._not_reusable() or "ahead of time"
            if self._manifest is None:
                log.info("dbt parses the project: %s", self.parsed)
                self._manifest = self.invoke("parse").result
        return self._manifest

    def invoke(self, command: str, *words: str, callbacks: Sequence[Callable[[Any], None]] = ()) -> Any:
        """One call of dbt.

        Args:
            command: e.g. `build`; `source freshness` are two words.
            words: its options.
            callbacks: called with each of dbt's events, from dbt's threads.

        Returns:
            dbt's `dbtRunnerResult`.

        Raises:
            DbtError: dbt did not come to an end of its own: no result.
        """
        from dbt.cli.main import dbtRunner

        manifest = None if command.endswith("parse") else self.manifest
        where = [
            *("--project-dir", str(self.project.folder), "--profiles-dir", str(self.profiles)),
            *("--profile", self.project.profile.profile_name, "--target", self.project.profile.target_name),
            *("--target-path", str(self.target), "--log-path", str(self.target)),
        ]
        if self.variables:
            import json

            where += ["--vars", json.dumps(self.variables)]
        result = dbtRunner(manifest=manifest, callbacks=list(callbacks)).invoke(
            [*_QUIET, *command.split(), *words, *where]
        )
        if result.exception is not None:
            raise DbtError(f"dbt {command}: {result.exception}") from result.exception
        return result

    def listed(self, select: Sequence[str], exclude: Sequence[str] = ()) -> set[str]:
        """Unique ids of everything that a selection gives, tests included."""
        import json

        words = ["--quiet", "--output", "json", "--output-keys", "unique_id", *selection(select, exclude)]
        result = self.invoke("list", *words)
        return {json.loads(line)["unique_id"] for line in result.result or () if line.startswith("{")}

    def only(self, unique_ids: set[str]) -> list[str]:
        """Options that make `dbt build` build just these nodes and run just these tests, whatever their names."""
        from dbt.version import __version__

        state = self.target / "only"
        state.mkdir(exist_ok=True)
        _write_results(state / "run_results.json", sorted(unique_ids), __version__)
        return ["--select", "result:skipped", "--state", str(state), "--indirect-selection", "empty"]

    def only_batches(self, unique_id: str, batches: Sequence[Batch]) -> None:
        """Have the next `dbt build` build just these batches of a microbatch model, as `dbt retry` would.

        Not from the beginning either where that is asked for: it has begun.
        """
        from dbt.artifacts.schemas.batch_results import BatchResults

        if (node := self.manifest.nodes.get(unique_id)) is not None:
            node.previous_batch_results = BatchResults(failed=list(batches))
            node.config.full_refresh = False

    def _not_reusable(self) -> str | None:
        """Take the project as it was parsed ahead of time; why that is not possible, if it is not."""
        from dbt.constants import DEFAULT_ENV_PLACEHOLDER
        from dbt.contracts.graph.manifest import Manifest
        from dbt.parser.manifest import extended_mashumuro_decoder
        from dbt.version import __version__

        file = self.project.manifest.with_name(PARSED)
        if self.variables:
            return "with vars it has to be parsed again"
        try:
            # Dates, such as where a microbatch model begins, are of a type that only dbt's own decoder knows.
            manifest = Manifest.from_msgpack(file.read_bytes(), decoder=extended_mashumuro_decoder)
        except Exception as error:  # noqa: BLE001  (dbt raises what it likes for a file of another version)
            return f"{file} cannot be read ({type(error).__name__}: {error})"
        if manifest.metadata.dbt_version != __version__:
            return f"{file} is of dbt {manifest.metadata.dbt_version}, this is {__version__}"
        found = {name: os.environ.get(name, DEFAULT_ENV_PLACEHOLDER) for name in manifest.env_vars}
        changed = [name for name, value in manifest.env_vars.items() if found[name] != value]
        if changed:
            return f"the project was parsed with other values of {', '.join(sorted(changed))}"
        credentials = self.credentials
        own = [node for node in manifest.nodes.values() if node.resource_type != "test"]
        here = (credentials.type, credentials.database)
        then = {(manifest.metadata.adapter_type, node.database) for node in own if not node.config.get("database")}
        if then - {here}:
            return f"the project was parsed for {sorted(then)}, this is {here}"
        stamp = self.project.manifest.with_name(SCHEMA)
        if stamp.is_file() and stamp.read_text().strip() != credentials.schema:
            return f"the project was parsed for the schema {stamp.read_text().strip()}, this is {credentials.schema}"
        manifest.build_flat_graph()
        self._manifest = manifest
        return None

    @property
    def credentials(self) -> Any:
        """What the profile says about the target."""
        from dbt.config.runtime import load_profile
        from dbt.flags import set_from_args
        from dbt_common.context import set_invocation_context

        set_invocation_context(os.environ)
        set_from_args(
            _Arguments(profiles_dir=str(self.profiles), project_dir=str(self.project.folder), target=None), None
        )
        profile, target = self.project.profile.profile_name, self.project.profile.target_name
        return load_profile(str(self.project.folder), {}, profile, target).credentials


SCHEMA = ".schema"
"""Beside manifest.json: the schema of the target that the project was parsed for."""


class DbtError(Exception):
    """dbt did not come to an end of its own; the message is dbt's."""


class _Arguments:
    """What dbt wants as the result of an argument parser."""

    def __init__(self, **given: Any) -> None:
        vars(self).update(given)


def selection(select: Sequence[str], exclude: Sequence[str] = ()) -> list[str]:
    """The options `--select` and `--exclude`."""
    return [*(["--select", *select] if select else []), *(["--exclude", *exclude] if exclude else [])]


def _write_results(file: Path, unique_ids: Sequence[str], version: str) -> None:
    """A run_results.json in which these nodes were skipped (schema 6 of dbt's artifacts)."""
    import json

    schema = "https://schemas.getdbt.com/dbt/run-results/v6.json"
    common = {"status": "skipped", "timing": [], "thread_id": "", "execution_time": 0.0, "adapter_response": {}}
    more = {"message": None, "failures": None, "compiled": None, "compiled_code": None, "relation_name": None}
    results = [{**common, **more, "unique_id": each} for each in unique_ids]
    metadata = {"dbt_schema_version": schema, "dbt_version": version, "generated_at": "2026-01-01T00:00:00Z"}
    file.write_text(json.dumps({"metadata": metadata, "results": results, "elapsed_time": 0.0, "args": {}}))


@contextmanager
def _no_semaphores_left() -> Iterator[None]:
    """Give back the semaphores that dbt has made within the block, by name a thing of the whole computer.

    dbt's locks are made for processes that it never starts. Python would give them back at its end, but Airflow ends a
    task's process without that (`os._exit`).
    """
    from multiprocessing import synchronize, util

    there: dict[Any, Any] = util._finalizer_registry  # type: ignore[attr-defined]  # noqa: SLF001  (no public one)
    before = set(there)
    try:
        yield
    finally:
        for each in [there[key] for key in list(there) if key not in before]:
            if each._callback is synchronize.SemLock._cleanup:  # type: ignore[attr-defined]  # noqa: SLF001
                each()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
