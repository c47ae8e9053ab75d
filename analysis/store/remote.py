"""Results at a URI (`s3://`, `gs://`, any of pyarrow's file systems), by way of a copy on this machine.

A ledger needs appends and locks, which object stores do not have. So whoever reads or writes works in the
copy, and the two are brought into line: segments only grow, and a longer one holds all of a shorter one;
other files are written once, or are made from the segments and say from which. A file is taken there before
what names it, and fetched after it. One machine at a time may write; several processes of it may.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from analysis.store.errors import StoreError
from analysis.store.files import Layout, write_whole
from analysis.store.locks import driver_alive, living_drivers

PUSH_SECONDS = (10.0, 30.0)
"""Between two looks at what is to be taken there: ten times what the last one took, within these."""
PULL_SECONDS = 5.0
"""Between two looks at what has come, of whoever follows."""
FRESH_SECONDS = 120.0
"""A driver whose lock was not renewed for so long is taken for dead by other machines."""

Seen = tuple[int, int]
"""Size and time of change, in nanoseconds, of a file of the copy when it was last the same on both sides."""


class Remote:
    """What is at a URI, and the copy of it.

    Raises:
        StoreError: no file system has such a URI.
    """

    def __init__(self, layout: Layout) -> None:
        self.uri, self.layout = str(layout.uri), replace(layout, uri=None)
        with self._told("read"):
            self._system, self._root = FileSystem.from_uri(self.uri)
        self._turn = threading.RLock()
        self._same: dict[str, Seen] = {}
        self._pulled = float("-inf")

    def follow(self) -> None:
        """Fetches what has come, now and then, unless this machine is where it comes from."""
        if time.monotonic() - self._pulled >= PULL_SECONDS and not living_drivers(self.layout.results):
            self.pull()

    def pull(self) -> None:
        """Fetches what the copy lacks: all but weights, which are fetched one by one.

        Raises:
            StoreError: it cannot be reached or read.
        """
        with self._turn, self._told("read"):
            there = self._there()
            for name in sorted(there, key=_rank, reverse=True):
                if not name.startswith("weights/") and self._lacks(name, there[name]):
                    self._fetch(name)
            self._forget_drivers(there)
            self._pulled = time.monotonic()

    def fetch(self, path: Path) -> None:
        """Fetches a file of the copy, if there is such a one."""
        with self._turn, self._told("read"):
            name = path.relative_to(self.layout.results).as_posix()
            if self._system.get_file_info(self._path(name)).type == FileType.File:
                self._fetch(name)

    def push(self) -> None:
        """Takes there what is new in the copy, and takes away what it no longer has: checkpoints and locks.

        Raises:
            StoreError: it cannot be reached or written; the copy has all, and the next call tries again.
        """
        with self._turn, self._told("write"):
            short = dict(self._below(self.layout.segments))  # no longer than before what they name was listed
            here = dict(self._below(self.layout.results)) | short
            for name in sorted(here, key=_rank):
                renewed = name.startswith("ledger/drivers/")
                if renewed or self._same.get(name) != here[name]:
                    self._send(name, here[name])
            for name in [each for each in self._same if each not in here and each.startswith(_PASSING)]:
                with suppress(FileNotFoundError):  # another machine took it away
                    self._system.delete_file(self._path(name))
                del self._same[name]

    def check_alone(self) -> None:
        """Raises StoreError where a driver of another machine writes there."""
        with self._turn, self._told("read"):
            for name, info in self._there().items():
                if not name.startswith("ledger/drivers/"):
                    continue
                path, age = self.layout.results / name, time.time() - (info.mtime_ns or 0) / 1e9
                who = json.loads(path.read_text(encoding="utf-8") or "{}")
                if who.get("host", "") == socket.gethostname():
                    continue
                if age < FRESH_SECONDS:
                    driver = f"driver {who.get('driver')} of host {who.get('host')}"
                    raise StoreError(
                        f"{self.uri}: {driver} writes there, last seen {age:.0f} s ago; end it, or if it is "
                        f"dead wait {FRESH_SECONDS:.0f} s"
                    )
                path.unlink()  # and with the next push it is gone there too

    def _there(self) -> dict[str, FileInfo]:
        selector = FileSelector(self._root, allow_not_found=True, recursive=True)
        files = [info for info in self._system.get_file_info(selector) if info.type == FileType.File]
        return {info.path.removeprefix(self._root).lstrip("/"): info for info in files}

    def _below(self, place: Path) -> Iterator[tuple[str, Seen]]:
        """The files of the copy that are taken there, as they are now."""
        for folder, folders, names in os.walk(place):
            folders[:] = [each for each in folders if not each.startswith(".") and each != "mirror"]
            for name in names:
                path = Path(folder, name)
                if name.startswith(".") or path in (self.layout.lock, self.layout.compaction_lock):
                    continue
                if path.parent == self.layout.drivers and not driver_alive(self.layout.results, path.stem):
                    continue
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                yield path.relative_to(self.layout.results).as_posix(), (status.st_size, status.st_mtime_ns)

    def _lacks(self, name: str, there: FileInfo) -> bool:
        """Whether the copy has no such file, or an older one; one that is as new is noted as the same."""
        try:
            status = (self.layout.results / name).stat()
        except FileNotFoundError:
            return True
        changed = there.mtime_ns or 0
        if status.st_size == there.size and status.st_mtime_ns <= changed:
            self._same[name] = status.st_size, status.st_mtime_ns
        if name.startswith("ledger/segments/"):
            return status.st_size < there.size
        return status.st_size != there.size and status.st_mtime_ns < changed

    def _fetch(self, name: str) -> None:
        path = self.layout.results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._system.open_input_stream(self._path(name)) as stream:
                data = stream.read()
        except FileNotFoundError:
            return  # it has just been taken away
        write_whole(path, data, writer=f"fetch-{os.getpid()}", durable=False)
        status = path.stat()
        self._same[name] = status.st_size, status.st_mtime_ns

    def _send(self, name: str, seen: Seen) -> None:
        try:
            with open(self.layout.results / name, "rb") as file:
                data = file.read(seen[0])
        except FileNotFoundError:
            return
        if isinstance(self._system, LocalFileSystem):  # an object store has no folders
            self._system.create_dir(str(Path(self._path(name)).parent), recursive=True)
        with self._system.open_output_stream(self._path(name)) as stream:
            stream.write(data)
        self._same[name] = seen

    def _forget_drivers(self, there: dict[str, FileInfo]) -> None:
        """Takes the locks of other machines' drivers away that have ended."""
        for path in self.layout.drivers.glob("*.lock"):
            name = path.relative_to(self.layout.results).as_posix()
            if name in self._same and name not in there:
                path.unlink(missing_ok=True)
                del self._same[name]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _told(self, action: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(
                f"cannot {action} {self.uri}: {reason}; check the address and the rights to it, and run the "
                f"same command again: this machine's copy is {self.layout.results}"
            ) from error


_PASSING = ("checkpoints/", "ledger/drivers/")


def _rank(name: str) -> int:
    """What is made from segments after them, and these after what they name."""
    if name.startswith("ledger/segments/"):
        return 1
    return 2 if name.startswith("tables/") or name == "ledger/snapshot.jsonl" else 0


_REMOTES: dict[Layout, Remote] = {}
"""Those that this process knows."""


def remote_of(layout: Layout) -> Remote:
    """The one of this process for that URI."""
    if layout not in _REMOTES:
        _REMOTES[layout] = Remote(layout)
    return _REMOTES[layout]


def push_all() -> None:
    """Takes there whatever this process has written beside its ledgers, such as a search's winner.

    Raises:
        StoreError: it cannot be reached or written.
    """
    for remote in _REMOTES.values():
        remote.push()


class Pusher:
    """Takes there what a writer writes, in a thread, until it is closed."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="results to their URI", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The last time.

        Raises:
            StoreError: it cannot be reached or written.
        """
        self._over.set()
        self._thread.join()
        self._remote.push()

    def _keep(self) -> None:
        pause = PUSH_SECONDS[0]
        while not self._over.wait(pause):
            began = time.monotonic()
            with suppress(StoreError):  # it is tried again, and the last one tells
                self._remote.push()
            pause = min(max(10 * (time.monotonic() - began), PUSH_SECONDS[0]), PUSH_SECONDS[1])
