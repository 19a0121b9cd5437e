"""Replications: which streams are extracted, read from plain Sling replication files.

A file under `include/replications/` is written in Sling's own keys; what is ours stands under `meta:`, which Sling does
not read. Sling ignores what it does not know, so a misspelt `primary_key` turns a merge into an append without a word
(measured with Sling 1.4.11). This model refuses it instead, and names file, stream and key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from include.elt.contract import DELETED_AT, LOADED_AT, Contract
from include.elt.errors import ReplicationError
from include.elt.paths import shown

NOT_SUPPORTED = {
    "hooks": "Sling runs hooks only with a paid token, and after the data is loaded; use an Airflow task",
    "transforms": "transform in dbt; the raw table is what the source says",
    "columns": "the types of a raw table stand in its contract, the dbt sources.yml",
    "target_options": "the warehouse is loaded by include/elt/warehouse, not by Sling",
    "encoding": "Sling 1.4.11 ignores it; deliver UTF-8, or UTF-16 with a byte order mark",
    "datetime_format": "declare the column as string in the contract and parse it in the staging model",
}
"""Keys of Sling that we refuse, and why."""


LOCAL = "LOCAL"
"""Sling's name of the local disk."""

Mode = Literal["full-refresh", "incremental", "backfill", "snapshot"]
"""How a stream is read and loaded; see include/elt/modes.py."""

Format = Literal["csv", "jsonl", "parquet", "xlsx"]
"""How a file is written."""

SchemaChange = Literal["fail", "add", "ignore", "ask"]
"""What happens when the columns of source, contract and raw table differ."""

_WILDCARDS = {"*", "?"}
"""Characters that make a pattern of a file's name; a `[` is one of the name."""

PLACEHOLDERS = ("incremental_where_cond", "incremental_value")
"""What Sling fills in a custom `sql`; so do we."""


class _Strict(BaseModel):
    """A mapping of the file in which every key must be known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _several(value: Any) -> Any:
    """What YAML gives for one name or a list of them, as a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class Meta(_Strict):
    """Our own keys of a stream, under `meta:`. The descriptions of the fields are the documentation."""

    on_bad_row: Literal["fail", "reject"] = Field(
        "fail",
        description="What happens to a row with a value that does not fit the contract, a NULL or, where nothing is"
        " merged, a repeated primary key: it fails the stream, or goes to the rejects file",
    )
    max_rejects: int = Field(100, ge=0, description="Rows that may be rejected before the stream fails all the same")
    allow_empty: bool = Field(False, description="Whether an empty source may empty a raw table that has rows")
    lookback: int | str | None = Field(
        None,
        description="How far before the watermark an incremental read begins, for rows that come late: a time span"
        " (`3 days`, `12 hours`), or a number for a numeric update key",
    )
    deletes: Literal["ignore", "soft", "hard"] = Field(
        "ignore",
        description="What becomes of rows that the source has no more: nothing; `soft` marks them in `_deleted_at`;"
        " `hard` removes them. Reads all primary keys in each incremental run",
    )
    on_schema_change: SchemaChange = Field(
        "fail",
        description="What happens when source, contract and raw table have different columns: `fail`; `add` columns and"
        " widen types in the raw table; `ignore` what is not common to them; or `ask` a person in Airflow (*Required"
        " actions*) before the raw table is changed like that. A full refresh takes the contract's columns",
    )
    reconcile: int | str | None = Field(
        None,
        description="How many rows the raw table may differ from its source after a load: `exact`, `0.5%`, `100`."
        " Counts the source in each run but a backfill",
    )
    parallel: int = Field(
        1,
        ge=1,
        le=16,
        description="Sling processes that read the stream at the same time, each a range of the primary key's first"
        " column; the full refresh of an incremental stream is read by one",
    )

    cluster_by: tuple[str, ...] = Field(
        (),
        max_length=4,
        description="Columns by which Databricks clusters the raw table whenever it makes or replaces it",
    )

    @field_validator("cluster_by", mode="before")
    @classmethod
    def _always_several(cls, value: Any) -> Any:
        """A single column needs no brackets."""
        return _several(value)

    @field_validator("lookback")
    @classmethod
    def _a_span(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, str) and not re.fullmatch(r"\d+ (day|hour|minute|second)s?", value):
            raise ValueError("a time span like `3 days`, `12 hours` or `90 minutes`, or a number")
        if isinstance(value, int) and value < 0:
            raise ValueError("a number from 0 on")
        return value

    @field_validator("reconcile")
    @classmethod
    def _a_tolerance(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, str) and value != "exact" and not re.fullmatch(r"\d{1,2}(\.\d+)?%", value):
            raise ValueError("`exact`, a percentage like `0.5%`, or a number of rows")
        if isinstance(value, int) and value < 0:
            raise ValueError("a number of rows from 0 on")
        return value

    def tolerated(self, rows: int) -> int | None:
        """Rows by which the raw table may differ from a source of `rows` rows; None where nobody compares."""
        if self.reconcile is None:
            return None
        if isinstance(self.reconcile, int):
            return self.reconcile
        return 0 if self.reconcile == "exact" else int(rows * float(self.reconcile.removesuffix("%")) / 100)


