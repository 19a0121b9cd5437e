"""A lake in a store of objects: a bucket of S3, or a volume of Unity Catalog.

An extraction is there when its manifest is, which is written last and removed first. Working folders lie on a local
disk, because Sling and DuckDB write and read files there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from include.elt.errors import ChangedObjectError, LakeRefusedError, LoadError, MissingObjectError
from include.elt.lake import ABANDONED, MANIFEST, Manifest, damaged, manifest_text, missing, parse_manifest, slug
from include.elt.lake.places import Places
from include.elt.paths import shown


class Stored(Protocol):
    """An object as its store lists it."""

    @property
    def key(self) -> str:
        """Its key."""

    @property
    def modified(self) -> datetime:
        """When it was written."""


class Arrived(Protocol):
    """What a download brought."""

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of its bytes, computed here."""


class Store(Protocol):
    """A store of objects. Each method raises LakeError, or LakeRefusedError where trying again is no use."""

    def url(self, key: str) -> str:
        """The URL of an object."""

    def check(self, prefix: str) -> None:
        """Learn whether the store can be reached and we may list it."""

    def objects(self, prefix: str) -> Iterable[Stored]:
        """All objects whose keys begin with `prefix`, which ends with a slash."""

    def read(self, key: str) -> bytes:
        """The content of a small object; MissingObjectError without one."""

    def download(self, key: str, target: Path) -> Arrived:
        """Write an object to a file; MissingObjectError without one."""

    def upload(self, file: Path, key: str, sha256: str) -> object:
        """Send a file of that digest; it is there as a whole or not at all."""

    def write(self, key: str, content: bytes) -> None:
        """Make a small object, in one step."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""


class RemoteLake:
    """A lake in a store of objects; see `Lake`.

    Args:
        store: the bucket or volume.
        prefix: what the keys of the lake begin with; empty for the whole store.
        scratch: local folder for what is on its way; by default the system's temporary one.
    """

    def __init__(self, store: Store, prefix: str, scratch: Path | None = None) -> None:
        self.store = store
        self.prefix = prefix.strip("/")
        self.scratch = (scratch or Path(tempfile.gettempdir())) / f"elt-lake-{os.getuid()}"
        self._places = Places(self.scratch, 0o700)  # the data is nobody else's business

    @contextmanager
    def workplace(self, replication: str, stream: str) -> Iterator[Path]:
        """A local folder, after a look whether the store lets us in; see `Lake.workplace`."""
        self.store.check(self._stream(replication, stream))
        with self._place(replication, stream) as folder:
            yield folder

    def publish(self, folder: Path, manifest: Manifest) -> str:
        """Upload the files, then the manifest; see `Lake.publish`."""
        place = self._stream(manifest.replication, manifest.stream) + manifest.folder
        known = {file.name: file.sha256 for file in manifest.everything}
        for file in sorted(folder.iterdir()):
            self.store.upload(file, f"{place}/{file.name}", known.get(file.name) or _sha256(file))
        self.store.write(f"{place}/{MANIFEST}", manifest_text(manifest).encode())
        return self.store.url(place)

    def read_manifest(self, location: str) -> Manifest:
        """Read the manifest of an extraction; see `Lake.read_manifest`."""
        key = f"{self._key(location)}/{MANIFEST}"
        try:
            return parse_manifest(self.store.read(key), self.store.url(key))
        except MissingObjectError:
            raise LoadError(missing(self.store.url(key))) from None

    @contextmanager
    def fetch(self, location: str, manifest: Manifest) -> Iterator[Path]:
        """Download the files and compare their digests; see `Lake.fetch`."""
        place = self._key(location)
        with self._place(manifest.replication, manifest.stream) as folder:
            for file in manifest.everything:
                key = f"{place}/{file.name}"
                try:
                    found = self.store.download(key, folder / file.name)
                except MissingObjectError:
                    raise LoadError(missing(self.store.url(key))) from None
                except ChangedObjectError:
                    raise LoadError(damaged(self.store.url(key))) from None
                if found.sha256 != file.sha256:
                    raise LoadError(damaged(self.store.url(key)))
            yield folder

    def prune(self, replication: str, stream: str, keep: int) -> list[str]:
        """Remove old extractions, the manifest first; see `Lake.prune`."""
        place = self._stream(replication, stream)
        folders: dict[str, dict[str, Stored]] = defaultdict(dict)
        for each in self.store.objects(place):
            folder, _, name = each.key.removeprefix(place).partition("/")
            folders[folder][name] = each
        whole = [folder for folder, files in folders.items() if MANIFEST in files]
        whole.sort(key=lambda folder: folders[folder][MANIFEST].modified, reverse=True)
        day_ago = datetime.now(UTC) - ABANDONED
        left = [
            folder
            for folder, files in folders.items()
            if MANIFEST not in files and all(file.modified < day_ago for file in files.values())
        ]
        for folder in (*whole[keep:], *left):
            for name in sorted(folders[folder], key=lambda name: name != MANIFEST):
                self.store.delete(folders[folder][name].key)
        return [self.store.url(place + folder) for folder in whole[keep:]]

    @contextmanager
    def _place(self, replication: str, stream: str) -> Iterator[Path]:
        self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.scratch.stat().st_uid != os.getuid():
            raise LakeRefusedError(f"{shown(self.scratch)} belongs to somebody else; choose a folder with SCRATCH")
        with self._places.place(f"{slug(replication)}.{slug(stream)}") as folder:
            yield folder

    def _stream(self, replication: str, stream: str) -> str:
        """What the keys of a stream begin with."""
        return "/".join((*([self.prefix] if self.prefix else ()), slug(replication), slug(stream), ""))

    def _key(self, location: str) -> str:
        """What the keys of an extraction begin with."""
        root = self.store.url(f"{self.prefix}/" if self.prefix else "")
        if not location.startswith(root):
            raise LoadError(f"{location} is not in the lake {root}; clear the extract task to extract the stream again")
        return location.removeprefix(self.store.url(""))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
