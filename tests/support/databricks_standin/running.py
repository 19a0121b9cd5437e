"""The stand-in as a test sees it: started, asked, and told what has to go wrong."""

from __future__ import annotations

import json
import os
import secrets
import ssl
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.databricks_standin.environment import HOST, JAR, PYTHON, ROOT

HTTP_PATH = "/sql/1.0/warehouses/standin"
CATALOGS = ("main", "prod")
CLIENT_ID = "5c0ffee0-0000-4000-8000-000000000001"


@dataclass
class StandIn:
    """A running stand-in.

    Attributes:
        folder: its files; `journal.jsonl` is what it was asked.
        token: the personal access token that it takes.
        secret: the OAuth secret of the service principal `CLIENT_ID`.
    """

    folder: Path
    token: str = field(default_factory=lambda: "dapi" + secrets.token_hex(16), repr=False)
    secret: str = field(default_factory=lambda: "dose" + secrets.token_hex(16), repr=False)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def trust(self) -> dict[str, str]:
        """Environment of a program that is to trust its certificate."""
        return {"REQUESTS_CA_BUNDLE": str(self.ca), "SSL_CERT_FILE": str(self.ca)}

    def connection(self, login: str = "principal", **fields: Any) -> Any:
        """An Airflow connection.

        Args:
            login: `principal` or `token`.
            fields: further fields; `extra` is added to the extras.
        """
        extra = {"http_path": HTTP_PATH} | fields.pop("extra", {})
        given: dict[str, Any] = {"login": None, "password": self.token}
        if login == "principal":
            extra = {"service_principal_oauth": True, **extra}
            given = {"login": CLIENT_ID, "password": self.secret}
        given |= {
            "conn_id": "databricks_default",
            "conn_type": "databricks",
            "host": HOST,
            "port": None,
            "schema": None,
        }
        return SimpleNamespace(**given | fields, extra_dejson=extra)

    def connection_json(self, login: str = "principal", **fields: Any) -> str:
        """The same for AIRFLOW_CONN_DATABRICKS_DEFAULT."""
        found = self.connection(login, **fields)
        given = {name: getattr(found, name) for name in ("conn_type", "host", "login", "password", "schema")}
        return json.dumps({name: value for name, value in given.items() if value} | {"extra": found.extra_dejson})

    def order(self, **faults: Any) -> dict[str, Any]:
        """Order faults; without any, all of them end."""
        request = urllib.request.Request(
            f"https://{HOST}/standin/faults",
            data=json.dumps(faults).encode(),
            headers={"Authorization": f"Bearer {self.token}"},
        )
        context = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def wait_for_held(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until a statement is held.

        Args:
            meanwhile: called again and again; may raise.
        """

        def condition(held: int) -> bool:
            meanwhile()
            return held > 0

        self._wait(condition, 240, "no statement was held")

    def wait_for_free(self, seconds: float = 240) -> None:
        """Wait until none is, and what was let go has ended."""
        self._wait(lambda held: held == 0, seconds, "a statement is still held")

    def _wait(self, condition: Callable[[int], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition(int(self.order(ask=True)["held"])):
            assert time.monotonic() < deadline, what
            time.sleep(0.05)

    def entries(self, event: str = "statement", since: int = 0) -> list[dict[str, Any]]:
        """What the journal holds of a kind, from a line on."""
        lines = (self.folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()[since:]
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    def mark(self) -> int:
        """Number of lines in the journal so far."""
        return len((self.folder / "journal.jsonl").read_text(encoding="utf-8").splitlines())

    def counts(self) -> Counter[str]:
        """Statements per class."""
        return Counter(entry["how"].split(":")[0] for entry in self.entries())

    def rows(self, statement: str, catalog: str = "main") -> list[tuple[Any, ...]]:
        """Ask it, with the token."""
        from databricks import sql

        with (
            sql.connect(
                HOST,
                HTTP_PATH,
                access_token=self.token,
                catalog=catalog,
                enable_telemetry=False,
                _tls_trusted_ca_file=str(self.ca),
                session_configuration={"timezone": "UTC", "QUERY_TAGS": "by:test"},
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            return [tuple(row) for row in cursor.fetchall()]

    def clear(self, catalog: str = "main") -> None:
        """Remove every schema and every file of the lake."""
        for (name,) in self.rows(f"SHOW SCHEMAS IN `{catalog}`"):
            if name not in ("default", "information_schema", "lake"):
                self.rows(f"DROP SCHEMA `{catalog}`.`{name}` CASCADE")


@contextmanager
def running(folder: Path, s3: dict[str, str] | None = None) -> Iterator[StandIn]:
    """The stand-in, for as long as the block lasts.

    Args:
        folder: for its files.
        s3: endpoint, key and secret of the server behind its external locations.
    """
    standin = StandIn(folder)
    command = [PYTHON, "-m", "tests.support.databricks_standin.server"]
    command += ["--folder", folder, "--jar", JAR, "--host", HOST, "--catalogs", ",".join(CATALOGS)]
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "JAVA_HOME", "LANG") if name in os.environ}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            env=environment | {"SPARK_LOCAL_IP": "127.0.0.1"},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        assert process.stdin is not None
        access = {"token": standin.token, "principals": {CLIENT_ID: standin.secret}, "s3": s3}
        process.stdin.write(json.dumps(access).encode() + b"\n")
        process.stdin.flush()
        deadline = time.monotonic() + 120
        while not (folder / "ready").exists():
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the stand-in did not start within two minutes"
            time.sleep(0.1)
        for catalog in CATALOGS:
            standin.rows("CREATE SCHEMA IF NOT EXISTS lake", catalog)
            standin.rows("CREATE VOLUME IF NOT EXISTS lake.files", catalog)
        yield standin
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        if process.poll() is None:
            process.kill()
            process.wait(20)
