"""Silences: alerts that nobody wants for a while, in include/silences.yaml, each with a reason and a last day."""

from __future__ import annotations

from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.elt.alerts.causes import Alert
from include.elt.errors import EltError
from include.elt.paths import ROOT, shown

SILENCES = ROOT / "include" / "silences.yaml"
"""The project's silences."""


class SilenceError(EltError):
    """The file of silences says something else than silences."""

    final = True


class Silence(BaseModel):
    """One silence. Patterns are those of file names: `*` and `?`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    until: date = Field(description="Last day on which it holds, UTC")
    reason: str = Field(min_length=3, description="Why, for whoever finds it")
    kind: str = Field("*", description="Kind of the alert, e.g. `rejected rows`")
    subject: str = Field("*", description="Stream, model or DAG it is about")
    dag_id: str = Field("*", description="DAG")

    def holds(self, alert: Alert, today: date) -> bool:
        """Whether an alert is silenced today."""
        pairs = ((self.kind, alert.kind), (self.subject, alert.subject), (self.dag_id, alert.dag_id))
        return today <= self.until and all(fnmatchcase(text, pattern) for pattern, text in pairs)


def read_silences(file: Path = SILENCES) -> list[Silence]:
    """The silences of a file; none without the file.

    Raises:
        SilenceError: it is no YAML, or an entry lacks its last day or reason; the message names file and entry.
    """
    if not file.is_file():
        return []
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    except (yaml.YAMLError, UnicodeError) as error:
        raise SilenceError(f"{shown(file)}: not YAML: {error}") from error
    if not isinstance(document, list):
        raise SilenceError(f"{shown(file)}: a list of silences is needed")
    found = []
    for number, entry in enumerate(document, 1):
        try:
            found.append(Silence.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise SilenceError(f"{shown(file)}: entry {number}: {where}: {first['msg']}") from None
    return found


def silenced(alert: Alert, silences: list[Silence], today: date | None = None) -> Silence | None:
    """The silence that holds for an alert, if one does."""
    today = today or datetime.now(UTC).date()
    return next((each for each in silences if each.holds(alert, today)), None)
