"""Who may ask: Airflow's own login, and Airflow's own permissions on assets and DAGs.

Airflow protects its own routes only; the application of a plugin is open to everyone unless each route says otherwise.
"""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_asset, requires_access_dag
from fastapi import Depends, Query

from plugins.data_platform.metadata import Metadata

LOGIN = [Depends(requires_access_asset(method="GET")), Depends(requires_access_dag(method="GET"))]
"""Dependencies of every route that is not public. With `dag_id` in the query, that DAG has to be readable."""

Id = Annotated[str | None, Query(max_length=250, min_length=1, pattern=r"^[^\x00]*$")]


def metadata(session: SessionDep, user: GetUserDep, dag_id: Id = None, run_id: Id = None) -> Metadata:
    """The queries of a request, on what the user may read."""
    readable = get_auth_manager().get_authorized_dag_ids(user=user, method="GET")
    return Metadata(session, readable, dag_id, run_id)


Asked = Annotated[Metadata, Depends(metadata)]
