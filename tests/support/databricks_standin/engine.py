"""Spark in this process, with a catalog of three levels for each catalog of Unity Catalog."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema

MEMORY = "1g"
"""Heap of the one Java process."""


def parts_of(name: str) -> list[str]:
    """The parts of a name, without their backticks."""
    return [part.strip("`") for part in re.findall(r"`[^`]+`|[^.\s]+", name.strip())]


def quoted(parts: list[str]) -> str:
    """A qualified name."""
    return ".".join(f"`{part}`" for part in parts)


def literal(value: Any) -> str:
    """A value as Spark SQL."""
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


class Engine:
    """One Spark for all sessions.

    Args:
        folder: its working files.
        jar: the compiled catalog.
        catalogs: names of the catalogs there are.
    """

    def __init__(self, folder: Path, jar: Path, catalogs: list[str]) -> None:
        logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
        self.catalogs = catalogs
        settings = {
            "spark.jars": jar,
            "spark.driver.extraClassPath": jar,
            "spark.driver.memory": MEMORY,
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            # Thousands of tiny statements: to compile each, and to plan it anew on the way, would take most time.
            "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
            "spark.sql.codegen.wholeStage": "false",
            "spark.sql.codegen.factoryMode": "NO_CODEGEN",
            "spark.sql.adaptive.enabled": "false",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.sql.shuffle.partitions": "1",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.ansi.enabled": "true",
            "spark.sql.defaultCatalog": catalogs[0],
            "spark.sql.warehouse.dir": folder / "warehouse",
            "spark.local.dir": folder / "spark",
            **{f"spark.sql.catalog.{name}": "StandInCatalog" for name in catalogs},
        }
        builder = SparkSession.builder.master("local[2]").appName("databricks-standin")
        for name, value in settings.items():
            builder = builder.config(name, str(value))
        self.root = builder.getOrCreate()
        self.root.sparkContext.setLogLevel("OFF")
        self._catalog = self.root.sparkContext._jvm.StandInCatalog

    def relations(self, catalog: str) -> list[tuple[str, str, str, str, str]]:
        """Schema, name, kind, provider and comment of the tables and views of a catalog."""
        return [tuple(row) for row in self._catalog.relations(catalog)]

    def view_text(self, path: list[str]) -> str:
        """The query of a view."""
        return str(self._catalog.viewText(*path))

    def clustered_by(self, path: list[str]) -> str:
        """The clustering key of a table, as Spark prints it."""
        return str(self._catalog.clusteredBy(*path))


class Session:
    """One client's session.

    Args:
        engine: the engine.
        catalog: its first catalog.
        schema: its first schema, if it is there.
        settings: what the client sent, such as QUERY_TAGS.
    """

    def __init__(self, engine: Engine, catalog: str | None, schema: str | None, settings: dict[str, str]) -> None:
        self.engine = engine
        self.settings = settings
        self.lock = threading.Lock()
        self.spark = engine.root.newSession()
        if catalog in engine.catalogs:
            self.spark.sql(f"SET CATALOG `{catalog}`")
        if schema and schema in {row[0] for row in self.spark.sql("SHOW SCHEMAS").collect()}:
            self.spark.sql(f"USE SCHEMA `{schema}`")
        for name, value in settings.items():
            if name.lower() == "timezone":
                self.spark.conf.set("spark.sql.session.timeZone", value)
            elif name.lower() == "ansi_mode":
                self.spark.conf.set("spark.sql.ansi.enabled", value)

    def path(self, name: str) -> list[str]:
        """Catalog, schema and name of a relation."""
        parts = parts_of(name)
        if len(parts) == 3:
            return parts
        catalog, schema = self.spark.sql("SELECT current_catalog(), current_schema()").first() or ("", "")
        return [catalog, *parts] if len(parts) == 2 else [catalog, schema, *parts]

    def sql(self, text: str) -> pa.Table:
        """Run a statement. What it gives is fetched by a job of Spark only where it is a query."""
        frame = self.spark.sql(text)
        if not frame.columns:
            return pa.table({})
        if re.match(r"(SHOW|DESC|DESCRIBE)\s", text, re.I):
            rows = [row.asDict() for row in frame.collect()]
            return pa.Table.from_pylist(rows, schema=to_arrow_schema(frame.schema))
        return frame.toArrow()

    def rows(self, rows: list[tuple[Any, ...]], columns: str) -> DataFrame:
        """A frame of these rows.

        Args:
            rows: the rows.
            columns: name and type of each column, e.g. `name string, place int`.
        """
        pairs = [column.split() for column in columns.split(", ")]
        casts = ", ".join(f"CAST(`{name}` AS {kind}) AS `{name}`" for name, kind in pairs)
        names = ", ".join(f"`{name}`" for name, _ in pairs)
        lines = ", ".join(f"({', '.join(map(literal, row))})" for row in rows or [(None,) * len(pairs)])
        return self.spark.sql(f"SELECT {casts} FROM VALUES {lines} AS t({names}) LIMIT {len(rows)}")
