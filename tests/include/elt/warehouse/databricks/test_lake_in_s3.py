"""A lake in S3 that the SQL warehouse reads through an external location."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from include.elt.lake import open_lake
from include.elt.settings import load_settings
from tests.support.databricks_standin.bench import Loader
from tests.support.databricks_standin.running import StandIn
from tests.support.elt import Bench

pytestmark = pytest.mark.databricks_standin


def test_it_loads_what_is_in_the_bucket(workspace: StandIn, s3: Any, tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, lake=f"s3://{s3.bucket()}/my/lake", scratch=tmp_path / "scratch")
    lake = open_lake(settings, lambda name: s3.connection(name))
    query = "SELECT i AS id, 'é' || i AS a FROM range(1000) AS r(i)"
    manifest, location = Bench(tmp_path).publish_to(lake, query)
    result = Loader(workspace).load_from(lake, location, manifest)
    assert result.rows_total == 1000
    with duckdb.connect() as sql:
        assert sorted(workspace.rows("SELECT * FROM raw.orders")) == sorted(sql.execute(query).fetchall())
    assert [entry["sql"] for entry in workspace.entries() if f"FROM '{location}'" in entry["sql"]]