class SourceOptions(_Strict):
    """Sling's `source_options` for files, as far as they are understood here."""

    format: Format | None = Field(None, description="How files are written whose ending does not say it")
    delimiter: str = Field(",", description="Character between two fields of a CSV file")
    sheet: str | None = Field(
        None, min_length=1, description="Name of the worksheet of an Excel file; its first one by default"
    )
    null_if: str | None = Field(
        None,
        min_length=1,
        description="Text that stands for NULL. Without it no text does; an empty field is `''` in a text column and"
        " NULL in any other",
    )
    empty_as_null: bool = Field(False, description="Whether an empty field is NULL in a text column too")

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str) -> str:
        if len(value) != 1 or value in '"\r\n':
            raise ValueError("one character that is neither a quote nor a line break")
        return value


class Stream(_Strict):
    """One stream: a file or table of the source that becomes one raw table.

    Attributes:
        name: what Sling calls it: a `file://` URL with an absolute path, an `s3://` URL, variables filled in;
            `schema.table`; or any name beside `sql`. A URL that ends with `/` is a folder, and one with `*` or `?` in
            its last part a pattern: all their files together are the stream.
        mode: how the stream is read and loaded.
        table: schema and name of the raw table (Sling's key `object`).
        primary_key: columns that identify a row.
        update_key: column whose largest value is the watermark, if there is one.
        sql: a query that is read instead of a table. `{incremental_where_cond}` in it stands for the condition on the
            update key, which is otherwise put around the query.
        select: columns that are read, or with a `-` before each: those that are not. All by default.
        where: SQL condition on the rows.
        source_options: how a file is read.
        meta: our own keys.
    """

    name: str = Field(min_length=1)
    mode: Mode
    table: str = Field(alias="object", pattern=r"^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$")
    primary_key: tuple[str, ...] = Field(min_length=1)
    update_key: str | None = None
    sql: str | None = Field(None, min_length=1)
    select: tuple[str, ...] = ()
    where: str | None = Field(None, min_length=1)
    source_options: SourceOptions = SourceOptions()
    meta: Meta = Meta()

    @field_validator("select")
    @classmethod
    def _one_kind(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len({name.startswith("-") for name in value}) > 1:
            raise ValueError("either columns, or columns that are left out (`-name`)")
        return value

    @field_validator("primary_key", "select", mode="before")
    @classmethod
    def _always_several(cls, value: Any) -> Any:
        """Sling takes a single key without brackets; so do we."""
        return _several(value)

    @property
    def id(self) -> str:
        """Short name for tasks, logs and folders: the raw table's name without its schema."""
        return self.table.split(".")[1]

    @property
    def is_file(self) -> bool:
        """Whether it reads files, local or in S3."""
        return self.name.startswith(("file://", "s3://"))

    @property
    def has_ranges(self) -> bool:
        """Whether a range of its update key can be read again."""
        return self.mode in ("incremental", "backfill") and not self.is_file

    @property
    def path(self) -> Path:
        """The local file, folder or pattern that this stream reads."""
        return Path(self.name.removeprefix("file://"))

    @property
    def pattern(self) -> str | None:
        """The names of the files that it reads, with `*` and `?`; `*` for a whole folder; None for a single file."""
        last = self.name.rpartition("/")[2]
        return last if set(last) & _WILDCARDS else None if last else "*"

    @property
    def is_folder(self) -> bool:
        """Whether it reads a whole folder."""
        return self.is_file and self.name.endswith("/")

    @property
    def label(self) -> str:
        """What a message calls it: the file, or the table."""
        return shown(self.path) if self.name.startswith("file://") else self.name

    def selected(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Those of a source's columns that `select` leaves."""
        if not self.select:
            return tuple(columns)
        if self.select[0].startswith("-"):
            return tuple(name for name in columns if f"-{name}" not in self.select)
        return tuple(name for name in columns if name in self.select)


class Replication(_Strict):
    """A whole replication file.

    Attributes:
        name: the file's name without its ending.
        file: where it was read from.
        source: Sling connection that is read: `LOCAL` for files, or the id of an Airflow connection.
        streams: its streams, in the order of the file, without the disabled ones.
    """

    name: str
    file: Path
    source: str
    streams: tuple[Stream, ...]

    def stream(self, id: str) -> Stream:  # noqa: A002  (the word of the field)
        """The stream of that short name.

        Raises:
            ReplicationError: there is none.
        """
        for stream in self.streams:
            if stream.id == id:
                return stream
        raise ReplicationError(
            f"{shown(self.file)}: no stream {id!r}; there are {', '.join(each.id for each in self.streams)}"
        )


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice in one mapping is an error; plain YAML keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice", node.value[number][0].start_mark
                )
        return super().construct_mapping(node, deep)


_TOP_KEYS = ("source", "target", "env", "defaults", "streams")
_STREAM_KEYS = (
    *("mode", "object", "primary_key", "update_key", "sql", "select", "where"),
    *("source_options", "meta", "disabled"),
)


def _mapping(given: Any, where: str) -> dict[Any, Any]:
    """What was given, if it is a mapping; an empty one for nothing."""
    if given is not None and not isinstance(given, dict):
        raise ReplicationError(f"{where}: a mapping is needed, got {given!r}")
    return given or {}


def _refuse_unknown(given: Any, known: tuple[str, ...], where: str) -> None:
    """Raise for the first key that is not known, with the reason or the key that was probably meant."""
    for key in _mapping(given, where):
        if key in known:
            continue
        if key in NOT_SUPPORTED:
            raise ReplicationError(f"{where}: {key} is not supported: {NOT_SUPPORTED[key]}")
        close = difflib.get_close_matches(str(key), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(known)}"
        raise ReplicationError(f"{where}: unknown key {key!r}; {hint}")


def _check_keys(entry: Any, where: str) -> None:
    """Check every key of a stream, or of the defaults, against what we understand."""
    _refuse_unknown(entry, _STREAM_KEYS, where)
    for part, model in (("source_options", SourceOptions), ("meta", Meta)):
        if entry and part in entry:
            _refuse_unknown(entry[part], tuple(model.model_fields), f"{where}: {part}")


def _merged(defaults: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """The stream's keys over the defaults', one level deep for the mappings."""
    merged = defaults | entry
    for part in ("source_options", "meta"):
        if part in defaults or part in entry:
            merged[part] = (defaults.get(part) or {}) | (entry.get(part) or {})
    return merged


def _variables(document: dict[str, Any], given: dict[str, str], where: str) -> dict[str, str]:
    """Values of the file's `env:` section, each `${NAME}` taken from `given`."""
    values = {}
    for name, text in _mapping(document.get("env"), f"{where}: env").items():
        for wanted in re.findall(r"\$\{(\w+)\}", str(text)):
            if wanted not in given:
                raise ReplicationError(f"{where}: env: {name}: the environment variable {wanted} is not set")
        values[name] = re.sub(r"\$\{(\w+)\}", lambda match: given[str(match[1])], str(text))
    return values


def _filled(text: str, values: dict[str, str], where: str) -> str:
    """`text` with each `{NAME}` replaced by the value of the file's `env:` section."""
    for wanted in re.findall(r"\{(\w+)\}", text):
        if wanted not in values:
            raise ReplicationError(f"{where}: {{{wanted}}} is not set under env:")
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], text)


