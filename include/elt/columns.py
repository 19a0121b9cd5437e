"""The columns that a file should have, against those it has."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from include.elt.errors import DataError
from include.elt.replication import SchemaChange

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """Columns that a file has to have, in any order and case.

    Attributes:
        names: column names of the contract.
        on_schema_change: what happens when the file has others: `ignore` leaves those out that the contract does not
            have, and reads NULL for those that the file does not have; anything else is an error.
        required: names that may never be missing: the primary key.
    """

    names: tuple[str, ...]
    on_schema_change: SchemaChange = "fail"
    required: tuple[str, ...] = ()

    @property
    def lenient(self) -> bool:
        """Whether other columns are no error."""
        return self.on_schema_change == "ignore"

    @property
    def advice(self) -> str:
        """What to do about other columns; the end of a message."""
        if self.on_schema_change in ("add", "ask"):
            policy = f"meta.on_schema_change: {self.on_schema_change}"
            return f"; {policy} has no types to add from files: add the column to sources.yml"
        return ". If the source changed on purpose, change the contract in sources.yml too"

    @property
    def expectation(self) -> str:
        """What a message says was expected."""
        return f"expected the columns {', '.join(self.names)}"

    def check(self, given: Sequence[str], where: str) -> tuple[str, ...]:
        """Check the columns of a file.

        Args:
            given: the file's column names.
            where: file and place of its header, for messages.

        Returns:
            The names in lower case, in the file's order.

        Raises:
            DataError: a column is there twice, is missing, or is not known.
        """
        names = tuple(name.lower() for name in given)
        twice = sorted({name for name in names if names.count(name) > 1 and (name in self.names or not self.lenient)})
        if twice:
            raise DataError(f"{where}: the column {twice[0]} is there twice; {self.expectation}")
        missing = [name for name in self.names if name not in names]
        extra = [spelt for spelt, name in zip(given, names, strict=True) if name not in self.names]
        if not self.lenient or set(missing) & set(self.required):
            parts = [
                f"{word} {', '.join(map(repr, some))}"
                for word, some in (("no", missing), ("unknown", () if self.lenient else extra))
                if some
            ]
            if parts:
                raise DataError(f"{where}: {' and '.join(parts)}; {self.expectation}{self.advice}")
        self.log(missing, extra, where)
        return names

    def log(self, missing: Iterable[str], extra: Iterable[str], where: str) -> None:
        """Say what is not read, and what is NULL."""
        if extra:
            log.info("%s: left out, because the contract does not have it: %s", where, ", ".join(extra))
        if missing:
            log.warning("%s: no %s; it is NULL", where, ", ".join(missing))
