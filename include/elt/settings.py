"""Settings: what differs between a laptop and production, and nothing else.

Every field of `Settings` is an environment variable of the same name in capitals; a `.env` file in the project's root
gives the ones that the environment does not. The table in README.md is generated from the fields (`make readme`).
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from include.elt.errors import SettingsError
from include.elt.paths import REPLICATIONS, ROOT, SAMPLE_DATA, shown

EXTRACT_POOL = "extract"
"""Airflow pool of the extract tasks."""

WAREHOUSE_POOL = "warehouse"
"""Airflow pool of everything that writes to the warehouse."""

__all__ = ["EXTRACT_POOL", "WAREHOUSE_POOL", "Settings", "SettingsError", "load_settings", "settings_table"]


def _from_root(path: Path) -> Path:
    """Make a relative path absolute, seen from the project's root."""
    return (ROOT / path.expanduser()).resolve()


def _not_a_url(path: object) -> object:
    """Refuse a URL where a local path is needed; as a path it would quietly become a folder of that odd name."""
    if isinstance(path, str) and "://" in path:
        raise ValueError("a local path is needed, not a URL")
    return path


def _s3_url(text: str) -> str:
    """Check the URL of a folder in S3; returns it without a slash at its end."""
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/\\\x00-\x1f\x7f*?{}]+)*/*", text):
        raise ValueError("s3://bucket/prefix is needed")
    return text.rstrip("/")


def _place_of_lake(given: object) -> object:
    """A path seen from the project's root, the URL of a folder in S3, or a folder in a volume of Unity Catalog."""
    if isinstance(given, str) and "://" in given:
        if not given.startswith("s3://"):
            raise ValueError("a local path, s3://bucket/prefix or /Volumes/catalog/schema/volume is needed")
        return _s3_url(given)
    if isinstance(given, str) and re.match(r"/+Volumes(/|$)", given):
        if not re.fullmatch(r"/Volumes(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){3,}/*", given):
            raise ValueError("/Volumes/catalog/schema/volume, with or without a folder behind it, is needed")
        return given.rstrip("/")
    return _from_root(Path(given)) if isinstance(given, str | Path) else given


ProjectPath = Annotated[Path, BeforeValidator(_not_a_url), AfterValidator(_from_root)]
PlaceOfLake = Annotated[Path | str, BeforeValidator(_place_of_lake)]
S3Url = Annotated[str, AfterValidator(_s3_url)]
Seconds = Annotated[int, Field(gt=0, le=7 * 24 * 3600)]


class Settings(BaseSettings):
    """The settings of one deployment. Field descriptions are the documentation."""

    model_config = SettingsConfigDict(
        env_file=ROOT / ".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    warehouse: Literal["duckdb", "databricks"] = Field("duckdb", description="Warehouse that is loaded and transformed")
    duckdb_path: ProjectPath = Field(
        Path("data/warehouse.duckdb"), validate_default=True, description="DuckDB file; its folder is made if missing"
    )
    databricks_connection: str = Field(
        "databricks_default",
        min_length=1,
        description="Airflow connection of type `databricks`; see docs/databricks.md",
    )
    databricks_catalog: str = Field(
        "main", pattern=r"^[a-z0-9_]+$", description="Catalog of Unity Catalog that holds this environment's schemas"
    )
    databricks_slots: int = Field(
        4, ge=1, le=128, description="Loads and dbt builds at a time on Databricks (slots of the pool `warehouse`)"
    )
    databricks_wake_timeout: Seconds = Field(
        600, description="Seconds to wait for a SQL warehouse that is stopped, or busy"
    )
    lake: PlaceOfLake = Field(
        Path("data/lake"),
        validate_default=True,
        description="Folder of the typed Parquet files and their manifests: a local path, `s3://bucket/prefix` or"
        " `/Volumes/catalog/schema/volume`",
    )
    lake_connection: str = Field(
        "aws_default", min_length=1, description="Airflow connection of type `aws` for a lake in S3"
    )
    scratch: ProjectPath | None = Field(
        None,
        description="Local folder for what is on its way to or from S3 or a volume; by default the system's temporary"
        " one",
    )
    lake_keep: int = Field(
        5, ge=2, le=10_000, description="Extractions kept per stream in the lake; older ones are removed after a load"
    )
    artifacts: ProjectPath = Field(
        Path("data/artifacts"), validate_default=True, description="Folder of dbt's run results, one folder per run"
    )
    artifacts_keep: int = Field(30, ge=1, le=10_000, description="Runs whose results of dbt are kept")
    shop_source: Literal["files", "s3", "postgres", "mssql"] = Field(
        "files", description="Where the shop's tables come from: `include/replications/shop_<source>.yaml`"
    )
    shop_files: ProjectPath = Field(
        SAMPLE_DATA, validate_default=True, description="Folder of the shop's CSV files when `SHOP_SOURCE=files`"
    )
    shop_s3: S3Url | None = Field(
        None, description="Folder of the shop's CSV files when `SHOP_SOURCE=s3`: `s3://bucket/prefix`"
    )
    schema_prefix: str = Field(
        "",
        pattern=r"^[a-z][a-z0-9_]*$|^$",
        description="Prefix of dbt's schemas for a developer's own copies, e.g. `alice`; empty in production",
    )
    sling_binary: ProjectPath | None = Field(
        None, description="Sling binary to use instead of the one from the locked PyPI package"
    )
    extract_slots: int = Field(2, ge=1, le=128, description="Extractions at a time (slots of the pool `extract`)")
    extract_timeout: Seconds = Field(3600, description="Seconds until a running Sling process is killed")
    extract_memory: str = Field(
        "512MB", pattern=r"^[1-9][0-9]*(MB|GB)$", description="Memory limit for casting one stream; more goes to disk"
    )
    load_timeout: Seconds = Field(3600, description="Seconds until a load is given up and rolled back")
    lock_timeout: Seconds = Field(120, description="Seconds a load waits for a DuckDB file that another process holds")
    dbt_timeout: Seconds = Field(7200, description="Seconds until a dbt build is given up")
    fast_triggerer: bool = Field(
        True,
        description="Let the triggerer handle dbt's models more cheaply than Airflow would, see docs/dbt.md; read when"
        " it starts",
    )

    def pools(self) -> dict[str, int]:
        """Airflow pools that have to exist before the first run: name → slots.

        A DuckDB file has one writer, so its pool has one slot.
        """
        return {
            EXTRACT_POOL: self.extract_slots,
            WAREHOUSE_POOL: self.databricks_slots if self.warehouse == "databricks" else 1,
        }

    @property
    def wait_timeout(self) -> int:
        """Seconds that may pass until the warehouse lets us in."""
        return self.databricks_wake_timeout if self.warehouse == "databricks" else self.lock_timeout

    def variables(self) -> dict[str, str]:
        """What a replication file may use under `env:`: the environment, `.env`, and the shop's settings.

        Without `SHOP_S3` the replication can still be checked; `shop_replication` refuses to choose it.
        """
        shop = {"SHOP_FILES": str(self.shop_files), "SHOP_S3": self.shop_s3 or "s3://bucket"}
        given = {**dotenv_values(ROOT / ".env"), **os.environ, **shop}
        return {name: value for name, value in given.items() if value is not None}

    def shop_replication(self) -> Path:
        """The replication file of the chosen source of the shop.

        Raises:
            SettingsError: there is no replication for that source, or `SHOP_S3` is missing for S3.
        """
        if self.shop_source == "s3" and not self.shop_s3:
            raise SettingsError("SHOP_SOURCE='s3' needs SHOP_S3: the folder of the CSV files, s3://bucket/prefix")
        file = REPLICATIONS / f"shop_{self.shop_source}.yaml"
        if not file.is_file():
            there = sorted(path.stem.removeprefix("shop_") for path in REPLICATIONS.glob("shop_*.yaml"))
            raise SettingsError(
                f"SHOP_SOURCE={self.shop_source!r}: there is no {shown(file)}; available: {', '.join(there)}"
            )
        return file

    def dbt_environment(self) -> dict[str, str]:
        """Environment variables that dbt/profiles.yml and the dbt macros read. Holds no secret."""
        catalog = {"DATABRICKS_CATALOG": self.databricks_catalog} if self.warehouse == "databricks" else {}
        return catalog | {
            "DUCKDB_PATH": str(self.duckdb_path),
            "DBT_SCHEMA_PREFIX": self.schema_prefix,
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        }

    def sling(self) -> Path:
        """The Sling binary: `SLING_BINARY`, or the one of the locked package for this platform.

        Raises:
            SettingsError: the given file cannot be executed, or there is no package for this platform.
        """
        if self.sling_binary is not None:
            if not os.access(self.sling_binary, os.X_OK) or self.sling_binary.is_dir():
                raise SettingsError(f"SLING_BINARY='{self.sling_binary}' is refused: not a file that can be executed")
            return self.sling_binary
        try:
            if os.uname().machine == "aarch64":
                from sling_linux_arm64 import SLING_BIN
            else:
                from sling_linux_amd64 import SLING_BIN
        except ImportError as error:
            raise SettingsError(
                f"there is no Sling binary for {sys.platform} {os.uname().machine}; set SLING_BINARY to yours"
            ) from error
        return Path(str(SLING_BIN))


def _sentence(error: ErrorDetails, given: dict[str, Any]) -> str:
    """One refused setting in one line: its name, what it got, what is allowed."""
    name = str(error["loc"][0]).upper() if error["loc"] else "settings"
    got = given.get(name.lower(), error.get("input"))
    if error["type"] == "literal_error":
        allowed = f"allowed: {error['ctx']['expected']}"
    elif error["type"] == "string_pattern_mismatch":
        allowed = f"allowed: text that matches {error['ctx']['pattern']}"
    else:
        allowed = error["msg"].removeprefix("Value error, ")
        allowed = allowed[0].lower() + allowed[1:]
    return f"{name}={got!r} is refused; {allowed}"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment and `.env`.

    Args:
        overrides: values by field name that win over both; for tests.

    Returns:
        The settings, all values checked.

    Raises:
        SettingsError: one line per refused setting with its name, what it got and what is allowed.
    """
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        given = {name.lower(): value for name, value in os.environ.items()} | overrides
        raise SettingsError("\n".join(_sentence(each, given) for each in error.errors())) from None
    if settings.warehouse == "databricks" and isinstance(settings.lake, Path):
        raise SettingsError(
            f"LAKE='{shown(settings.lake)}' is refused with WAREHOUSE=databricks, which cannot read it; allowed:"
            " /Volumes/catalog/schema/volume or s3://bucket/prefix"
        )
    return settings


def settings_table() -> str:
    """The settings as the Markdown table that stands in README.md."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = shown(field.default) if isinstance(field.default, Path) else str(field.default or "")
        allowed = getattr(field.annotation, "__args__", ()) if "Literal" in str(field.annotation) else ()
        choice = f" ({' / '.join(map(str, allowed))})" if allowed else ""
        rows.append(f"| `{name.upper()}` | {f'`{default}`' if default else ''} | {field.description}{choice} |")
    return "\n".join(rows)