def _stream(name: str, entry: dict[str, Any], where: str) -> Stream:
    try:
        return Stream(name=name, **entry)
    except ValidationError as error:
        lines = []
        for each in error.errors():
            key = ".".join(map(str, each["loc"]))
            if each["type"] == "missing":
                lines.append(f"{where}: {key} is missing")
            else:
                message = each["msg"].removeprefix("Value error, ")
                lines.append(f"{where}: {key}: got {each['input']!r}; {message[0].lower()}{message[1:]}")
        raise ReplicationError("\n".join(lines)) from None


_FOR_DATABASES = ("sql", "select", "where")
_META_FOR_DATABASES = ("lookback", "deletes", "reconcile", "parallel")


def _check_kind(source: str, stream: Stream, where: str) -> None:
    """Files are read through LOCAL or from S3, tables through a database's connection, each with the keys it knows."""
    if source == LOCAL and not stream.name.startswith("file:///"):
        raise ReplicationError(f"{where}: with source {source} a stream is named file:///path")
    if source != LOCAL and stream.name.startswith("file:"):
        raise ReplicationError(f"{where}: with source {source} a stream is named schema.table or s3://bucket/key")
    if stream.is_file:
        if set(stream.name.rpartition("/")[0]) & _WILDCARDS or "**" in stream.name:
            raise ReplicationError(
                f"{where}: * and ? may stand in the last part of the path only, for files of one folder; there is no **"
            )
        given = [key for key in _FOR_DATABASES if getattr(stream, key)]
        given += [f"meta.{key}" for key in _META_FOR_DATABASES if key in stream.meta.model_fields_set]
        if given:
            raise ReplicationError(f"{where}: {given[0]} is for databases")
        if stream.mode == "backfill":
            raise ReplicationError(f"{where}: mode: backfill is for databases; files have full-refresh and incremental")
        return
    if not stream.sql and not re.fullmatch(r"[^.:/]+\.[^.:/]+", stream.name):
        raise ReplicationError(f"{where}: with source {source} a stream is named schema.table, or has a sql")
    if stream.source_options != SourceOptions():
        raise ReplicationError(f"{where}: source_options are for files")
    if stream.mode in ("incremental", "backfill") and not stream.update_key:
        raise ReplicationError(f"{where}: update_key is missing; mode {stream.mode} of a database needs it")
    if stream.mode == "snapshot" and stream.meta.deletes != "ignore":
        raise ReplicationError(f"{where}: meta.deletes is for tables that hold each row once, not for mode snapshot")
    if stream.meta.lookback is not None and stream.mode != "incremental":
        raise ReplicationError(f"{where}: meta.lookback is for mode incremental")


