"""How a statement is answered: by Spark as it stands, after a rewrite that has a name, or by the stand-in itself."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import pyarrow as pa

from tests.support.databricks_standin import information_schema
from tests.support.databricks_standin.engine import Session, literal, parts_of, quoted
from tests.support.databricks_standin.volumes import Volumes

_ACCEPTED = {
    "accepted:optimize": r"OPTIMIZE\b",
    "accepted:analyze": r"ANALYZE\s+TABLE\b",
    "accepted:tags": r"ALTER\s+(TABLE|VIEW|SCHEMA)\s+\S+\s+(ALTER\s+COLUMN\s+\S+\s+)?(SET|UNSET)\s+TAGS\b",
    "accepted:grant": r"(GRANT|REVOKE)\b",
}
_NAME = r"(?:`[^`]+`|\w+)(?:\.(?:`[^`]+`|\w+))*"
_DESCRIBE_JSON = re.compile(rf"DESCRIBE\s+(?:TABLE\s+)?EXTENDED\s+({_NAME})\s+AS\s+JSON", re.I)
_CREATE_VOLUME = re.compile(rf"CREATE\s+VOLUME\s+(?:IF\s+NOT\s+EXISTS\s+)?({_NAME})", re.I)
_READ_FILES = re.compile(
    r"read_files\(\s*'(?P<folder>[^']+)'\s*,\s*format\s*=>\s*'binaryFile'\s*,"
    r"\s*fileNamePattern\s*=>\s*'(?P<pattern>[^']+)'\s*\)",
    re.I,
)
_INSERT = re.compile(
    rf"INSERT\s+(?P<how>INTO|OVERWRITE)\s+(?:TABLE\s+)?(?P<table>{_NAME})\s*(?P<columns>\((?!\s*SELECT)[^()]*\))?\s*"
    r"(?P<query>.*)",
    re.I | re.S,
)


class Answer(NamedTuple):
    """What a statement gives, and how it came to be."""

    table: pa.Table
    how: str


def text_table(**columns: list[str]) -> pa.Table:
    """A table of text columns."""
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def bare(sql: str) -> str:
    """A statement without the comments before it and the semicolon behind it."""
    text = sql.strip()
    while (shorter := re.sub(r"^(/\*.*?\*/|--[^\n]*\n)\s*", "", text, flags=re.S)) != text:
        text = shorter
    return text.rstrip().rstrip(";")


def answer(session: Session, volumes: Volumes, sql: str) -> Answer:
    """Carry out one statement.

    Raises:
        Exception: of Spark or ours; its text begins with the error class in brackets.
    """
    text = bare(sql)
    for name, pattern in _ACCEPTED.items():
        if re.match(pattern, text, re.I):
            return Answer(text_table(), name)
    if (copied := volumes.copy_into(session, text)) is not None:
        return Answer(copied, "emulated:copy-into")
    if found := _CREATE_VOLUME.fullmatch(text):
        path = session.path(found[1])
        session.spark.sql(f"DESCRIBE SCHEMA {quoted(path[:2])}")
        volumes.make(path)
        return Answer(text_table(), "emulated:volume")
    if found := _DESCRIBE_JSON.fullmatch(text):
        return Answer(
            text_table(json_metadata=[json.dumps(_described(session, found[1]))]), "emulated:describe-as-json"
        )
    if found := _READ_FILES.search(text):
        view = _binary_files(session, volumes, found["folder"], found["pattern"])
        return Answer(session.sql(text[: found.start()] + view + text[found.end() :]), "emulated:read-files")
    return _run(session, text)


def _run(session: Session, text: str) -> Answer:
    """Let Spark run it, if need be after a rewrite."""
    how = "native"
    if information_schema.mentioned(re.sub(r"'(?:[^'\\]|\\.)*'", "''", text)):
        text, how = information_schema.replaced(session, text), "rewritten:information-schema"
    elif found := re.fullmatch(r"USE\s+CATALOG\s+(\S+)", text, re.I):
        text, how = f"SET CATALOG {found[1]}", "rewritten:use-catalog"
    try:
        return Answer(session.sql(text), how)
    except Exception as error:
        found = _INSERT.fullmatch(text)
        if "CANNOT_SAFELY_CAST" not in str(error) or not found:
            raise
        return Answer(session.sql(_cast_on_write(session, found)), "rewritten:store-assignment")


def _cast_on_write(session: Session, found: re.Match[str]) -> str:
    """An INSERT with the casts that Delta adds; Spark refuses them for tables of a catalog like ours."""
    table = quoted(session.path(found["table"]))
    types = {field.name.lower(): field.dataType.simpleString() for field in session.spark.table(table).schema}
    names = [name.strip().strip("`") for name in (found["columns"] or "").strip("() \n").split(",") if name.strip()]
    names = names or list(types)
    aliases = [f"__c{place}" for place in range(len(names))]
    casts = ", ".join(f"CAST({alias} AS {types[name.lower()]})" for alias, name in zip(aliases, names, strict=True))
    columns = ", ".join(f"`{name}`" for name in names)
    query = f"({found['query']}) AS __q({', '.join(aliases)})"
    return f"INSERT {found['how']} {table} ({columns}) SELECT {casts} FROM {query}"


def _binary_files(session: Session, volumes: Volumes, folder: str, pattern: str) -> str:
    """A view of path, length and content of the files of a folder, in place of read_files."""
    wanted = re.compile(re.escape(pattern).replace(r"\*", ".*"))
    names = [name for name in volumes.names(folder) if wanted.fullmatch(name)]
    if not names:
        raise ValueError(f"[CF_EMPTY_DIR_FOR_SCHEMA_INFERENCE] Cannot infer schema: the input path {folder} is empty")
    return "({})".format(
        " UNION ALL ".join(
            f"SELECT {literal(f'dbfs:{folder}/{name}')} AS path, length, content"
            f" FROM binaryFile.`file://{volumes.local(f'{folder}/{name}')}`"
            for name in names
        )
    )


def _described(session: Session, name: str) -> dict[str, Any]:
    """What DESCRIBE TABLE EXTENDED … AS JSON says, as far as dbt-databricks reads it."""
    path = session.path(name)
    parts = parts_of(name)
    if len(parts) == 1 and session.spark.catalog.tableExists(parts[0]):  # a temporary view has no catalog
        path = ["", "", *parts]
    relations = session.engine.relations(path[0]) if path[0] else []
    found = [each for each in relations if each[:2] == (path[1].lower(), path[2].lower())]
    schema = session.spark.table(quoted([part for part in path if part])).schema
    _, _, kind, provider, comment = found[0] if found else ("", "", "MANAGED", "delta", "")
    rows = session.spark.sql(f"SHOW TBLPROPERTIES {quoted(path)}").collect() if kind != "VIEW" and path[0] else []
    described: dict[str, Any] = {
        "table_name": path[2],
        "catalog_name": path[0],
        "schema_name": path[1],
        "namespace": [path[1]],
        "type": kind,
        "provider": provider,
        "comment": comment,
        "owner": "standin",
        "table_properties": {row["key"]: row["value"] for row in rows},
        "columns": [
            {"name": field.name, "type": _json_type(field.dataType), "nullable": field.nullable}
            | ({"comment": field.metadata["comment"]} if (field.metadata or {}).get("comment") else {})
            for field in schema
        ],
    }
    return described | ({"view_text": session.engine.view_text(path)} if kind == "VIEW" else {})


def _json_type(kind: Any) -> dict[str, Any]:
    match name := kind.typeName():
        case "decimal":
            return {"name": "decimal", "precision": kind.precision, "scale": kind.scale}
        case "string":
            return {"name": "string", "collation": "UTF8_BINARY"}
        case "array":
            return {
                "name": "array",
                "element_type": _json_type(kind.elementType),
                "element_nullable": kind.containsNull,
            }
    return {
        "name": {"integer": "int", "long": "bigint", "short": "smallint", "byte": "tinyint"}.get(
            name, "timestamp_ltz" if name == "timestamp" else name
        )
    }
