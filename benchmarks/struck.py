"""The command of a search, running: how it is started, watched, and struck."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
PATIENCE = 400.0
"""Seconds after which something that must happen has not happened."""
POLL_SECONDS = 0.1
GIB = 2**30


class Command:
    """`python -m benchmarks.faulty …` in a process of its own, with a folder of its own for Ray.

    Args:
        place: to be made; a short path: the names of Ray's sockets may only be 107 characters long.
    """

    def __init__(
        self, place: Path, results: Path, witness: Path, name: str, memory: Memory | None = None
    ) -> None:
        self._place, self.log = place, place / "log"
        place.mkdir()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment |= {"HOME": str(place), "RAY_TMPDIR": str(place), "PYTHONPATH": str(ROOT)}
        arguments = [str(results), str(witness), name]
        with open(self.log, "w", encoding="utf-8") as file:
            self.process = psutil.Popen(
                [*(memory.wrapper if memory else ()), sys.executable, "-m", "benchmarks.faulty", *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=place,
                env=environment,
            )
        self._known: set[psutil.Process] = set()

    @property
    def code(self) -> int | None:
        """The exit code; null while it runs."""
        code: int | None = self.process.poll()
        return code

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def processes(self, prefix: str = "") -> list[psutil.Process]:
        """Ray's processes that this command has started and that live, those of such names."""
        with suppress(psutil.NoSuchProcess):  # it may end in this moment
            if self.code is None:
                self._known.update(self.process.children(recursive=True))
        return [each for each in self._known if lives(each, prefix)]

    def wait(self) -> int | None:
        """The exit code, or null where it hangs; it is killed then."""
        try:
            code: int = self.process.wait(PATIENCE)
        except psutil.TimeoutExpired:
            self.kill_all()
            return None
        return code

    def kill_all(self) -> None:
        """The driver and all that it has started, at once."""
        everybody = [*self.processes(), self.process]
        for each in everybody:
            kill(each)
        psutil.wait_procs(everybody, timeout=PATIENCE)

    def clear(self) -> bool:
        """Removes what Ray has left, once its last processes are gone; whether it has."""
        if self.code is None or self.processes():
            return False
        shutil.rmtree(self._place, ignore_errors=True)
        return True


def lives(process: psutil.Process, prefix: str = "") -> bool:
    """Whether a process of such a name runs."""
    try:
        living = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return living and process.name().startswith(prefix)
    except psutil.NoSuchProcess:
        return False


def kill(process: psutil.Process, number: int = signal.SIGKILL) -> None:
    """Sends the signal, unless the process is dead already."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def until(condition: Callable[[], bool]) -> bool:
    """Waits for the condition; whether it came true."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(POLL_SECONDS)
    return False


def kill_one(command: Command, prefix: str, chance: random.Random) -> bool:
    """Kills one of the command's processes of such a name; whether there was any."""
    found = sorted(command.processes(prefix), key=lambda each: each.pid)
    if found:
        kill(chance.choice(found))
    return bool(found)


def kill_keeper(results: Path, command: Command) -> bool:
    """Kills whoever writes the ledger for this command: its lock says who that is."""
    holders = set()
    for lock in (results / "ledger" / "drivers").glob("*.lock"):
        with suppress(FileNotFoundError, json.JSONDecodeError):  # given back, or taken, in this moment
            holders.add(json.loads(lock.read_text(encoding="utf-8"))["pid"])
    keepers = [process for process in command.processes() if process.pid in holders]
    for process in keepers:
        kill(process)
    return bool(keepers)


class Memory:
    """What Ray takes for the memory of this machine, told to those who are started by way of `wrapper`.

    They see a control group's files that are these in a mount namespace of their own, which takes root.
    """

    def __init__(self, folder: Path) -> None:
        self._used = folder / "memory.current"
        folder.mkdir()
        (folder / "memory.max").write_text(f"{10 * GIB}\n")
        (folder / "memory.stat").write_text("inactive_file 0\nactive_file 0\n")
        self._say(2 * GIB)
        enter = 'mount --bind "$0" /sys/fs/cgroup && exec "$@"'
        self.wrapper = ("unshare", "-m", "--propagation", "slave", "sh", "-c", enter, str(folder))

    @contextmanager
    def scarce(self) -> Iterator[None]:
        """Little is left: Ray's memory monitor kills what runs."""
        self._say(int(9.9 * GIB))
        try:
            yield
        finally:
            self._say(2 * GIB)

    def _say(self, used: int) -> None:
        new = self._used.with_name("new")
        new.write_text(f"{used}\n")
        new.replace(self._used)  # Ray may read at any moment


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """A disk without a byte left."""
    filler = disk / "filler"
    with open(filler, "wb") as file:
        size = shutil.disk_usage(disk).free
        while size:  # others take and give meanwhile
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
                size = shutil.disk_usage(disk).free
            except OSError:
                size //= 2
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder in which nothing can be made, renamed or deleted; what is open stays open.

    It is made read-only under another name and laid over the folder as it is then: a mount over the folder
    that became read-only afterwards would be busy whenever something was opened for writing in between.
    """
    with tempfile.TemporaryDirectory() as aside, mounted(folder, aside):
        mount("-o", "remount,ro,bind", aside)
        with mounted(aside, folder):
            yield


@contextmanager
def mounted(source: str | Path, target: str | Path) -> Iterator[None]:
    mount("--bind", str(source), str(target))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
