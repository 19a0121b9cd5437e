"""CSV files in S3: each object is read once, into the working folder, and from there like a local file."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.elt.cast import CastResult
from include.elt.connections import AirflowConnection
from include.elt.connections.aws import Bucket, ChangedObjectError, MissingObjectError, S3Object
from include.elt.contract import Contract
from include.elt.errors import DataError, EltError, ExtractError, ReplicationError, SourceRefusedError
from include.elt.modes import Reading
from include.elt.paths import shown
from include.elt.replication import Stream
from include.elt.settings import Settings
from include.elt.sources.files import FileDelivery, FileSource

log = logging.getLogger(__name__)

NOTHING: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Found:
    """A file of a stream, here to be read.

    Attributes:
        path: the local file.
        name: what it is called: its key below the folder of the stream.
        origin: what else is known of it, for the manifest.
    """

    path: Path
    name: str
    origin: Mapping[str, Any] = field(default_factory=dict)


class Objects:
    """The objects that a stream names.

    Args:
        bucket: their bucket.
        pattern: a key; one that ends with a slash, which means all objects below; or one with `*` and `?`, which stand
            for anything but a slash.
    """

    def __init__(self, bucket: Bucket, pattern: str) -> None:
        self.bucket = bucket
        self.pattern = pattern
        self.start = re.split(r"[*?]", pattern)[0]
        self.folder = self.start[: self.start.rfind("/") + 1]

    @property
    def several(self) -> bool:
        """Whether it may be more than one object."""
        return self.start != self.pattern or self.pattern == self.folder

    def listed(self) -> list[S3Object]:
        """The objects that are there, by key. Of a folder without those that begin with a dot or an underscore."""
        wanted = re.compile("".join({"*": "[^/]*", "?": "[^/]"}.get(each, re.escape(each)) for each in self.pattern))
        listed = [each for each in self.bucket.objects(self.start) if not each.key.endswith("/")]
        if self.pattern != self.folder:
            return [each for each in listed if wanted.fullmatch(each.key)]
        hidden = [each.key for each in listed if re.search(r"(^|/)[._]", self.name(each.key))]
        if hidden:
            log.info("%s: left out: %s", self.bucket.url(self.pattern), ", ".join(hidden[:10]))
        return [each for each in listed if each.key not in hidden]

    def name(self, key: str) -> str:
        """What an object is called."""
        return key.removeprefix(self.folder)

    def bring(self, target: Path, known: frozenset[tuple[str, str]] = NOTHING) -> list[Found]:
        """Download the objects, each as it was when they were listed.

        Args:
            target: an empty folder.
            known: name and sha256 of files that are left out. Where S3 holds the SHA-256 of an object, such a file is
                not even downloaded.

        Returns:
            The files that are not known, by name.

        Raises:
            DataError: there is no object.
            ExtractError: an object was changed or removed meanwhile, or S3 could not be read.
        """
        try:
            if not self.several:  # which needs no right to list the bucket
                brought = [self._bring(self.pattern, target, 0, None, known)]
            else:
                objects = self.listed()
                if not objects:
                    raise DataError(
                        f"{self.bucket.url(self.pattern)}: nothing is there (connection {self.bucket.connection})"
                    )
                brought = [self._bring(each.key, target, number, each, known) for number, each in enumerate(objects)]
        except MissingObjectError as error:
            if self.several:
                raise ExtractError(f"{error}; it was a moment ago") from None
            raise DataError(str(error)) from None
        except ChangedObjectError as error:
            raise ExtractError(f"{error}; nothing was loaded") from None
        return [found for found in brought if found]

    def _bring(
        self, key: str, target: Path, number: int, listed: S3Object | None, known: frozenset[tuple[str, str]]
    ) -> Found | None:
        """One object as a file; None when it is known."""
        name = self.name(key)
        if listed and listed.knows_sha256 and any(name == each for each, _ in known):
            digest = self.bucket.sha256(key, listed.etag)
            if digest and (name, digest) in known:
                return None
        ending = re.search(r"(\.[A-Za-z0-9]{1,10}){1,2}$", key)
        path = target / f"{number:05d}{ending[0] if ending else '.csv'}"
        got = self.bucket.download(key, path, listed.etag if listed else None)
        if listed and got.bytes != listed.bytes:
            raise ExtractError(f"{self.bucket.url(key)}: {got.bytes:,} bytes arrived of {listed.bytes:,}")
        if (name, got.sha256) in known:
            path.unlink()
            return None
        origin = {"etag": got.etag, "sha256": got.sha256} | ({"version": got.version} if got.version else {})
        return Found(path, name, {"file": self.bucket.url(key), **origin})


class S3Source:
    """A stream that reads one CSV file in S3.

    Args:
        stream: the stream.
        contract: columns of its raw table.
        settings: Sling binary and timeout.
        objects: what the stream names.
    """

    def __init__(self, stream: Stream, contract: Contract, settings: Settings, objects: Objects) -> None:
        self.stream = stream
        self.contract = contract
        self.settings = settings
        self.objects = objects
        self._file: FileSource | None = None

    @classmethod
    def open(cls, stream: Stream, contract: Contract, settings: Settings, connection: AirflowConnection) -> S3Source:
        """The source of a stream by an Airflow connection of type `aws`.

        Raises:
            ReplicationError: the stream is no `s3://` URL.
            SettingsError: something in the connection is not understood.
        """
        match = re.fullmatch(r"s3://([^/]+)(?:/(.*))?", stream.name)
        if not match:
            raise ReplicationError(
                f"stream {stream.name}: with the connection {connection.conn_id} a stream is named s3://bucket/key"
            )
        bucket = Bucket.open(connection, match[1], lost=ExtractError, refused=SourceRefusedError)
        return cls(stream, contract, settings, Objects(bucket, match[2] or ""))

    def kill(self) -> None:
        """End a running Sling process."""
        if self._file is not None:
            self._file.kill()

    def deliver(self, work: Path, null: str, reading: Reading) -> S3Delivery:
        """Download the object and let Sling write it as text."""
        target = work / "objects"
        target.mkdir()
        files = self.objects.bring(target, reading.known_files)
        if len(files) != 1:
            raise DataError(f"{self.stream.name}: {len(files)} files; one is read")
        [found] = files
        log.info("%s: %s downloaded", self.stream.id, found.origin["file"])
        stream = self.stream.model_copy(update={"name": f"file://{found.path}"})
        self._file = FileSource(stream, self.contract, self.settings)
        with _named(found):
            delivery = self._file.deliver(work, null, reading)
        return S3Delivery(delivery.text, delivery.source, delivery.options, found=found)


@dataclass(frozen=True)
class S3Delivery(FileDelivery):
    """What Sling delivered of an object; see `Delivery`."""

    found: Found = field(kw_only=True)

    def describe(self) -> dict[str, Any]:
        """The object with its size, digest, ETag and version."""
        return {**super().describe(), **self.found.origin}

    def compare(self) -> None:
        """Compare every value with the file."""
        with _named(self.found):
            super().compare()

    def accept(self, result: CastResult) -> None:
        """The cast has to have read what the survey counted."""
        with _named(self.found):
            super().accept(result)


@contextmanager
def _named(found: Found) -> Iterator[None]:
    """Let messages name the object instead of the local file."""
    try:
        yield
    except EltError as error:
        url = str(found.origin["file"])
        text = str(error).replace(str(found.path), url).replace(shown(found.path), url)
        raise type(error)(text) from error.__cause__
