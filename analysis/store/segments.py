"""The ledger's files: appending lines to one's own, reading what is new in all.

A record is one write(2) to a file opened for appending, and each process writes a segment of its own, so
that a killed process can leave a torn line at the end of its segment and nowhere else.
"""

from __future__ import annotations

import os
import socket
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from analysis.store.errors import StoreError, told
from analysis.store.records import VERSION, Damaged, Entry, decode, encode

SUFFIX = ".jsonl"
_TAIL = 64  # bytes before an offset that tell whether the segment is still the one that was read


class Segment:
    """A segment being written; only this process appends to it.

    What is written survives a kill at once, and a power cut once `sync` has returned.
    """

    def __init__(self, path: Path, header: bytes) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        with told(path, "create"):
            self._descriptor = os.open(path, flags, 0o644)
        try:
            self.append(header)
        except BaseException:
            self.close()
            path.unlink(missing_ok=True)
            raise

    def append(self, lines: bytes) -> tuple[int, int]:
        """Adds whole lines, or nothing; returns the offsets where they begin and end.

        Raises:
            StoreError: the disk is full or failing; what was written of them is taken back.
        """
        with told(self.path, "write"):
            start = os.lseek(self._descriptor, 0, os.SEEK_END)
            try:
                written = os.write(self._descriptor, lines)
                while written < len(lines):  # a full disk takes a part, and says why at the next write
                    written += os.write(self._descriptor, lines[written:])
            except BaseException:  # Ctrl-C too: a torn line may stand at the end alone
                os.ftruncate(self._descriptor, start)
                raise
        return start, start + len(lines)

    def sync(self) -> None:
        with told(self.path, "write"):
            os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def new_segment(folder: Path, driver: str) -> Segment:
    """A segment of this process's own. Its first line says who writes it."""
    header = {
        "kind": "segment",
        "version": VERSION,
        "driver": driver,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "time": time.time(),
    }
    return Segment(folder / f"{driver}-{time.time_ns():x}{SUFFIX}", encode(header))


@dataclass(frozen=True)
class Position:
    """How far a segment was read: bytes taken, and bytes after them that are no whole record (yet)."""

    offset: int = 0
    torn: int = 0


def segment_sizes(folder: Path) -> dict[str, int]:
    """Name and bytes of each segment; none where there is no ledger."""
    with told(folder, "read"):
        try:
            with os.scandir(folder) as entries:
                return {e.name: e.stat().st_size for e in entries if e.name.endswith(SUFFIX)}
        except FileNotFoundError:
            return {}


def read_new(path: Path, position: Position, add: Callable[[Entry], None]) -> Position:
    """Hands each whole record after `position` to `add`; returns where it stopped.

    A last line without its newline, or with a wrong checksum, is left for the next time: it is still
    being written, or its writer died.

    Raises:
        StoreError: a damaged line with others after it.
    """
    with told(path, "read"), open(path, "rb") as file:
        file.seek(position.offset)
        data = file.read()
        whole = data.rfind(b"\n") + 1
        offset = 0
        while offset < whole:
            end = data.index(b"\n", offset) + 1
            try:
                entry = decode(data[offset:end])
            except Damaged as error:
                if end == len(data):
                    break
                file.seek(0)
                line = file.read(position.offset + offset).count(b"\n") + 1
                raise StoreError(_damage(path, line, str(error))) from None
            add(entry)
            offset = end
        return Position(position.offset + offset, len(data) - offset)


def tail(path: Path, offset: int) -> int | None:
    """CRC-32 of the last bytes before the offset; None where the segment is gone or shorter."""
    start = max(0, offset - _TAIL)
    with told(path, "read"):
        try:
            with open(path, "rb") as file:
                data = os.pread(file.fileno(), offset - start, start)
        except FileNotFoundError:
            return None
    return zlib.crc32(data) if len(data) == offset - start else None


def _damage(path: Path, line: int, reason: str) -> str:
    return (
        f"{path}, line {line}: {reason}; the file was changed or the disk is failing. Put a good copy of "
        f"the file in its place, or delete that line alone (sed -i {line}d '{path}'): a run whose ending it "
        "held is then trained again, and nothing else is lost"
    )
