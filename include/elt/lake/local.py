"""A lake in a folder on a local disk, with its working folders in `.work` beside the extractions.

A folder appears under its final name in one step, complete or not at all.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from include.elt.lake import ABANDONED, MANIFEST, Manifest, manifest_text, read_manifest, slug
from include.elt.lake.places import Places


class LocalLake:
    """A lake on a local disk; see `Lake`.

    Args:
        root: its folder; made when it is first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._places = Places(root / ".work")

    def workplace(self, replication: str, stream: str) -> AbstractContextManager[Path]:
        """A folder for one extraction, on the lake's disk; see `Lake.workplace`."""
        return self._places.place(f"{slug(replication)}.{slug(stream)}")

    def publish(self, folder: Path, manifest: Manifest) -> str:
        """Rename the folder to its final name; see `Lake.publish`."""
        with (folder / MANIFEST).open("w", encoding="utf-8") as stream:
            stream.write(manifest_text(manifest))
            stream.flush()
            os.fsync(stream.fileno())
        final = self._stream(manifest.replication, manifest.stream) / manifest.folder
        final.parent.mkdir(parents=True, exist_ok=True)
        _sync(folder)
        folder.rename(final)
        _sync(final.parent)
        return str(final)

    def read_manifest(self, location: str) -> Manifest:
        """Read the manifest of an extraction; see `Lake.read_manifest`."""
        return read_manifest(Path(location))

    @contextmanager
    def fetch(self, location: str, manifest: Manifest) -> Iterator[Path]:  # noqa: ARG002
        """The folder itself; the warehouse verifies what it loads, so it is not read twice here. See `Lake.fetch`."""
        yield Path(location)

    def prune(self, replication: str, stream: str, keep: int) -> list[str]:
        """Remove old extractions, the manifest first; see `Lake.prune`."""
        place = self._stream(replication, stream)
        folders = [path.parent for path in place.glob(f"*/{MANIFEST}")]
        folders.sort(key=lambda path: (path / MANIFEST).stat().st_mtime_ns, reverse=True)
        for old in folders[keep:]:
            with suppress(OSError):  # what cannot be removed now is removed next time
                (old / MANIFEST).unlink()
            shutil.rmtree(old, ignore_errors=True)
        day_ago = time.time() - ABANDONED.total_seconds()
        for left in place.glob("*/"):
            with suppress(FileNotFoundError):
                if not (left / MANIFEST).exists() and left.stat().st_mtime < day_ago:
                    shutil.rmtree(left, ignore_errors=True)
        return [str(folder) for folder in folders[keep:]]

    def _stream(self, replication: str, stream: str) -> Path:
        return self.root / slug(replication) / slug(stream)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable; a load that was committed must not outlive its extraction's folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
