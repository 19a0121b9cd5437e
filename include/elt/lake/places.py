"""Working folders on a local disk, each held by a file lock for as long as its process lives."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4


class Places:
    """The working folders below one folder.

    Args:
        root: that folder; made when it is first needed.
        mode: its permissions when it is made, as far as the umask allows them.
    """

    def __init__(self, root: Path, mode: int = 0o777) -> None:
        self.root = root
        self.mode = mode

    @contextmanager
    def place(self, owner: str) -> Iterator[Path]:
        """A new folder; gone afterwards, whatever happens.

        Args:
            owner: what it is for. Folders of the same owner whose process was killed are removed first: nobody holds
                their locks any more.
        """
        self.root.mkdir(mode=self.mode, parents=True, exist_ok=True)
        folder = self.root / f"{owner}.{uuid4().hex[:12]}"
        with ExitStack() as held:
            with _lock(self.root, wait=True):  # nobody may take the new folder for a dead one before its lock is held
                for left in self.root.glob(f"{owner}.*"):
                    with _lock(left) as free:
                        if free:
                            shutil.rmtree(left, ignore_errors=True)
                folder.mkdir()
                held.enter_context(_lock(folder))
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            yield folder


@contextmanager
def _lock(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a folder's lock, until the process ends at the latest; yields False when another process holds it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
