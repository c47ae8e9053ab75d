"""Who is alive, and whose turn it is: locks that the kernel takes back when a process dies.

`flock` belongs to an open file: two openings conflict, in one process as in two, and a killed process
holds nothing. Reading the results never locks; asking whether a driver lives borrows its lock shared for
an instant, which works on a read-only folder too.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from analysis.store.errors import Fenced, StoreError, told
from analysis.store.files import Layout, checked_name

_LONGEST_WAIT = 60.0  # seconds for a turn: claims take milliseconds, so whoever holds it longer is stuck
_START_WAIT = (
    5.0  # seconds for a driver's own lock: its dead predecessor's, or one who looks, lets go at once
)


class DriverLock:
    """The lock that a driver holds while it lives.

    Args:
        driver: its name; a process that goes on for a dead one of the same driver gives the same name.
        sweep: what it works on, where that is a sweep.

    Raises:
        StoreError: a living process holds this name.
    """

    def __init__(self, layout: Layout, driver: str | None = None, sweep: str | None = None) -> None:
        self.driver = checked_name(driver or new_driver_name(), "driver")
        self.path = layout.drivers / f"{self.driver}.lock"
        self._descriptor = self._take()
        process = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
        who = {"driver": self.driver, "sweep": sweep, **process}
        self._open = True
        self._identity = _identity(os.fstat(self._descriptor))
        try:
            with told(self.path, "write"):
                os.ftruncate(self._descriptor, 0)
                os.write(self._descriptor, json.dumps(who).encode())
        except BaseException:
            self.close()
            raise

    def _take(self) -> int:
        deadline = time.monotonic() + _START_WAIT
        while True:
            with told(self.path, "take the lock"):
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if _try_lock(descriptor, fcntl.LOCK_EX) and _is_at(descriptor, self.path):
                return descriptor
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.path}: a living process already writes as driver {self.driver!r}; "
                    "end it, or give this one another name"
                )
            time.sleep(0.01)

    def check(self) -> None:
        """Raises Fenced unless this driver still holds its lock, at its path."""
        if not self._open:
            raise Fenced(f"driver {self.driver!r} has closed its ledger: it writes nothing any more")
        try:
            there = _identity(os.stat(self.path))
        except OSError:
            there = None
        if there != self._identity:
            raise Fenced(
                f"{self.path}: the lock of driver {self.driver!r} was removed while it was held, so another "
                "driver may have taken its runs; run the same command again, it goes on from the ledger"
            )

    def close(self) -> None:
        """Gives the lock back and removes its file, unless another's stands there by now."""
        if not self._open:
            return
        self._open = False
        if _is_at(self._descriptor, self.path):
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def driver_alive(results: str | Path, driver: str) -> bool:
    """Whether that driver holds its lock at this moment."""
    path = Layout.of(results).drivers / f"{driver}.lock"
    with told(path, "read"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def living_drivers(results: str | Path) -> dict[str, str | None]:
    """The drivers that live at this moment, each with its sweep, or null where it trains a run by itself."""
    folder = Layout.of(results).drivers
    with told(folder, "read"):
        paths = sorted(folder.glob("*.lock"))
    found: dict[str, str | None] = {}
    for path in paths:
        if driver_alive(results, path.stem):
            with told(path, "read"):
                found[path.stem] = _sweep_of(path)
    return found


@dataclass(frozen=True)
class Sighting:
    """A driver that lives here, or one of another machine whose lock file lies here: nobody can ask that."""

    sweep: str | None
    here: bool
    since: float  # seconds since 1970, by its own clock


def sighted_drivers(results: str | Path) -> dict[str, Sighting]:
    """The drivers that live on this machine, and those of others whose lock files lie here.

    For whoever only looks on: not every file system passes locks between machines, and a driver that ends
    removes its file.
    """
    living, found = living_drivers(results), {}
    for path in sorted(Layout.of(results).drivers.glob("*.lock")):
        with told(path, "read"):
            try:
                who = json.loads(path.read_text(encoding="utf-8"))
            except (FileNotFoundError, json.JSONDecodeError):  # it has just ended, or just begun
                continue
        if path.stem in living or who["host"] != socket.gethostname():
            found[path.stem] = Sighting(who["sweep"], path.stem in living, who["time"])
    return found


def _sweep_of(path: Path) -> str | None:
    """What the driver works on whose lock this is: it says so right after it has taken the lock."""
    deadline = time.monotonic() + _START_WAIT
    while time.monotonic() < deadline:
        try:
            sweep: str | None = json.loads(path.read_text(encoding="utf-8"))["sweep"]
        except FileNotFoundError:  # it has just ended
            return None
        except json.JSONDecodeError:
            time.sleep(0.01)
        else:
            return sweep
    raise StoreError(f"{path}: does not say who holds it; is it a driver's lock?")


@contextmanager
def locked(path: Path, wait: float = _LONGEST_WAIT) -> Iterator[None]:
    """Holds the lock on a file while the block runs.

    Raises:
        StoreError: no turn came in `wait` seconds.
    """
    with told(path, "take the lock"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline, pause = time.monotonic() + wait, 0.0005
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{path}: another process has held this lock for {wait:.0f} s; "
                    f"`fuser -v {path}` names it: let it go on or end it, and run the same command again"
                )
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def new_driver_name() -> str:
    """A name that no other driver has: host, process, and six digits by chance."""
    host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname()).strip("-")
    return f"{host or 'host'}-{os.getpid()}-{secrets.token_hex(3)}"


def _try_lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at this path: a removed or replaced one locks nobody out."""
    try:
        there = os.stat(path)
    except OSError:
        return False
    return _identity(there) == _identity(os.fstat(descriptor))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
