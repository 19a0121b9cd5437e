"""Replications: which streams are extracted, read from plain Sling replication files.

A file under `include/replications/` is written in Sling's own keys; what is ours stands under `meta:`, which Sling does
not read. Sling ignores what it does not know, so a misspelt `primary_key` turns a merge into an append without a word
(measured with Sling 1.4.11). This model refuses it instead, and names file, stream and key.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from include.elt.contract import Contract
from include.elt.errors import ReplicationError
from include.elt.paths import shown

NOT_SUPPORTED = {
    "hooks": "Sling runs hooks only with a paid token, and after the data is loaded; use an Airflow task",
    "transforms": "transform in dbt; the raw table is what the source says",
    "columns": "the types of a raw table stand in its contract, the dbt sources.yml",
    "target_options": "the warehouse is loaded by include/elt/warehouse, not by Sling",
    "sql": "make a view in the source, and name it as the stream",
    "select": "list the wanted columns in the contract",
    "where": "make a view in the source, and name it as the stream",
    "encoding": "Sling 1.4.11 ignores it; deliver UTF-8, or UTF-16 with a byte order mark",
    "datetime_format": "declare the column as string in the contract and parse it in the staging model",
}
"""Keys of Sling that we refuse, and why."""


LOCAL = "LOCAL"
"""Sling's name of the local disk."""


class _Strict(BaseModel):
    """A mapping of the file in which every key must be known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Meta(_Strict):
    """Our own keys of a stream, under `meta:`.

    Attributes:
        on_bad_row: what happens to a row with a value that does not fit the contract, with a NULL or a repeated primary
            key: `fail` the stream, or `reject` the row into the rejects file.
        max_rejects: rows that may be rejected before the stream fails all the same.
        allow_empty: whether an empty extraction may replace a table that has rows.
    """

    on_bad_row: Literal["fail", "reject"] = "fail"
    max_rejects: int = Field(100, ge=0)
    allow_empty: bool = False


class SourceOptions(_Strict):
    """Sling's `source_options` for CSV files, as far as they are understood here.

    Attributes:
        delimiter: character between two fields.
        null_if: text that stands for NULL. Without it no text does; an empty field is '' in a text column and NULL in
            any other. Sling ignores an empty text here; `empty_as_null` is for that.
        empty_as_null: whether an empty field is NULL in a text column too.
    """

    delimiter: str = ","
    null_if: str | None = Field(None, min_length=1)
    empty_as_null: bool = False

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str) -> str:
        if len(value) != 1 or value in '"\r\n':
            raise ValueError("one character that is neither a quote nor a line break")
        return value


class Stream(_Strict):
    """One stream: a file or table of the source that becomes one raw table.

    Attributes:
        name: what Sling calls it: a `file://` URL with an absolute path, variables filled in, or `schema.table`.
        mode: how the raw table is loaded.
        table: schema and name of the raw table (Sling's key `object`).
        primary_key: columns that identify a row.
        update_key: column whose largest value is the watermark, if there is one.
        source_options: how a file is read.
        meta: our own keys.
    """

    name: str = Field(pattern=r"^(file:///.+|[^.:/]+\.[^.:/]+)$")
    mode: Literal["full-refresh"]
    table: str = Field(alias="object", pattern=r"^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$")
    primary_key: tuple[str, ...] = Field(min_length=1)
    update_key: str | None = None
    source_options: SourceOptions = SourceOptions()
    meta: Meta = Meta()

    @field_validator("primary_key", mode="before")
    @classmethod
    def _always_several(cls, value: Any) -> Any:
        """Sling takes a single key without brackets; so do we."""
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @property
    def id(self) -> str:
        """Short name for tasks, logs and folders: the raw table's name without its schema."""
        return self.table.split(".")[1]

    @property
    def path(self) -> Path:
        """The local file that this stream reads."""
        return Path(self.name.removeprefix("file://"))

    @property
    def label(self) -> str:
        """What a message calls it: the file, or the table."""
        return shown(self.path) if self.name.startswith("file://") else self.name


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
_STREAM_KEYS = ("mode", "object", "primary_key", "update_key", "source_options", "meta", "disabled")


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


def _check_kind(source: str, stream: Stream, where: str) -> None:
    """Files are read through LOCAL, and tables through a connection."""
    if (source == LOCAL) != stream.name.startswith("file://"):
        wanted = "file:///path" if source == LOCAL else "schema.table"
        raise ReplicationError(f"{where}: with source {source} a stream is named {wanted}")
    if source != LOCAL and stream.source_options != SourceOptions():
        raise ReplicationError(f"{where}: source_options are for files")


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
    faults = []
    for stream in replication.streams:
        where = f"{shown(replication.file)}: stream {stream.name}"
        contract = contracts.get(stream.table)
        if contract is None:
            faults.append(
                f"{where}: object {stream.table} has no contract;"
                " add the table with its columns to a sources.yml under dbt/models"
            )
            continue
        for key, columns in (("primary_key", stream.primary_key), ("update_key", (stream.update_key,))):
            faults += [
                f"{where}: {key} {column} is not a column of {stream.table}; there are {', '.join(contract.names)}"
                for column in columns
                if column is not None and column not in contract.names
            ]
    if faults:
        raise ReplicationError("\n".join(faults))
