"""The queries of docs/databricks.md are SQL that Spark's parser takes; the tables they ask only a workspace has."""

from __future__ import annotations

import re

import pytest
from databricks.sql.exc import ServerOperationError

from include.elt.paths import ROOT
from tests.support.databricks_standin.running import StandIn

pytestmark = pytest.mark.databricks_standin

QUERIES = [
    block
    for block in re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "databricks.md").read_text(encoding="utf-8"), re.S)
    if "system." in block
]


def test_the_queries_of_the_documentation_are_sql(workspace: StandIn) -> None:
    assert len(QUERIES) == 2
    for query in QUERIES:
        with pytest.raises(ServerOperationError, match=r"TABLE_OR_VIEW_NOT_FOUND.*`system`"):
            workspace.rows(query)
    with pytest.raises(ServerOperationError, match="PARSE_SYNTAX_ERROR"):
        workspace.rows(QUERIES[0].replace("GROUP BY ALL", "GROUP ALL"))
