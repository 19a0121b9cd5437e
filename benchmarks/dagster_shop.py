"""The sample shop as a user of Dagster writes it; runs in the environment of dagster.lock, without anything of ours.

Sling brings the three files into DuckDB, dbt builds what depends on them, and one job does both. `REPLICATION` is a
replication file of Sling, `WAREHOUSE` the DuckDB file, `DBT_PROJECT` a dbt project that was parsed ahead of time.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of the functions.

import os
from collections.abc import Iterator, Mapping
from typing import Any

from dagster import AssetExecutionContext, AssetKey, AssetSpec, Definitions, define_asset_job
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets
from dagster_sling import DagsterSlingTranslator, SlingConnectionResource, SlingResource, sling_assets

project = DbtProject(project_dir=os.environ["DBT_PROJECT"], target="duckdb")


class Raw(DagsterSlingTranslator):
    """Gives a raw table the key of the dbt source that it is, so that the models come after it."""

    def get_asset_spec(self, stream_definition: Mapping[str, Any]) -> AssetSpec:
        """The asset of one stream."""
        spec = super().get_asset_spec(stream_definition)
        table = stream_definition["config"]["object"].split(".")[-1]
        return spec.replace_attributes(key=AssetKey(["shop", table]), deps=[])


@sling_assets(replication_config=os.environ["REPLICATION"], dagster_sling_translator=Raw())
def raw_tables(context: AssetExecutionContext, sling: SlingResource) -> Iterator[Any]:
    """The raw tables."""
    yield from sling.replicate(context=context)


@dbt_assets(manifest=project.manifest_path, project=project, select="source:shop+")
def models(context: AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
    """The models and their tests."""
    yield from dbt.cli(["build"], context=context).stream()


defs = Definitions(
    assets=[raw_tables, models],
    jobs=[define_asset_job("shop")],
    resources={
        "dbt": DbtCliResource(project_dir=project),
        "sling": SlingResource(
            connections=[
                SlingConnectionResource(name="FILES", type="file"),
                SlingConnectionResource(
                    name="WAREHOUSE", type="duckdb", instance=os.environ["WAREHOUSE"], copy_method="csv_files"
                ),
            ]
        ),
    },
)
