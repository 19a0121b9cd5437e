"""One load into a raw table, by mode and policy, within a transaction that is open.

Rows that change are deleted and inserted again, not updated: DuckDB then writes the new rows at the table's end, where
an UPDATE or MERGE of rows here and there writes nearly every column anew (measured: 100,000 rows into 10 million take
0.9 s, 5 s with UPDATE or MERGE).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import duckdb

from include.elt.contract import ADDED, DELETED_AT, LOADED_AT
from include.elt.errors import LoadError, RefusedLoadError
from include.elt.lake import Manifest
from include.elt.modes import Window
from include.elt.replication import Meta
from include.elt.sql import literal, parquet, quoted
from include.elt.warehouse.duckdb import loadlog
from include.elt.warehouse.duckdb.table import ZONED, Table, contract_type, duckdb_type, exact, one
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

log = logging.getLogger("include.elt.warehouse.duckdb")

_CHANGED, _GONE, _KEPT, _ROW = (quoted(name) for name in ("#changed", "#gone", "#kept", "#row"))
"""Our own tables and column, under names that no contract can have."""


class Load:
    """One load. One use.

    Args:
        sql: the connection, within a transaction.
        manifest: what was extracted.
        files: the Parquet files of its rows.
        keys: the Parquet file with the primary keys of the source, if there is one.
        policy: the stream's `meta`.
    """

    def __init__(
        self,
        sql: duckdb.DuckDBPyConnection,
        manifest: Manifest,
        files: list[Path],
        keys: Path | None,
        policy: Meta,
    ) -> None:
        self.sql = sql
        self.manifest = manifest
        self.policy = policy
        self.table = Table(sql, manifest.table)
        self.created = not self.table.exists
        self.schema_changes: list[str] = []
        self._files = parquet(files)
        self._keys = keys
        self._types = {name: duckdb_type(data_type) for name, data_type in manifest.columns}
        self._added = added_columns(manifest, policy)
        self._at = f"CAST({literal(manifest.extracted_at)} AS {ZONED})"

    def run(self) -> Changes:
        """Change the table.

        Raises:
            LoadError: the extraction is not what its manifest says.
            RefusedLoadError: the load would lose rows, bring old ones back or break a policy.
        """
        mode = self.manifest.mode
        arrived = one(self.sql, f"SELECT count(*) FROM {self._files}")
        if arrived != self.manifest.rows:
            raise self._wrong(f"{arrived} rows arrived of {self.manifest.rows}")
        if mode in ("incremental", "backfill"):
            self._check_key()
        known = () if self.created else check_order(self.manifest, loadlog.newer(self.sql, self.manifest))
        if mode == "full-refresh":
            changes, of_source = self._replace()
        elif mode == "snapshot":
            changes, of_source = self._append()
        else:
            changes, of_source = self._merge_and_delete(known)
        counts = check_counts(self.manifest, self.policy, of_source)
        if counts:
            log.info("%s", counts)
        return changes

    def _check_key(self) -> None:
        if not self.manifest.primary_key:
            raise self._wrong("the manifest names no primary key, clear the extract task")
        if "rowid" in {*self._types, *self.table.columns}:
            raise RefusedLoadError(
                f"{self.table.name}: DuckDB needs the name of the column rowid for itself when rows are merged;"
                " give it another one in the contract, and the stream a sql that says so"
            )

    # Every step returns the rows of the table that stand for the source, which reconciliation compares.

    def _replace(self) -> tuple[Changes, int]:
        """Put the extraction in the place of the raw table, unless that would lose what is there."""
        soft = self.policy.deletes == "soft"
        there = self.table.live() if soft else self.table.count()
        refuse_empty(self.manifest, self.policy, self.manifest.rows, there)
        kept = self._keep_missed() if soft and not self.created else 0
        if not self.created:
            shapes = (self._types, self.table.columns)
            contract, table = ({name: contract_type(stored) for name, stored in each.items()} for each in shapes)
            self.schema_changes.extend(in_words(compare(contract, table)))
        added = {LOADED_AT: self._at, DELETED_AT: "NULL"}
        columns = [*self._types, *self._added]
        values = [
            *map(quoted, self._types),
            *(f"CAST({added[name]} AS {ZONED}) AS {quoted(name)}" for name in columns if name in ADDED),
        ]
        inserted = self.table.replace(f"SELECT {', '.join(values)} FROM {self._files}")
        marked = 0
        if kept:
            self.table.insert(columns, f"SELECT {', '.join(map(quoted, columns))} FROM {_KEPT}")
            marked = one(self.sql, f"SELECT count(*) FROM {_KEPT} WHERE {quoted(DELETED_AT)} = {self._at}")
        self._expect(inserted + kept)
        return Changes(inserted=inserted, deleted=marked), inserted

    def _keep_missed(self) -> int:
        """Set aside the rows of the old table that the source has no more, in the new shape and marked."""
        old = self.table.columns
        check_key_is_there(self.manifest, old)
        keys = {name: exact(f"t.{quoted(name)}", old[name], self._types[name]) for name in self.manifest.primary_key}
        same = every(f"e.{quoted(name)} = {key}" for name, key in keys.items())
        missed = f"{self.table.quoted} AS t ANTI JOIN {self._files} AS e ON {same}"
        columns = {name: (old[name], new) for name, new in self._types.items() if name in old}
        self._check_fit(columns, f"{missed} WHERE", "t", "a row that is deleted in the source has")
        values = [
            f"{exact(f't.{quoted(name)}', *columns[name]) if name in columns else f'CAST(NULL AS {new})'}"
            f" AS {quoted(name)}"
            for name, new in self._types.items()
        ]
        loaded, mark = (f"t.{quoted(name)}" if name in old else "NULL" for name in ADDED)
        self.sql.execute(
            f"CREATE TEMP TABLE {_KEPT} AS SELECT {', '.join(values)}, CAST({loaded} AS {ZONED}) AS"
            f" {quoted(LOADED_AT)}, coalesce({mark}, {self._at}) AS {quoted(DELETED_AT)} FROM {missed}"
        )
        return one(self.sql, f"SELECT count(*) FROM {_KEPT}")

    def _append(self) -> tuple[Changes, int]:
        """Add the extraction to the raw table; takes the place of what the same run appended earlier."""
        arrived = self._conform()
        before = self.table.count()
        replaced = 0
        if times := loadlog.snapshots_of_run(self.sql, self.manifest):
            earlier = f"{quoted(LOADED_AT)} IN ({times})"
            refuse_empty(self.manifest, self.policy, self.manifest.rows, self.table.count(earlier))
            replaced = self.table.delete(earlier)
        values = ", ".join([*arrived.values(), self._at])
        inserted = self.table.insert([*arrived, LOADED_AT], f"SELECT {values} FROM {self._files} AS e")
        self._expect(before - replaced + inserted)
        return Changes(inserted=inserted), inserted

    def _merge_and_delete(self, known: tuple[Window, ...]) -> tuple[Changes, int]:
        """Merge the extraction, then find the rows that the source has no more."""
        if self.created:
            refuse_part(self.manifest, loadlog.files(self.sql, self.table.name))
        arrived = self._conform()
        before, live = self.table.count(), self.table.live()
        inserted, updated = self._merge(arrived, known) if before else (self._insert(arrived), 0)
        removed, marked = self._delete(live)
        self._expect(before + inserted - removed)
        return Changes(inserted, updated, removed + marked), self.table.live()

    def _insert(self, arrived: Mapping[str, str]) -> int:
        """Fill a table that is empty."""
        return self.table.insert(list(arrived), f"SELECT {', '.join(arrived.values())} FROM {self._files} AS e")

    def _merge(self, arrived: Mapping[str, str], known: tuple[Window, ...]) -> tuple[int, int]:
        """Insert new rows and replace those that differ; returns how many of each."""
        key = self.manifest.primary_key
        table = self.table
        values = ", ".join(f"{value} AS {quoted(name)}" for name, value in arrived.items())
        rows = f"(SELECT {values} FROM {self._files} AS e)"
        joined = f"{rows} AS e LEFT JOIN {table.quoted} AS t ON {every(f'e.{quoted(n)} = t.{quoted(n)}' for n in key)}"
        self._refuse_repeated(joined)
        differs = [f"e.{quoted(name)} IS DISTINCT FROM t.{quoted(name)}" for name in arrived if name not in key]
        others = [name for name in table.columns if name not in arrived]
        kept = [f"t.{quoted(name)}" for name in others if name != DELETED_AT]
        if table.marks:
            differs.append(f"t.{quoted(DELETED_AT)} IS NOT NULL")
            kept.append(f"CAST(NULL AS {ZONED}) AS {quoted(DELETED_AT)}")
        elsewhere = f"AND NOT ({self._read_by(known)})" if known else ""
        self.sql.execute(
            f"CREATE TEMP TABLE {_CHANGED} AS SELECT {', '.join(['e.*', *kept])}, t.rowid AS {_ROW} FROM {joined}"
            f" WHERE t.rowid IS NULL OR (({' OR '.join(differs) or 'FALSE'}) {elsewhere})"
        )
        there = one(self.sql, f"SELECT count({_ROW}) FROM {_CHANGED}")
        updated = table.delete(f"rowid IN (SELECT {_ROW} FROM {_CHANGED} WHERE {_ROW} IS NOT NULL)")
        if updated != there:
            raise self._wrong("the extraction holds a primary key twice, clear the extract task")
        columns = [*arrived, *others]
        written = table.insert(columns, f"SELECT {', '.join(map(quoted, columns))} FROM {_CHANGED}")
        return written - updated, updated

    def _read_by(self, windows: tuple[Window, ...]) -> str:
        """SQL condition: a newer extraction read the row `t` as it is."""
        column = windows[0].column
        kind = self._types[column]
        return within(f"t.{quoted(column)}", windows, lambda limit: f"CAST({literal(limit)} AS {kind})")

    def _delete(self, live: int) -> tuple[int, int]:
        """Remove or mark the rows that the source has no more; returns how many of each."""
        policy, keys = self.policy.deletes, self.manifest.keys
        if self.manifest.mode != "incremental" or policy == "ignore" or not keys or not self._keys:
            return 0, 0
        refuse_empty(self.manifest, self.policy, keys.rows, live)
        gone = self._find_gone(self._keys)
        found = f"rowid IN (FROM {_GONE})"
        mark = f"UPDATE {self.table.quoted} SET {quoted(DELETED_AT)} = {self._at} WHERE {found}"
        removed, marked = (self.table.delete(found), 0) if policy == "hard" else (0, one(self.sql, mark))
        if gone != removed + marked:
            raise self._wrong(f"{removed + marked} of {gone} deleted rows were found again")
        return removed, marked

    def _find_gone(self, keys: Path) -> int:
        """Note the rows of the table whose key the source does not have; returns how many."""
        names = self.manifest.primary_key
        listed = ", ".join(
            f"{exact(f'k.{quoted(n)}', self._types[n], self.table.columns[n])} AS {quoted(n)}" for n in names
        )
        same = every(f"k.{quoted(name)} = t.{quoted(name)}" for name in names)
        unmarked = f"t.{quoted(DELETED_AT)} IS NULL" if self.policy.deletes == "soft" else "TRUE"
        return one(
            self.sql,
            f"CREATE TEMP TABLE {_GONE} AS SELECT t.rowid AS {_ROW} FROM {self.table.quoted} AS t"
            f" ANTI JOIN (SELECT {listed} FROM {parquet([keys])} AS k) AS k ON {same} WHERE {unmarked}",
        )

    def _conform(self) -> dict[str, str]:
        """Bring the table into the shape that the load needs, as far as the policy allows.

        Returns:
            The columns that are loaded, each with the SQL of its value of a row `e`, in the table's type.
        """
        table, manifest = self.table, self.manifest
        if self.created:
            table.create(self._types | dict.fromkeys(self._added, ZONED))
            return {name: f"e.{quoted(name)}" for name in self._types}
        difference = compare(
            *({name: contract_type(stored) for name, stored in each.items()} for each in (self._types, table.columns))
        )
        change = decide(difference, self.policy.on_schema_change, table.name, manifest.primary_key, manifest.mode)
        self.schema_changes.extend(change.notes)
        for note in change.notes:
            log.warning("%s: %s", table.name, note)
        for name in change.add:
            table.add(name, self._types[name])
        for name in change.widen:
            table.widen(name, self._types[name])
        for name in self._added:
            if name not in table.columns:
                log.warning("%s: the column %s is added", table.name, name)
                self.schema_changes.append(f"the column {name} is added")
                table.add(name, ZONED)
        pairs = {n: (t, table.columns[n]) for n, t in self._types.items() if n not in change.leave_out}
        fitting = {name: pair for name, pair in pairs.items() if name in change.fit}
        self._check_fit(fitting, f"{self._files} AS e WHERE", "e", "a row of the source has")
        return {name: exact(f"e.{quoted(name)}", *pair) for name, pair in pairs.items()}

    def _check_fit(self, columns: Mapping[str, tuple[str, str]], rows: str, alias: str, what: str) -> None:
        """Check that values are the same in other types.

        Args:
            columns: type of the values, and of the table, by column.
            rows: SQL of the rows up to their condition.
            alias: name of the rows in it.
            what: words for the message.
        """
        for name, (old, new) in columns.items():
            value = f"{alias}.{quoted(name)}"
            if old == new:
                continue
            bad = self.sql.execute(
                f"SELECT CAST({value} AS VARCHAR) FROM {rows} {value} IS NOT NULL"
                f" AND {exact(value, old, new)} IS NULL LIMIT 1"
            ).fetchone()
            if bad:
                raise misfit(self.manifest, what, bad[0], name, contract_type(new))

    def _refuse_repeated(self, joined: str) -> None:
        """Refuse a table in which a row that arrives has several counterparts."""
        if one(self.sql, f"SELECT count(*) FROM {joined}") == self.manifest.rows:
            return
        names = ", ".join(f"e.{quoted(name)}" for name in self.manifest.primary_key)
        row = self.sql.execute(f"SELECT {names} FROM {joined} GROUP BY ALL HAVING count(*) > 1 LIMIT 1").fetchone()
        raise repeated(self.manifest, row or ())

    def _expect(self, rows: int) -> None:
        if (total := self.table.count()) != rows:
            raise self._wrong(f"the table has {total} rows instead of {rows}")

    def _wrong(self, what: str) -> LoadError:
        return LoadError(f"{self.table.name}: {what}; the load was rolled back")
