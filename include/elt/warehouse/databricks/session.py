"""One session of a SQL warehouse: statements with time limits, and errors that are one line each."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from databricks import sql as connector
from databricks.sql.exc import Error, RequestError, ServerOperationError

from include.elt.connections.databricks import Workspace, tag
from include.elt.errors import EltError, LoadError, WarehouseBusyError, WarehouseRefusedError
from include.elt.warehouse.databricks.text import quoted

if TYPE_CHECKING:
    from databricks.sdk.config import Config
    from databricks.sql.client import Connection

log = logging.getLogger(__name__)
# They tell of every answer of the server, the second with its rows.
for _name in ("databricks.sql", "databricks.sql.unsafe"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_SOCKET = 300
"""Seconds without a byte from the warehouse; a statement that runs for longer is asked for again and again."""

_MISSING = re.compile(r"\[(TABLE_OR_VIEW_NOT_FOUND|SCHEMA_NOT_FOUND)[\].]")
_REFUSED = re.compile(
    r"\[(INSUFFICIENT_PERMISSIONS|PERMISSION_DENIED|UC_\w*PERMISSION\w*|UNAUTHORIZED_ACCESS|NO_SUCH_CATALOG\w*"
    r"|CATALOG_NOT_FOUND|UNITY_CATALOG_EXTERNAL_LOCATION_DOES_NOT_EXIST)[\].]|PERMISSION_DENIED|does not have .* on "
)
_CONFLICT = re.compile(r"\[DELTA_(CONCURRENT|METADATA_CHANGED|PROTOCOL_CHANGED)\w*[\].]|Concurrent\w+Exception")
_TIMEOUT = re.compile(
    r"\[?(QUERY_EXECUTION_TIMEOUT_EXCEEDED|STATEMENT_TIMEOUT)|statement timeout|timed out after", re.I
)
_LOGIN = re.compile(r"\b(401|403)\b|invalid access token|invalid_client|unauthorized|default auth", re.I)


class MissingTableError(LoadError):
    """There is no such table."""


class Session:
    """A session; close it, which ends what still runs.

    Args:
        workspace: who we are and where.
        catalog: catalog of all names without one.
        wake_timeout: seconds to wait for a warehouse that is stopped.
        timeout: seconds that all statements together may take.
        tags: query tags, such as the DAG and the task.
        prefix: what the names of all schemas begin with; for a trial beside the real ones.
    """

    def __init__(
        self,
        workspace: Workspace,
        catalog: str,
        wake_timeout: int,
        timeout: int,
        tags: Mapping[str, str],
        prefix: str = "",
    ) -> None:
        self.workspace = workspace
        self.catalog = catalog
        self.prefix = prefix
        self.timeout = timeout
        config = workspace.config(http_timeout_seconds=60, retry_timeout_seconds=120)
        with self._told("no session"):
            config.authenticate()  # a refused login is told here, before anything is retried
            started = time.monotonic()
            self._connection: Connection = connector.connect(
                workspace.host,
                workspace.http_path,
                catalog=catalog,
                credentials_provider=lambda: _header(config),
                session_configuration={"STATEMENT_TIMEOUT": str(timeout), "timezone": "UTC", "ansi_mode": "true"},
                query_tags={name: tag(value) for name, value in tags.items()},
                user_agent_entry="dbx-project",
                enable_telemetry=False,
                _socket_timeout=_SOCKET,
                _retry_stop_after_attempts_count=60,
                _retry_stop_after_attempts_duration=float(wake_timeout),
                _retry_delay_max=10.0,  # the connector waits that long where a server says when to come again
            )
        if (waited := time.monotonic() - started) > 5:
            log.info("the SQL warehouse let us wait for %.0f s", waited)
        self._deadline = time.monotonic() + timeout

    def qualified(self, name: str) -> str:
        """A schema, or a schema and a table, as an identifier with the catalog."""
        return quoted(f"{self.catalog}.{self.prefix}{name}")

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Carry out a statement; returns its rows.

        Raises:
            MissingTableError: it names a table that is not there.
            WarehouseRefusedError: a right or the catalog is missing.
            WarehouseBusyError: the warehouse cannot be reached, or another statement changed the same table.
            LoadError: it failed, or took too long.
        """
        if time.monotonic() > self._deadline:
            raise self._late()
        with self._told(_summary(statement)), self._connection.cursor() as cursor:
            cursor.execute(statement)
            return [tuple(row) for row in cursor.fetchall()]

    def run(self, statement: str) -> None:
        """Carry out a statement whose result is of no interest; raises as `rows` does."""
        self.rows(statement)

    def one(self, statement: str) -> int:
        """The number that a query answers with; raises as `rows` does."""
        return int(self.rows(statement)[0][0] or 0)

    def close(self) -> None:
        """End the session, and what still runs in it."""
        with suppress(Error, OSError):
            self._connection.close()

    def _late(self) -> LoadError:
        return LoadError(f"it took longer than {self.timeout} s; LOAD_TIMEOUT allows more")

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Tell what the clients raise in one line of ours."""
        place = f"{self.workspace.host} through the connection {self.workspace.connection}"
        try:
            yield
        except EltError:
            raise
        except ServerOperationError as error:
            raise self._of_server(what, self._line(error)) from None
        except RequestError as error:
            line = self._line(error)
            if _REFUSED.search(line) or _LOGIN.search(f"{line} {(error.context or {}).get('http-code', '')}"):
                raise WarehouseRefusedError(f"{place}: {line}") from None
            raise WarehouseBusyError(f"{place} cannot be reached: {line}") from None
        except Error as error:
            line = self._line(error)
            kind = WarehouseRefusedError if _REFUSED.search(line) else LoadError
            raise kind(f"{place}: {what}: {line}") from None
        except (ValueError, PermissionError) as error:  # databricks-sdk, about the login
            raise WarehouseRefusedError(f"{place}: the login was refused: {self._line(error)}") from None
        except OSError as error:
            raise WarehouseBusyError(f"{place} cannot be reached: {self._line(error)}") from None

    def _of_server(self, what: str, line: str) -> LoadError:
        if _MISSING.search(line):
            return MissingTableError(f"{what}: {line}")
        if _REFUSED.search(line):
            return WarehouseRefusedError(f"{what}: {line}")
        if _CONFLICT.search(line):
            return WarehouseBusyError(f"{what}: another statement changed the table at the same time: {line}")
        return self._late() if _TIMEOUT.search(line) else LoadError(f"{what}: {line}")

    def _line(self, error: BaseException) -> str:
        """What an error says, without what only the server's developers want to see."""
        text = re.split(r"JVM stacktrace|== SQL|\n\s+at |;\s*\n'", str(error), maxsplit=1)[0]
        return self.workspace.redacted(text)[:600]


def _header(config: Config) -> Any:
    """What the connector asks for the header of each request; an OAuth token is renewed by the SDK."""
    return config.authenticate


def _summary(statement: str) -> str:
    """What a statement does, for messages: its first words, up to the name of the table."""
    words = statement.split()
    name = next((place for place, word in enumerate(words) if "`" in word), 2)
    return " ".join(words[: min(name + 1, 8)])
