"""Changes of shape: the columns of an extraction against those of the raw table it is to come into.

Knows types by the names of contracts only, so that it serves every warehouse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from include.elt.contract import ADDED
from include.elt.errors import SchemaChangeError

Policy = Literal["fail", "add", "ignore", "ask"]

_DIGITS = {"tinyint": 3, "smallint": 5, "int": 10, "bigint": 19}
"""Decimal digits that hold any value of an integer type; from the narrowest to the widest."""


@dataclass(frozen=True)
class Difference:
    """What two shapes do not have in common.

    Attributes:
        missing: columns and types that the contract has and the table lacks.
        extra: columns and types that the table has and the contract lacks.
        widened: old and new type of columns whose new type holds every value of the old one.
        changed: old and new type of columns with any other change.
    """

    missing: Mapping[str, str]
    extra: Mapping[str, str]
    widened: Mapping[str, tuple[str, str]]
    changed: Mapping[str, tuple[str, str]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.widened or self.changed)


@dataclass(frozen=True)
class Change:
    """What a load does about a difference.

    Attributes:
        add: columns and types that the table gets.
        widen: columns of the table that get a wider type.
        leave_out: columns of the extraction that are not loaded.
        fit: columns whose values have to fit the table's type, which stays.
        notes: the same in words, for the log.
    """

    add: Mapping[str, str] = field(default_factory=dict)
    widen: Mapping[str, str] = field(default_factory=dict)
    leave_out: frozenset[str] = frozenset()
    fit: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def is_wider(old: str, new: str) -> bool:
    """Whether the contract type `new` holds every value of `old` as it is, and is another one."""
    old, new = (re.sub("^integer$", "int", each) for each in (old, new))
    if old == new:
        return False
    if old.startswith("varchar"):
        return new == "string" or (new.startswith("varchar") and int(new[8:-1]) > int(old[8:-1]))
    if old in _DIGITS and new in _DIGITS:
        return _DIGITS[new] > _DIGITS[old]
    wider, narrower = re.fullmatch(r"decimal\((\d+),(\d+)\)", new), re.fullmatch(r"decimal\((\d+),(\d+)\)", old)
    if not wider or (not narrower and old not in _DIGITS):
        return False
    digits, scale = (int(narrower[1]) - int(narrower[2]), int(narrower[2])) if narrower else (_DIGITS[old], 0)
    return int(wider[1]) - int(wider[2]) >= digits and int(wider[2]) >= scale


def way_out(mode: str) -> str:
    """How to get a table of another shape, in words; a snapshot knows no full refresh, which would lose the others."""
    return "move the table away" if mode == "snapshot" else "run the DAG with full_refresh"


def compare(contract: Mapping[str, str], table: Mapping[str, str]) -> Difference:
    """The difference between the columns of a contract and those of a raw table, whatever their order.

    Args:
        contract: type by column.
        table: likewise; the columns that the load adds do not count.
    """
    both = {name: (table[name], contract[name]) for name in contract if name in table}
    differ = {name: pair for name, pair in both.items() if pair[0] != pair[1] and set(pair) != {"int", "integer"}}
    return Difference(
        missing={name: data_type for name, data_type in contract.items() if name not in table},
        extra={name: data_type for name, data_type in table.items() if name not in contract and name not in ADDED},
        widened={name: pair for name, pair in differ.items() if is_wider(*pair)},
        changed={name: pair for name, pair in differ.items() if not is_wider(*pair)},
    )


def decide(difference: Difference, policy: Policy, table: str, key: tuple[str, ...], mode: str) -> Change:
    """What a load has to do about a difference.

    Args:
        difference: that of extraction and raw table.
        policy: the stream's `meta.on_schema_change`.
        table: the raw table, for messages.
        key: columns that identify a row; the table has to have them.
        mode: mode of the load.

    Raises:
        SchemaChangeError: the policy does not allow the difference, or nothing but a full refresh helps.
    """
    otherwise = way_out(mode)
    lost = [name for name in key if name in difference.missing]
    if lost and mode != "snapshot":
        raise SchemaChangeError(
            f"{table}: the table has no column {', '.join(lost)}, the primary key of the stream; {otherwise}"
        )
    missing = [f"it lacks the column {name} {kind}" for name, kind in difference.missing.items()]
    extra = [f"its column {name} {kind} is not in the contract" for name, kind in difference.extra.items()]
    widened, changed = (
        [f"its column {name} is {old}, in the contract {new}" for name, (old, new) in pairs.items()]
        for pairs in (difference.widened, difference.changed)
    )
    if policy in ("fail", "ask") and difference:
        raise SchemaChangeError(
            f"{table}: the table does not have the columns of the contract:"
            f" {'; '.join([*missing, *extra, *widened, *changed])}{_renamed(difference)}."
            f" To take the contract's columns, {otherwise}"
            + ("" if difference.changed else ", or set meta.on_schema_change: add for the stream")
        )
    if policy == "add" and changed:
        raise SchemaChangeError(
            f"{table}: {'; '.join(changed)}, which is no wider type, so meta.on_schema_change: add cannot change it;"
            f" {otherwise}"
        )
    kept = [f"{each}; it is kept, with NULL in new rows" for each in extra]
    if policy == "add":
        return Change(
            add=difference.missing,
            widen={name: new for name, (_, new) in difference.widened.items()},
            notes=(
                *(f"{each}; it is added, with NULL in the rows there are" for each in missing),
                *kept,
                *(f"{each}; it gets that type" for each in widened),
            ),
        )
    return Change(
        leave_out=frozenset(difference.missing),
        fit=frozenset((*difference.widened, *difference.changed)),
        notes=(
            *(f"{each}; it is not loaded" for each in missing),
            *kept,
            *(f"{each}; the table's type stays" for each in (*widened, *changed)),
        ),
    )


def in_words(difference: Difference) -> list[str]:
    """What a full refresh changes about the shape of its table, which takes the contract's columns."""
    return [
        *(f"the column {name} {kind} is new" for name, kind in difference.missing.items()),
        *(f"the column {name} {kind} is gone" for name, kind in difference.extra.items()),
        *(
            f"the column {name} is {new}, was {old}"
            for pairs in (difference.widened, difference.changed)
            for name, (old, new) in pairs.items()
        ),
    ]


def _renamed(difference: Difference) -> str:
    """A hint at columns that were probably renamed."""
    pairs = [
        f"{old} to {new}"
        for new, data_type in difference.missing.items()
        for old, other in difference.extra.items()
        if other == data_type
    ]
    return f" (was {' or '.join(pairs)} renamed?)" if pairs else ""
