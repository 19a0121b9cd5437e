"""`make smoke-databricks`: the way of the sample shop through a real workspace, beside everything that is there.

usage: python -m include.elt.smoke [--orders N]

It makes schemas of its own, extracts the sample files, or generated ones with more orders, into a volume of its own,
loads them, builds the dbt project, does the same with changed files, compares every table with DuckDB, removes its
schemas, and prints what it did. The workspace is named by the environment, as for other tools of Databricks:

    DATABRICKS_HOST, DATABRICKS_HTTP_PATH, DATABRICKS_CATALOG,
    DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, or DATABRICKS_TOKEN
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import duckdb

from include.elt.connections.databricks import Workspace
from include.elt.connections.databricks_files import Volume
from include.elt.contract import read_contracts
from include.elt.errors import EltError, SettingsError
from include.elt.extract import Extraction
from include.elt.lake import Lake
from include.elt.lake.local import LocalLake
from include.elt.lake.remote import RemoteLake
from include.elt.paths import DBT_PROJECT, REPLICATIONS, SAMPLE_DATA
from include.elt.replication import Replication, read_replication
from include.elt.settings import Settings, load_settings
from include.elt.warehouse import Warehouse
from include.elt.warehouse.databricks import DatabricksWarehouse
from include.elt.warehouse.duckdb import DuckDBWarehouse
from include.sample_data.generate import generate

SCHEMAS = ("raw", "ops", "staging", "intermediate", "marts", "snapshots", "analytics")
"""Schemas that may be made, behind the prefix; nothing else is ever removed."""

_PREFIX = re.compile(r"smoke_[0-9a-f]{8}_")


class SmokeError(EltError):
    """The trial did not go as it should."""


def workspace_of(environment: Mapping[str, str]) -> tuple[Workspace, str]:
    """The workspace and the catalog that the environment names.

    Raises:
        SettingsError: a variable is missing.
    """
    wanted = ("DATABRICKS_HOST", "DATABRICKS_HTTP_PATH", "DATABRICKS_CATALOG")
    missing = [name for name in wanted if not environment.get(name)]
    token = environment.get("DATABRICKS_TOKEN")
    if not token and not (environment.get("DATABRICKS_CLIENT_ID") and environment.get("DATABRICKS_CLIENT_SECRET")):
        missing.append("DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET (or DATABRICKS_TOKEN)")
    if missing:
        raise SettingsError(f"missing in the environment: {', '.join(missing)}; see docs/databricks.md")
    connection: Any = SimpleNamespace(
        conn_id="of the environment",
        conn_type="databricks",
        host=environment["DATABRICKS_HOST"],
        port=None,
        schema=None,
        login=None if token else environment["DATABRICKS_CLIENT_ID"],
        password=token or environment["DATABRICKS_CLIENT_SECRET"],
        extra_dejson={"http_path": environment["DATABRICKS_HTTP_PATH"], "service_principal_oauth": not token},
    )
    return Workspace.of(connection), environment["DATABRICKS_CATALOG"]


class Smoke:
    """One trial.

    Args:
        workspace: the workspace.
        catalog: the catalog in which the schemas are made.
        folder: for everything on this computer.
        tell: prints a line.
        orders: orders to generate; 0 for the sample files.
    """

    def __init__(
        self,
        workspace: Workspace,
        catalog: str,
        folder: Path,
        tell: Callable[[str], None] = print,
        orders: int = 0,
    ) -> None:
        self.workspace = workspace
        self.catalog = catalog
        self.folder = folder
        self.tell = tell
        self.orders = orders
        self.prefix = f"smoke_{uuid4().hex[:8]}_"
        self.settings: Settings = load_settings(
            warehouse="duckdb", duckdb_path=folder / "smoke.duckdb", lake=folder / "lake", shop_files=folder / "files"
        )
        limits = self.settings.databricks_wake_timeout, self.settings.load_timeout
        self.databricks = DatabricksWarehouse(workspace, catalog, *limits, {"dag": "smoke"}, self.prefix)
        self.duckdb = DuckDBWarehouse(folder / "smoke.duckdb", 60, 600)
        self._began = time.monotonic()

    def run(self) -> None:
        """Do everything, and clean up whatever happens.

        Raises:
            EltError: a step failed, or a table differs.
        """
        self.tell(f"workspace {self.workspace.host}, catalog {self.catalog}, schemas {self.prefix}*")
        if self.orders:
            self._step(f"{self.orders:,} orders are generated", self._generate)
        else:
            shutil.copytree(SAMPLE_DATA, self.folder / "files", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        project = self._project()
        try:
            self._step("the SQL warehouse answers", lambda: self._sql("SELECT 1"))
            self._step("schema and volume are made", self._make_volume)
            for number in (1, 2):
                if number == 2:
                    self._step("an order is changed, one is added, one deleted", self._change_files)
                self._step(f"run {number}: extracted and loaded", lambda n=number: self._load(f"smoke {n}"))  # type: ignore[misc]
                self._step(f"run {number}: dbt build", lambda: self._dbt(project))
                self._step(f"run {number}: every raw table and mart is equal to DuckDB's", self._compare)
            self._step("loading an extraction again changes nothing", self._load_again)
        finally:
            self._step("schemas are removed", self.clean)

    def clean(self) -> str:
        """Remove the schemas of this trial, and nothing else."""
        if not _PREFIX.fullmatch(self.prefix):
            raise SmokeError(f"the prefix {self.prefix!r} is none of a trial; nothing was removed")
        for schema in SCHEMAS:
            self._sql(f"DROP SCHEMA IF EXISTS `{self.catalog}`.`{self.prefix}{schema}` CASCADE")
        return f"{len(SCHEMAS)} names"

    def _step(self, what: str, do: Callable[[], Any]) -> None:
        started = time.monotonic()
        result = do()
        detail = f" ({result})" if isinstance(result, str) else ""
        self.tell(f"{time.monotonic() - self._began:7.1f} s  {what}{detail}, {time.monotonic() - started:.1f} s")

    def _sql(self, statement: str) -> list[tuple[Any, ...]]:
        session = self.databricks.session(task="smoke")
        try:
            return session.rows(statement)
        finally:
            session.close()

    def _generate(self) -> None:
        customers = max(1, self.orders // 10)
        generate(self.folder / "files", customer_count=customers, order_count=self.orders)

    def _make_volume(self) -> None:
        self._sql(f"CREATE SCHEMA `{self.catalog}`.`{self.prefix}raw`")
        self._sql(f"CREATE VOLUME `{self.catalog}`.`{self.prefix}raw`.`lake`")

    def _replication(self) -> Replication:
        return read_replication(REPLICATIONS / "shop_files.yaml", self.settings.variables())

    def _lakes(self) -> list[tuple[Lake, Warehouse]]:
        volume = Volume(self.workspace, f"/Volumes/{self.catalog}/{self.prefix}raw/lake")
        return [
            (RemoteLake(volume, "", self.folder / "scratch"), self.databricks),
            (LocalLake(self.folder / "lake"), self.duckdb),
        ]

    def _load(self, run_id: str) -> str:
        replication, contracts, rows = self._replication(), read_contracts(), 0
        for stream in replication.streams:
            for lake, warehouse in self._lakes():
                extraction = Extraction(replication, stream, contracts[stream.table], self.settings, lake=lake)
                manifest, location = extraction.run(run_id)
                rows += warehouse.load_from(lake, str(location), manifest, stream.meta).rows_loaded
        return f"{rows // 2:,} rows"

    def _load_again(self) -> None:
        replication = self._replication()
        stream = replication.streams[0]
        [(lake, warehouse), _] = self._lakes()
        extraction = Extraction(replication, stream, read_contracts()[stream.table], self.settings, lake=lake)
        manifest, location = extraction.run("smoke again")
        results = [warehouse.load_from(lake, str(location), manifest, stream.meta) for _ in range(2)]
        if not results[1].repeated or results[0].rows_total != results[1].rows_total:
            raise SmokeError(f"{stream.table} was loaded twice: {results}")

    def _project(self) -> Path:
        """A copy of the dbt project whose sources lie in the schemas of this trial."""
        project = self.folder / "dbt"
        shutil.copytree(DBT_PROJECT, project, ignore=shutil.ignore_patterns("target", "logs"))
        for file in project.rglob("sources.yml"):
            text = file.read_text(encoding="utf-8")
            place = "\"{{ 'PREFIXraw' if target.type == 'databricks' else 'raw' }}\"".replace("PREFIX", self.prefix)
            text = re.sub(r"^(\s+)schema: raw$", rf"\1schema: {place}", text, flags=re.M)
            ops = rf"\1- name: ops\n\1  schema: {place.replace('raw', 'ops')}"
            text = re.sub(r"^(\s+)- name: ops$", ops, text, flags=re.M)
            file.write_text(text, encoding="utf-8")
        return project

    def _dbt(self, project: Path) -> str:
        chosen = ["source:shop+"]
        secrets = self.workspace.dbt_environment({"project": "jdbt", "dag": "smoke"}, self.settings.dbt_timeout)
        beside = {"DATABRICKS_CATALOG": self.catalog, "DBT_SCHEMA_PREFIX": self.prefix.rstrip("_")}
        environments: dict[str, dict[str, str]] = {
            "databricks": beside | secrets,
            "duckdb": {"DUCKDB_PATH": str(self.duckdb.path)},
        }
        for target, own in environments.items():
            where = ["--project-dir", str(project), "--profiles-dir", str(project), "--target", target]
            result = subprocess.run(
                [sys.executable, "-m", "dbt.cli.main", "--quiet", "build", *where, "--select", *chosen],
                env={name: value for name, value in os.environ.items() if not name.startswith("DATABRICKS_")} | own,
                cwd=project,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=self.settings.dbt_timeout,
                check=False,
            )
            if result.returncode:
                text = result.stdout[-3000:]
                for secret in self.workspace.secrets:
                    text = text.replace(secret, "***")
                raise SmokeError(f"dbt build failed on {target}:\n{text}")
        return "both targets"

    def _compare(self) -> str:
        rows = 0
        with duckdb.connect(str(self.duckdb.path), read_only=True) as ours:
            ours.execute("SET TimeZone = 'UTC'")
            tables = ours.execute(
                "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE schema_name IN ('raw', 'marts')"
                " ORDER BY 1"
            ).fetchall()
            for (table,) in tables:
                here = sorted(ours.table(table).fetchall(), key=str)
                there = sorted(self._sql(f"TABLE `{self.catalog}`.{self.prefix}{table}"), key=str)
                rows += len(here)
                if here != there:
                    one, other = set(here), set(there)
                    odd = [row for row in there if row not in one][:3] + [row for row in here if row not in other][:3]
                    raise SmokeError(f"{table} differs: {len(here)} rows in DuckDB, {len(there)} in Databricks: {odd}")
        return f"{len(tables)} tables, {rows:,} rows"

    def _change_files(self) -> None:
        file = self.folder / "files" / "raw_orders.csv"
        with file.open(encoding="utf-8", newline="") as stream:
            header, *rows = csv.reader(stream)
        status = header.index("status")
        rows[0][status] = "returned"
        rows.append([str(len(rows) + 1000), *rows[0][1:]])
        paid = {row[header.index("id")] for row in rows[-2:-1]}
        rows = [row for row in rows if row[header.index("id")] not in paid]
        with file.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([header, *rows])
        payments = self.folder / "files" / "raw_payments.csv"
        with payments.open(encoding="utf-8", newline="") as stream:
            header, *rows = csv.reader(stream)
        rows = [row for row in rows if row[header.index("order_id")] not in paid]
        with payments.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([header, *rows])


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description="The sample shop through a real workspace, in schemas of its own.")
    parser.add_argument("--orders", type=int, default=0, metavar="N", help="orders to generate, instead of the sample")
    orders = parser.parse_args().orders
    try:
        workspace, catalog = workspace_of(os.environ)
        with tempfile.TemporaryDirectory(prefix="smoke-databricks-") as folder:
            Smoke(workspace, catalog, Path(folder), lambda line: print(line, flush=True), orders).run()
    except EltError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    print("everything was as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