def read_replication(file: Path, variables: dict[str, str]) -> Replication:
    """Read and check one replication file.

    Args:
        file: the YAML file.
        variables: values that its `env:` section may refer to as `${NAME}` (`Settings.variables`).

    Returns:
        The replication; disabled streams are left out.

    Raises:
        ReplicationError: the file is missing or no YAML, has an unknown key or mode, lacks a primary key, or gives two
            streams one target. The message names file, stream and key.
    """
    where = shown(file)
    try:
        document = yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506  (a SafeLoader)
    except OSError as error:
        raise ReplicationError(f"{where}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise ReplicationError(f"{where}: not a replication: {error}") from error
    _refuse_unknown(document, _TOP_KEYS, where)
    document = document or {}
    for key in ("source", "target", "streams"):
        if not document.get(key):
            raise ReplicationError(f"{where}: {key} is missing")
    values = _variables(document, variables, where)
    defaults = document.get("defaults") or {}
    _check_keys(defaults, f"{where}: defaults")
    streams: list[Stream] = []
    for name, entry in _mapping(document["streams"], f"{where}: streams").items():
        place = f"{where}: stream {name}"
        _check_keys(entry, place)
        merged = _merged(defaults, entry or {})
        disabled = merged.pop("disabled", False)
        if not isinstance(disabled, bool):
            raise ReplicationError(f"{place}: disabled: got {disabled!r}; true or false is needed")
        if disabled:
            continue
        for key in ("sql", "where"):
            if isinstance(merged.get(key), str):
                merged[key] = _filled(merged[key], values | {each: f"{{{each}}}" for each in PLACEHOLDERS}, place)
        stream = _stream(_filled(str(name), values, place), merged, place)
        _check_kind(str(document["source"]), stream, place)
        twin = next((other for other in streams if other.id == stream.id), None)
        if twin:
            raise ReplicationError(f"{place}: object {stream.table} has the same table name as stream {twin.name}")
        streams.append(stream)
    if not streams:
        raise ReplicationError(f"{where}: every stream is disabled")
    return Replication(name=file.stem, file=file, source=document["source"], streams=tuple(streams))


def check_against(replication: Replication, contracts: dict[str, Contract]) -> None:
    """Check that every stream has a contract that holds its keys.

    Raises:
        ReplicationError: a table has no contract, or a key column is not in it; every fault on a line of its own.
    """
    faults: list[str] = []
    for stream in replication.streams:
        where = f"{shown(replication.file)}: stream {stream.name}"
        contract = contracts.get(stream.table)
        if contract is None:
            faults.append(
                f"{where}: object {stream.table} has no contract;"
                " add the table with its columns to a sources.yml under dbt/models"
            )
        else:
            faults += [f"{where}: {fault}" for fault in _faults(stream, contract)]
    if faults:
        raise ReplicationError("\n".join(faults))


def _faults(stream: Stream, contract: Contract) -> Iterator[str]:
    """What of a stream does not fit its contract."""
    from include.elt.modes import check_lookback

    update_key = () if stream.update_key is None else (stream.update_key,)
    missing = False
    for key, columns in (("primary_key", stream.primary_key), ("update_key", update_key)):
        for column in columns:
            if column not in contract.names:
                missing = True
                yield f"{key} {column} is not a column of {stream.table}; there are {', '.join(contract.names)}"
    for column in stream.meta.cluster_by:
        if column not in (*contract.names, *contract.added):
            yield f"meta.cluster_by {column} is not a column of {stream.table}; there are {', '.join(contract.names)}"
    for name, wanted, why in (
        (LOADED_AT, stream.mode == "snapshot", "mode: snapshot"),
        (DELETED_AT, stream.meta.deletes == "soft", "meta.deletes: soft"),
    ):
        if wanted and name not in contract.added:
            yield f"{why} adds the column {name}: declare it for {stream.table} with data_type timestamp"
        if name in contract.added and not wanted:
            yield f"{stream.table} has the column {name}, which only {why} fills"
    if stream.meta.lookback is not None and update_key and not missing:
        try:
            check_lookback(contract.column(update_key[0]), stream.meta.lookback)
        except ReplicationError as error:
            yield f"meta.lookback: {error}"
