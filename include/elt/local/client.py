"""The few calls to Airflow's public REST API that the local commands need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

_PAGE = 100
"""Items per request; Airflow gives no more."""


class ApiError(Exception):
    """The API refused a call; the message is the API's own."""


class Client:
    """Airflow's API, logged in when first needed.

    Args:
        url: where it listens.
        user: login.
        password: and its password.
        transport: for tests.
    """

    def __init__(self, url: str, user: str, password: str, transport: httpx.BaseTransport | None = None) -> None:
        # trust_env: a proxy or a .netrc of the user must not come between us and this computer.
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False, transport=transport)
        self._login = {"username": user, "password": password}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the server waits for them when it ends."""
        self._http.close()

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """Call the API.

        Args:
            method: of HTTP.
            path: below /api/v2.
            kwargs: for httpx.

        Returns:
            The JSON that it answers, or None for 404.

        Raises:
            ApiError: the API refuses.
            httpx.TransportError: the API cannot be reached, now.
        """
        if "Authorization" not in self._http.headers:
            self._log_in()
        response = self._http.request(method, f"/api/v2{path}", **kwargs)
        if response.status_code == httpx.codes.UNAUTHORIZED:  # tokens of long-running commands expire
            self._log_in()
            response = self._http.request(method, f"/api/v2{path}", **kwargs)
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        if response.is_error:
            raise ApiError(_detail(response))
        return response.json() if response.content else None

    def _log_in(self) -> None:
        response = self._http.post("/auth/token", json=self._login)
        if response.is_error:
            raise ApiError(f"login as {self._login['username']} failed: {_detail(response)}")
        self._http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def pages(self, path: str, key: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Every item of a listing."""
        offset = 0
        while True:
            answer = self.call("GET", path, params={**parameters, "limit": _PAGE, "offset": offset}) or {}
            items = answer.get(key, [])
            yield from items
            offset += len(items)
            if not items or offset >= answer.get("total_entries", 0):
                return

    def is_up(self) -> bool:
        """Whether the API answers, also to tasks.

        Airflow prepares the API for tasks at the first call to it, which takes seconds; asking here, while the DAG
        files are being read, spares the first tasks the wait.
        """
        try:
            return self._http.get("/execution/health").is_success
        except httpx.TransportError:
            return False

    def health(self) -> dict[str, str]:
        """Status per component, as Airflow sees it from their heartbeats."""
        answer = self._http.get("/api/v2/monitor/health").json()
        return {name: str(part.get("status")) for name, part in answer.items() if isinstance(part, dict)}

    def dag(self, dag_id: str) -> dict[str, Any] | None:
        """What Airflow knows of a DAG, or None."""
        return self.call("GET", f"/dags/{quote(dag_id, safe='')}")  # type: ignore[no-any-return]

    def dags(self) -> list[dict[str, Any]]:
        """All DAGs."""
        return list(self.pages("/dags", "dags", exclude_stale=True))

    def tasks(self, dag_id: str) -> list[dict[str, Any]]:
        """The tasks of a DAG, with what follows each."""
        return (self.call("GET", f"/dags/{quote(dag_id, safe='')}/tasks") or {}).get("tasks", [])  # type: ignore[no-any-return]

    def import_errors(self) -> list[dict[str, Any]]:
        """DAG files that could not be imported."""
        return list(self.pages("/importErrors", "import_errors"))

    def pause(self, dag_id: str, paused: bool) -> None:
        """Pause a DAG, or let it run."""
        path = f"/dags/{quote(dag_id, safe='')}"
        self.call("PATCH", path, params={"update_mask": "is_paused"}, json={"is_paused": paused})

    def ensure_pools(self, pools: Mapping[str, int]) -> list[str]:
        """Make pools, and give them their slots. A task whose pool is missing waits for ever, without an error.

        Returns:
            What was changed, for the user.
        """
        there = {pool["name"]: pool["slots"] for pool in self.pages("/pools", "pools")}
        changed = []
        for name, slots in pools.items():
            if name not in there:
                self.call(
                    "POST", "/pools", json={"name": name, "slots": slots, "description": "made from the settings"}
                )
                changed.append(f"pool {name} made ({slots} slots)")
            elif there[name] != slots:
                body = {"pool": name, "slots": slots}
                self.call("PATCH", f"/pools/{quote(name, safe='')}", params={"update_mask": "slots"}, json=body)
                changed.append(f"pool {name} changed from {there[name]} to {slots} slots")
        return changed

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run.

        Returns:
            Its run id.
        """
        body = {"logical_date": None, "conf": dict(conf)}
        answer = self.call("POST", f"/dags/{quote(dag_id, safe='')}/dagRuns", json=body)
        if answer is None:
            raise ApiError(f"there is no DAG {dag_id}")
        return str(answer["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> Run:
        """The calls that concern one run."""
        return Run(self, dag_id, run_id)

    def unfinished_runs(self, dag_id: str) -> list[str]:
        """Run ids of a DAG that Airflow takes to be running or waiting."""
        path = f"/dags/{quote(dag_id, safe='')}/dagRuns"
        return [run["dag_run_id"] for run in self.pages(path, "dag_runs", state=["running", "queued"])]


class Run:
    """One run of a DAG."""

    def __init__(self, client: Client, dag_id: str, run_id: str) -> None:
        self._client = client
        self.dag_id = dag_id
        self.run_id = run_id
        self._path = f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"

    def state(self) -> str:
        """State of the run."""
        return str((self._client.call("GET", self._path) or {}).get("state"))

    def fail(self) -> None:
        """Give the run up; its running tasks are ended by Airflow."""
        self._client.call("PATCH", self._path, params={"update_mask": "state"}, json={"state": "failed"}, timeout=10)

    def tasks(self) -> list[dict[str, Any]]:
        """Its task instances."""
        return list(self._client.pages(f"{self._path}/taskInstances", "task_instances"))

    def log(self, task_id: str, try_number: int, map_index: int = -1) -> list[dict[str, Any]]:
        """What one try of a task logged; a line that is not structured becomes an `event` alone."""
        path = f"{self._path}/taskInstances/{quote(task_id, safe='')}/logs/{try_number}"
        parameters = {"full_content": True, "map_index": map_index}
        answer = self._client.call("GET", path, params=parameters, headers={"Accept": "application/json"}) or {}
        return [line if isinstance(line, dict) else {"event": str(line)} for line in answer.get("content", [])]

    def asset_events(self) -> list[dict[str, Any]]:
        """What its tasks have told about assets."""
        parameters = {"source_dag_id": self.dag_id, "source_run_id": self.run_id}
        return list(self._client.pages("/assets/events", "asset_events", **parameters))


def _detail(response: httpx.Response) -> str:
    """The API's own words for a refusal."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:300]
    return f"{detail} (HTTP {response.status_code})"
