"""Statements that Spark does not run as they were sent, and why that is right. What is not listed fails the suite.

Spark's own parser and analyser are the witness for our SQL. Each of these statements has another, weaker one: our
reading of the documentation and of the clients.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

KNOWN: dict[str, tuple[str, str]] = {
    "emulated:copy-into": (
        r"COPY INTO `\w+`\.`(smoke_\w+_)?ops`\.`load__\w+` FROM '(/Volumes|s3://)",
        "Databricks only. The Parquet files are read by Spark and inserted; a column of another type is refused.",
    ),
    "emulated:read-files": (
        r"SELECT path, (sha2\(content, 256\)|length) FROM read_files\(",
        "Databricks' table function; Spark's binaryFile source reads the same files, and Spark computes the digest.",
    ),
    "emulated:volume": (
        r"CREATE VOLUME (IF NOT EXISTS lake\.files|`\w+`\.`smoke_\w+_raw`\.`lake`)",
        "Set-up of the tests, and of the trial; volumes are folders here.",
    ),
    "emulated:describe-as-json": (
        r"DESCRIBE (TABLE )?EXTENDED \S+ AS JSON",
        "dbt-databricks reads columns and properties from it; Spark's own has other fields for our catalog.",
    ),
    "emulated:metadata": (r"Get(Schemas|Tables|Catalogs)", "Calls of the Thrift service that are no statements."),
    "rewritten:information-schema": (
        r".*\binformation_schema\b",
        "Spark has none; its views are made from the catalog, tags, masks and constraints are empty.",
    ),
    "rewritten:use-catalog": (r"USE CATALOG", "Spark calls it SET CATALOG."),
    "rewritten:store-assignment": (
        r"INSERT (INTO|OVERWRITE)",
        "Delta casts what is written to the column's type; Spark wants the cast in the statement for our catalog.",
    ),
    "accepted:optimize": (
        r"OPTIMIZE",
        "dbt-databricks sends it after a model with liquid clustering; rows in memory have no files.",
    ),
    "accepted:tags": (r"ALTER (TABLE|VIEW)", "Governance; the catalog knows no tags."),
    "accepted:analyze": (r"ANALYZE TABLE", "Statistics; rows in memory have none."),
}


def unlisted(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The statements of a journal that are not native and not listed."""
    found = set()
    for entry in entries:
        how, sql = entry["how"], re.sub(r"^\s*/\*.*?\*/\s*", "", entry["sql"], flags=re.S).strip()
        if how in ("native", "refused"):
            continue
        pattern = KNOWN.get(how, ("", ""))[0]
        if not pattern or not re.match(pattern, sql, re.I | re.S):
            found.add(f"{how}: {' '.join(sql.split())[:200]}")
    return sorted(found)
