"""One load into a raw table, by mode and policy: everything is checked first, then one statement changes the table.

Databricks has no transaction over several tables. So what the load will do is worked out in tables of its own, counted,
checked and written down as an intent; then a single CREATE OR REPLACE TABLE … AS, MERGE or INSERT … REPLACE WHERE does
it, which readers see as a whole or not at all; then the log gets its row. Each of these statements gives the same table
when it is carried out twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from include.elt.contract import ADDED, DELETED_AT, LOADED_AT
from include.elt.errors import LoadError
from include.elt.lake import Manifest
from include.elt.modes import Window
from include.elt.replication import Meta
from include.elt.warehouse.databricks import loadlog
from include.elt.warehouse.databricks.loadlog import LoadLog, make_schema
from include.elt.warehouse.databricks.session import Session
from include.elt.warehouse.databricks.staging import Staging
from include.elt.warehouse.databricks.table import Table
from include.elt.warehouse.databricks.text import exact, listed, literal, quoted, type_of
from include.elt.warehouse.refusals import (
    Changes,
    added_columns,
    check_key_is_there,
    every,
    misfit,
    refuse_empty,
    refuse_part,
    repeated,
    within,
)
from include.elt.warehouse.rules import check_counts, check_order
from include.elt.warehouse.schema import compare, decide, in_words

log = logging.getLogger("include.elt.warehouse.databricks")

_OP = quoted("#op")
"""What becomes of a row in the table of changes; a name that no contract can have."""


@dataclass(frozen=True)
class Plan:
    """What a load is about to do.

    Attributes:
        changes: its figures.
        rows: rows of the table afterwards.
        of_source: those of them that stand for the source, which reconciliation compares.
        carry_out: does it, in one statement; None where there is nothing to do.
    """

    changes: Changes
    rows: int
    of_source: int
    carry_out: Callable[[], None] | None


class Load:
    """One load. One use.

    Args:
        sql: the session.
        manifest: what was extracted.
        location: where it lies: a folder in a volume, or in S3.
        policy: the stream's `meta`.
        load_log: the log, prepared.
    """

    def __init__(self, sql: Session, manifest: Manifest, location: str, policy: Meta, load_log: LoadLog) -> None:
        self.sql = sql
        self.manifest = manifest
        self.policy = policy
        self.log = load_log
        self.table = Table(sql, manifest.table)
        self.staging = Staging(sql, manifest, location)
        # Only a table that is there can hold what an earlier try did.
        self.begun = load_log.begun_before() if self.table.exists else None
        self.created = self.begun.created if self.begun else not self.table.exists
        self._types = {name: type_of(data_type) for name, data_type in manifest.columns}
        self.schema_changes: list[str] = []
        self._added = added_columns(manifest, policy)
        self._at = f"CAST({literal(manifest.extracted_at)} AS timestamp)"

    def run(self) -> Changes:
        """Change the table.

        Raises:
            LoadError: the extraction is not what its manifest says, or the table was changed by somebody else.
            RefusedLoadError: the load would lose rows, bring old ones back or break a policy.
        """
        if self.manifest.mode in ("incremental", "backfill") and not self.manifest.primary_key:
            raise self._wrong("the manifest names no primary key, clear the extract task")
        self.staging.verify()
        self.staging.sweep()
        try:
            return self._run()
        finally:
            self.staging.remove()

    def _run(self) -> Changes:
        known = () if self.created else check_order(self.manifest, self.log.newer())
        self.staging.fill()
        if not self.table.exists:
            make_schema(self.sql, self.table.name)
        match self.manifest.mode:
            case "full-refresh":
                plan = self._replace()
            case "snapshot":
                plan = self._append()
            case _:
                plan = self._merge(known)
        if counts := check_counts(self.manifest, self.policy, plan.of_source):
            log.info("%s", counts)
        changes = plan.changes
        if plan.carry_out:
            self.log.begin(changes.inserted, changes.updated, changes.deleted, created=self.created)
            plan.carry_out()
            self.table.changed()
        elif self.begun:  # an earlier try did it, and died before it could say so
            changes = Changes(self.begun.inserted, self.begun.updated, self.begun.deleted)
        if (total := self.table.count()) != plan.rows:
            raise LoadError(
                f"{self.table.name}: the table has {total} rows instead of {plan.rows}; somebody else changes it at the"
                " same time. Only the loads may write to a raw table"
            )
        return changes

    def _replace(self) -> Plan:
        """Put the extraction in the place of the raw table, unless that would lose what is there."""
        soft = self.policy.deletes == "soft"
        there = self.table.live() if soft else self.table.count()
        refuse_empty(self.manifest, self.policy, self.manifest.rows, there)
        if self.table.exists:
            self.schema_changes += in_words(compare(self._types, self.table.columns))
        select = self._as_new()
        kept = marked = 0
        if soft and self.table.exists:
            missed, stamps = self._missed()
            [(kept, marked)] = self.sql.rows(
                f"SELECT count(*), count_if({stamps[DELETED_AT]} = {self._at}) FROM {missed}"
            )
            old = self.table.columns
            values = [
                f"{exact(f't.{quoted(n)}', old[n], new) if n in old else f'CAST(NULL AS {new})'} AS {quoted(n)}"
                for n, new in self._types.items()
            ]
            values += [f"{stamps[name]} AS {quoted(name)}" for name in self._added]
            select += f" UNION ALL SELECT {', '.join(values)} FROM {missed}"
        return Plan(
            Changes(inserted=self.manifest.rows, deleted=marked),
            self.manifest.rows + kept,
            self.manifest.rows,
            lambda: self.table.replace(select, self.policy.cluster_by),
        )

    def _as_new(self) -> str:
        """The rows of the extraction as those of a new table."""
        stamps = {LOADED_AT: self._at, DELETED_AT: "CAST(NULL AS timestamp)"}
        values = [*map(quoted, self._types), *(f"{stamps[name]} AS {quoted(name)}" for name in self._added)]
        return f"SELECT {', '.join(values)} FROM {self.staging.rows.quoted}"

    def _missed(self) -> tuple[str, dict[str, str]]:
        """The rows of the old table that the source has no more, as SQL, and their stamps."""
        old, key = self.table.columns, self.manifest.primary_key
        check_key_is_there(self.manifest, old)
        same = every(f"e.{quoted(n)} = {exact(f't.{quoted(n)}', old[n], self._types[n])}" for n in key)
        missed = f"{self.table.quoted} AS t LEFT ANTI JOIN {self.staging.rows.quoted} AS e ON {same}"
        columns = {name: (old[name], new) for name, new in self._types.items() if name in old}
        self._check_fit(columns, missed, "t", "a row that is deleted in the source has")
        null = "CAST(NULL AS timestamp)"
        loaded, mark = (f"t.{quoted(name)}" if name in old else null for name in ADDED)
        return missed, {LOADED_AT: loaded, DELETED_AT: f"coalesce({mark}, {self._at})"}

    def _append(self) -> Plan:
        """Add the extraction to the raw table; takes the place of what the same run appended earlier."""
        rows = self.manifest.rows
        if not self.table.exists:
            return self._make()
        arrived = self._conform()
        times = {self._at, *(f"CAST({literal(text)} AS timestamp)" for text in self.log.snapshots_of_run())}
        earlier = f"{quoted(LOADED_AT)} IN ({', '.join(sorted(times))})"
        replaced = self.table.count(earlier)
        refuse_empty(self.manifest, self.policy, rows, replaced)
        values = arrived | {LOADED_AT: self._at}
        row = ", ".join(
            f"{values.get(name, f'CAST(NULL AS {kind})')} AS {quoted(name)}"
            for name, kind in self.table.columns.items()
        )
        statement = (
            f"INSERT INTO {self.table.quoted} REPLACE WHERE {earlier} SELECT {row} FROM {self.staging.rows.quoted} AS e"
        )
        total = self.table.count() - replaced + rows
        return Plan(Changes(inserted=rows), total, rows, lambda: self.sql.run(statement))

    def _make(self) -> Plan:
        """Make a table that is not there."""
        rows, select = self.manifest.rows, self._as_new()
        return Plan(Changes(inserted=rows), rows, rows, lambda: self.table.create(select, self.policy.cluster_by))

    def _make_without_gone(self) -> Plan:
        """The same, when rows that were deleted in the source between two questions are not to be there unmarked."""
        key, rows = self.manifest.primary_key, self.manifest.rows
        same = every(f"e.{quoted(name)} = k.{quoted(name)}" for name in key)
        arrived = f"({self._as_new()}) AS e"
        gone = self.sql.one(f"SELECT count(*) FROM {arrived} LEFT ANTI JOIN {self.staging.keys.quoted} AS k ON {same}")
        if self.policy.deletes == "hard":
            select = f"SELECT e.* FROM {arrived} LEFT SEMI JOIN {self.staging.keys.quoted} AS k ON {same}"
            total = rows - gone
        else:
            mark = f"CASE WHEN k.{quoted(key[0])} IS NULL THEN {self._at} END AS {quoted(DELETED_AT)}"
            names = [*self._types, *self._added]
            values = ", ".join(mark if name == DELETED_AT else f"e.{quoted(name)}" for name in names)
            select = f"SELECT {values} FROM {arrived} LEFT JOIN {self.staging.keys.quoted} AS k ON {same}"
            total = rows
        changes = Changes(inserted=rows, deleted=gone)
        return Plan(changes, total, rows - gone, lambda: self.table.create(select, self.policy.cluster_by))

    def _merge(self, known: tuple[Window, ...]) -> Plan:
        """Merge the extraction, and find the rows that the source has no more."""
        table, keys = self.table, self.manifest.keys
        finds_deleted = self.manifest.mode == "incremental" and self.policy.deletes != "ignore" and keys is not None
        if not table.exists:
            refuse_part(self.manifest, loadlog.files(self.sql, self.table.name))
            return self._make_without_gone() if finds_deleted else self._make()
        before, live = table.count(), table.live()
        if finds_deleted and keys:
            refuse_empty(self.manifest, self.policy, keys.rows, live)
        arrived = self._conform()
        self._find_changes(arrived, known, finds_deleted=finds_deleted)
        counted = self.sql.rows(f"SELECT {_OP}, count(*) FROM {self.staging.changes.quoted} GROUP BY {_OP}")
        ops = {str(op): int(count) for op, count in counted}
        gone = ops.get("come and gone", 0)  # between the two questions to the source; they never get into the table
        inserted = ops.get("insert", 0) + ops.get("insert marked", 0) + gone
        removed, marked = ops.get("delete", 0) + gone, ops.get("mark", 0) + ops.get("insert marked", 0)
        revived, again = ops.get("revive", 0), ops.get("mark again", 0)
        return Plan(
            Changes(inserted, ops.get("update", 0) + revived + again, removed + marked),
            before + inserted - removed,
            live + inserted + revived - removed - marked,
            self._carry_out_changes if ops else None,
        )

    def _find_changes(self, arrived: Mapping[str, str], known: tuple[Window, ...], *, finds_deleted: bool) -> None:
        """Work out which rows are new, differ or are gone, each with the values that it gets."""
        table, key = self.table, self.manifest.primary_key
        given = ", ".join(f"{value} AS {quoted(name)}" for name, value in arrived.items())
        e = f"(SELECT {given} FROM {self.staging.rows.quoted} AS e)"
        same = every(f"e.{quoted(name)} = t.{quoted(name)}" for name in key)
        joined = f"{e} AS e LEFT JOIN {table.quoted} AS t ON {same}"
        self._refuse_repeated(joined)
        gone = "FALSE"
        if finds_deleted:
            names = [f"{exact(f'k.{quoted(n)}', self._types[n], table.columns[n])} AS {quoted(n)}" for n in key]
            k = f"(SELECT {', '.join(names)} FROM {self.staging.keys.quoted} AS k)"
            joined += f" LEFT JOIN {k} AS k ON {every(f'e.{quoted(n)} = k.{quoted(n)}' for n in key)}"
            gone = f"k.{quoted(key[0])} IS NULL"
        soft = self.policy.deletes == "soft"
        there = f"t.{quoted(key[0])} IS NOT NULL"
        was_marked = f"{there} AND t.{quoted(DELETED_AT)} IS NOT NULL" if table.marks else "FALSE"
        differs = [f"NOT e.{quoted(n)} <=> t.{quoted(n)}" for n in arrived if n not in key]
        elsewhere = f" AND NOT ({self._read_by(known)})" if known else ""
        op = (
            f"CASE WHEN NOT {there} AND {gone} THEN {literal('insert marked' if soft else 'come and gone')}"
            f" WHEN NOT {there} THEN 'insert'"
            f" WHEN {gone} THEN {_marking(was_marked) if soft else literal('delete')}"
            f" WHEN {was_marked}{elsewhere} THEN 'revive'"
            f" WHEN ({' OR '.join(differs) or 'FALSE'}){elsewhere} THEN 'update' END"
        )
        mark = f"CASE WHEN {gone} THEN {self._at} END"
        values = [
            f"e.{quoted(n)}" if n in arrived else f"{mark} AS {quoted(n)}" if n == DELETED_AT else f"t.{quoted(n)}"
            for n in table.columns
        ]
        select = f"SELECT * FROM (SELECT {', '.join(values)}, {op} AS {_OP} FROM {joined}) WHERE {_OP} IS NOT NULL"
        if finds_deleted:
            values = [f"{self._at} AS {quoted(n)}" if n == DELETED_AT else f"t.{quoted(n)}" for n in table.columns]
            unmarked = f" WHERE t.{quoted(DELETED_AT)} IS NULL" if soft else ""
            select += (
                f" UNION ALL SELECT {', '.join(values)}, {literal('mark' if soft else 'delete')} AS {_OP}"
                f" FROM {table.quoted} AS t"
                f" LEFT ANTI JOIN {k} AS k ON {every(f'k.{quoted(n)} = t.{quoted(n)}' for n in key)}"
                f" LEFT ANTI JOIN {e} AS e ON {same}{unmarked}"
            )
        self.staging.changes.replace(select)

    def _carry_out_changes(self) -> None:
        columns = list(self.table.columns)
        key = self.manifest.primary_key
        same = every(f"t.{quoted(name)} = c.{quoted(name)}" for name in key)
        others = ", ".join(f"{quoted(name)} = c.{quoted(name)}" for name in columns if name not in key)
        self.sql.run(
            f"MERGE INTO {self.table.quoted} AS t USING {self.staging.changes.quoted} AS c ON {same}"
            f" WHEN MATCHED AND c.{_OP} = 'delete' THEN DELETE"
            + (f" WHEN MATCHED THEN UPDATE SET {others}" if others else "")
            + f" WHEN NOT MATCHED AND c.{_OP} IN ('insert', 'insert marked') THEN INSERT ({listed(columns)})"
            f" VALUES ({', '.join(f'c.{quoted(name)}' for name in columns)})"
        )

    def _read_by(self, windows: tuple[Window, ...]) -> str:
        """SQL condition: a newer extraction read the row `t` as it is."""
        column = windows[0].column
        kind = self._types[column]
        return within(f"t.{quoted(column)}", windows, lambda limit: f"CAST({literal(limit)} AS {kind})")

    def _conform(self) -> dict[str, str]:
        """Bring the table into the shape that the load needs, as far as the policy allows.

        New columns and wider types are statements of their own. A load that fails after them leaves them behind, with
        the rows as they were, and finds them when it is tried again.

        Returns:
            The columns that are loaded, each with the SQL of its value of a row `e`, in the table's type.
        """
        table, manifest = self.table, self.manifest
        difference = compare(self._types, table.columns)
        change = decide(difference, self.policy.on_schema_change, table.name, manifest.primary_key, manifest.mode)
        stamps = {name: "timestamp" for name in self._added if name not in table.columns}
        self.schema_changes += [*change.notes, *(f"the column {name} is added" for name in stamps)]
        for note in self.schema_changes:
            log.warning("%s: %s", table.name, note)
        there = {n: change.widen.get(n, kind) for n, kind in table.columns.items()} | dict(change.add)
        pairs = {n: (kind, there[n]) for n, kind in self._types.items() if n not in change.leave_out}
        fitting = {name: pair for name, pair in pairs.items() if name in change.fit}
        self._check_fit(fitting, f"{self.staging.rows.quoted} AS e", "e", "a row of the source has")
        if change.widen:
            table.widen(change.widen)
        if change.add or stamps:
            table.add({**change.add, **stamps})
        return {name: exact(f"e.{quoted(name)}", *pair) for name, pair in pairs.items()}

    def _check_fit(self, columns: Mapping[str, tuple[str, str]], rows: str, alias: str, what: str) -> None:
        """Check that values are the same in other types; see the parameters of `_conform` and `_missed`."""
        for name, (old, new) in columns.items():
            value = f"{alias}.{quoted(name)}"
            if old == new:
                continue
            bad = self.sql.rows(
                f"SELECT CAST({value} AS STRING) FROM {rows}"
                f" WHERE {value} IS NOT NULL AND {exact(value, old, new)} IS NULL LIMIT 1"
            )
            if bad:
                raise misfit(self.manifest, what, bad[0][0], name, new)

    def _refuse_repeated(self, joined: str) -> None:
        """Refuse a primary key that the extraction or the table holds more than once."""
        key = self.manifest.primary_key
        again = self.sql.rows(
            f"SELECT {listed(key)} FROM {self.staging.rows.quoted} GROUP BY {listed(key)} HAVING count(*) > 1 LIMIT 1"
        )
        if again:
            raise self._wrong("the extraction holds a primary key twice, clear the extract task")
        if self.sql.one(f"SELECT count(*) FROM {joined}") == self.manifest.rows:
            return
        names = ", ".join(f"e.{quoted(name)}" for name in key)
        [row] = self.sql.rows(f"SELECT {names} FROM {joined} GROUP BY {names} HAVING count(*) > 1 LIMIT 1")
        raise repeated(self.manifest, row)

    def _wrong(self, what: str) -> LoadError:
        return LoadError(f"{self.table.name}: {what}; the raw table is as before")


def _marking(was_marked: str) -> str:
    return f"CASE WHEN {was_marked} THEN 'mark again' ELSE 'mark' END"
