"""The errors of this library. Each message names the file, stream, column or row, what was expected and what to do."""

from __future__ import annotations

from typing import ClassVar


class EltError(Exception):
    """Base of every error that this library raises on purpose.

    Attributes:
        final: whether trying again is no use.
        kind: what an alert about it is called.
    """

    final: ClassVar[bool] = False
    kind: ClassVar[str] = "failed stream"


class SettingsError(EltError):
    """A setting has a value that is not allowed."""

    final = True


class ReplicationError(EltError):
    """A replication file says something that Sling would ignore or that we cannot promise."""

    final = True


class ContractError(EltError):
    """A contract in a dbt `sources.yml` is missing, incomplete or uses a type we cannot cast to."""

    final = True


class ExtractError(EltError):
    """A source could not be read completely; trying again may help."""


class DataError(ExtractError):
    """The source was read, but what it holds breaks the contract; trying again does not help."""

    final = True


class SourceRefusedError(ExtractError):
    """The source lets us in no further: a wrong password, a missing right, table or column; trying again is no use."""

    final = True


class LakeError(EltError):
    """The lake could not be reached, or not to the end; trying again may help."""


class LakeRefusedError(LakeError):
    """The lake lets us in no further: a wrong key, a missing right or bucket; trying again is no use."""

    final = True


class MissingObjectError(EltError):
    """There is no object of that key."""

    final = True


class ChangedObjectError(EltError):
    """The object is not the one that was listed any more."""


class LoadError(EltError):
    """An extraction could not be loaded; the raw table is what it was before."""


class RefusedLoadError(LoadError):
    """A load would lose rows or bring old ones back; trying again does not help."""

    final = True


class SchemaChangeError(RefusedLoadError):
    """Source, contract and raw table have different columns, and the stream's policy allows no change."""

    kind = "schema change"


class ReconciliationError(RefusedLoadError):
    """After the load, the raw table would differ from its source by more rows than the stream tolerates."""

    kind = "reconciliation"


class WarehouseRefusedError(LoadError):
    """The warehouse lets us in no further: a wrong token, a missing right or catalog; trying again is no use."""

    final = True


class WarehouseBusyError(LoadError):
    """The warehouse is in use by another process for longer than we wait; trying again may help."""
