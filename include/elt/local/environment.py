"""What the local Airflow is told: its home, its keys and its settings, all as environment variables.

Three kinds of values, later ones win: defaults that make a small computer quick and quiet, the user's own variables
(the process environment, then `.env`), and the few that the commands here cannot work without.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from include.elt.local.errors import StartError
from include.elt.paths import ROOT, shown

LOOPBACK = "127.0.0.1"
"""The only address anything listens on."""

USER = "admin"
"""Login of the user interface."""

PREFERRED_PORT = 8080
"""Port of the user interface, unless it is taken."""


@dataclass(frozen=True)
class Keys:
    """Secrets of one home, made once, so that logins and stored connections outlive a restart."""

    jwt: str
    api: str
    fernet: str
    password: str

    @classmethod
    def new(cls) -> Keys:
        """Make them: 64 random bytes where Airflow signs, 32 for encryption, a password to type."""
        return cls(
            jwt=secrets.token_urlsafe(64),
            api=secrets.token_urlsafe(64),
            fernet=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            password=secrets.token_urlsafe(18),
        )


@dataclass(frozen=True)
class Home:
    """AIRFLOW_HOME: everything the local Airflow writes, readable by its owner only."""

    folder: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Home:
        """The home of this project, or the one that AIRFLOW_HOME names."""
        return cls((ROOT / Path(environ.get("AIRFLOW_HOME") or ".airflow").expanduser()).resolve())

    @property
    def logs(self) -> Path:
        """Logs of the tasks."""
        return self.folder / "logs"

    @property
    def component_logs(self) -> Path:
        """What the components themselves print."""
        return self.folder / "logs" / "components"

    @property
    def database(self) -> Path:
        """The metadata database, unless the user names another."""
        return self.folder / "airflow.db"

    @property
    def migrated(self) -> Path:
        """Says for which versions the metadata database was prepared."""
        return self.folder / "migrated.json"

    @property
    def keys(self) -> Path:
        """The file of `Keys`."""
        return self.folder / "keys.json"

    @property
    def passwords(self) -> Path:
        """The password file that Airflow reads at a login."""
        return self.folder / "passwords.json"

    @property
    def lock(self) -> Path:
        """Held while a command uses this home; holds the command's process id."""
        return self.folder / "lock"

    @property
    def unpaused(self) -> Path:
        """Names the DAG that a running `run` has unpaused and will pause again."""
        return self.folder / "unpaused_by_run"

    def prepare(self) -> Keys:
        """Make the folders and files that are missing, closed to everyone else.

        Returns:
            The keys of this home.

        Raises:
            StartError: the folder cannot be used, or belongs to another Airflow.
        """
        try:
            self._refuse_foreign()
            for folder in (self.folder, self.logs, self.component_logs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            keys = self._read_keys()
            _write_private(self.passwords, json.dumps({USER: keys.password}) + "\n")
        except OSError as error:
            raise StartError(f"AIRFLOW_HOME {shown(self.folder)} cannot be used: {error}") from error
        return keys

    def _refuse_foreign(self) -> None:
        """Many people have AIRFLOW_HOME exported for an Airflow of theirs; its database must not be migrated by us."""
        if (self.folder / "airflow.db").exists() and not self.keys.exists() and not self.folder.is_relative_to(ROOT):
            raise StartError(
                f"AIRFLOW_HOME={self.folder} holds the metadata database of another Airflow; unset AIRFLOW_HOME to use"
                f" {shown(ROOT / '.airflow')}, or name an empty folder"
            )

    def _read_keys(self) -> Keys:
        if not self.keys.exists():
            _write_private(self.keys, json.dumps(vars(Keys.new())) + "\n")
        self.keys.chmod(0o600)
        try:
            return Keys(**json.loads(self.keys.read_text()))
        except (ValueError, TypeError) as error:
            raise StartError(f"{shown(self.keys)} is damaged ({error}); remove it to get new keys") from error


def _write_private(file: Path, text: str) -> None:
    """Replace `file` in one step by one that only its owner can read, at no time readable by others."""
    new = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    new.replace(file)


def read_dotenv(file: Path = ROOT / ".env") -> dict[str, str]:
    """The variables of a `.env` file, values taken literally; nothing when there is no such file."""
    return {name: value for name, value in dotenv_values(file, interpolate=False).items() if value is not None}


def parallelism(cores: int | None = None) -> int:
    """Tasks at a time: most of them wait for Sling, dbt or a lock, and each costs memory."""
    return min(8, max(4, 2 * (cores or os.cpu_count() or 2)))


def free_port() -> int:
    """A port that nothing uses at the moment."""
    with closing(socket.socket()) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def choose_port(environ: Mapping[str, str], preferred: int | None = None) -> int:
    """The port for the API and the user interface.

    Args:
        environ: AIRFLOW_PORT in it fixes the port.
        preferred: tried first, then the nine after it; None takes any free port.

    Raises:
        StartError: AIRFLOW_PORT is not a port or is in use.
    """
    fixed = environ.get("AIRFLOW_PORT")
    if fixed:
        if not fixed.isdecimal() or not 0 < int(fixed) < 65536:
            raise StartError(f"AIRFLOW_PORT={fixed!r} is refused; allowed: a number from 1 to 65535")
        if not _is_free(int(fixed)):
            raise StartError(
                f"port {fixed} (AIRFLOW_PORT) is in use on {LOOPBACK}; choose another or unset AIRFLOW_PORT"
            )
        return int(fixed)
    candidates = range(preferred, preferred + 10) if preferred else ()
    return next((port for port in candidates if _is_free(port)), None) or free_port()


def _is_free(port: int) -> bool:
    """Bind as the server will: a closed connection that lingers does not count, a listener does."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _defaults(home: Home, keys: Keys, *, one_shot: bool) -> Iterator[tuple[str, object]]:
    """Settings that the user's own variables win over."""
    yield "AIRFLOW__CORE__DAGS_FOLDER", ROOT / "dags"
    yield "AIRFLOW__CORE__PLUGINS_FOLDER", ROOT / "plugins"
    yield "AIRFLOW__CORE__LOAD_EXAMPLES", False
    yield "AIRFLOW__CORE__PARALLELISM", parallelism()
    yield "AIRFLOW__CORE__FERNET_KEY", keys.fernet
    # The default asks the network's name service, which takes seconds on some laptops.
    yield "AIRFLOW__CORE__HOSTNAME_CALLABLE", "socket.gethostname"
    # Several processes write to one SQLite file; the default of 5 s fails tasks on a busy computer.
    yield "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{home.database}?timeout=60"
    # `database.migrate` has done it.
    yield "AIRFLOW__DATABASE__CHECK_MIGRATIONS", False
    # The default of 5 s fails tasks on a busy computer.
    yield "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT", 60
    # A supervisor that has just missed the end of its task looks for it again after this long (default: 5 s)
    # and keeps the slot meanwhile; a deferred task that comes back in that time would count as failed.
    yield "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", 1
    # A killed task is tried again after this, not after 300 s; it reports every few seconds.
    yield "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT", 90
    yield "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC", 1
    # Between two layers of dbt's models the scheduler has nothing to do but to notice; by default after a second.
    yield "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME", 0.2
    yield "AIRFLOW__TRIGGERER__MAX_TRIGGER_TO_SELECT_PER_LOOP", 500
    # In a single run the files stay as they are; while Airflow is up people edit them.
    yield "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL", 600 if one_shot else 30
    yield "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL", 600 if one_shot else 30
    yield "AIRFLOW__API__WORKERS", 1
    yield "AIRFLOW__LOGGING__BASE_LOG_FOLDER", home.logs
    yield "AIRFLOW__LOGGING__UVICORN_LOGGING_LEVEL", "WARNING"
    yield "AIRFLOW__LOGGING__NAMESPACE_LEVELS", "http.access=WARNING"
    yield "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG", False
    yield "AIRFLOW__COSMOS__CACHE_DIR", home.folder / "cosmos"
    yield "AIRFLOW__COSMOS__ENABLE_TELEMETRY", False
    yield "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED", False
    yield "AIRFLOW__OPENLINEAGE__DISABLED", True
    yield "DBT_SEND_ANONYMOUS_USAGE_STATS", "false"
    yield "DO_NOT_TRACK", 1
    yield "SCARF_ANALYTICS", "false"


def _fixed(home: Home, keys: Keys, port: int, *, one_shot: bool) -> Iterator[tuple[str, object]]:
    """Settings that the commands here rely on."""
    base_url = f"http://{LOOPBACK}:{port}"
    yield "AIRFLOW_HOME", home.folder
    yield "AIRFLOW__CORE__EXECUTOR", "LocalExecutor"
    yield (
        "AIRFLOW__CORE__AUTH_MANAGER",
        "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
    )
    yield "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", f"{USER}:admin"
    yield "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", False
    yield "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", home.passwords
    yield "AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"{base_url}/execution/"
    yield "AIRFLOW__API__HOST", LOOPBACK
    yield "AIRFLOW__API__PORT", port
    yield "AIRFLOW__API__BASE_URL", base_url
    yield "AIRFLOW__API__SECRET_KEY", keys.api
    yield "AIRFLOW__API_AUTH__JWT_SECRET", keys.jwt
    yield "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK", False
    if one_shot:
        # Unpaused for its one run, the DAG must not start a scheduled one as well.
        yield "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE", False


def airflow_environment(
    environ: Mapping[str, str], home: Home, keys: Keys, port: int, *, one_shot: bool
) -> dict[str, str]:
    """All environment variables of the local Airflow.

    Args:
        environ: the user's own, `.env` included.
        home: where Airflow writes.
        keys: the secrets of that home.
        port: where the API and the user interface listen.
        one_shot: for one run that is triggered at once: no schedules, no watching of the DAG files.
    """
    values = {name: str(value) for name, value in _defaults(home, keys, one_shot=one_shot)}
    values.update(environ)
    values.update((name, str(value)) for name, value in _fixed(home, keys, port, one_shot=one_shot))
    return values
