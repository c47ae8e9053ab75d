"""What processes and folders take: memory, seconds of processor, disk."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from threading import Event, Thread

import psutil

SAMPLE_SECONDS = 0.5


class Watched:
    """What one of Ray's actors below a process took while the block ran.

    Attributes:
        peak: the most bytes that it held.
        processor: seconds of processor, as last seen.

    Args:
        above: the process's id; null for this one.
    """

    def __init__(self, actor: str, above: int | None = None) -> None:
        self.peak, self.processor = 0, 0.0
        self._mark, self._above = f"ray::{actor}", above
        self._done = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        found: psutil.Process | None = None
        while not self._done.wait(SAMPLE_SECONDS):
            try:
                if found is None:
                    below = psutil.Process(self._above).children(recursive=True)
                    found = next((each for each in below if self._mark in "".join(each.cmdline())), None)
                if found is not None:
                    self.peak = max(self.peak, found.memory_info().rss)
                    self.processor = processor_seconds(found)
            except psutil.NoSuchProcess:
                found = None


def processor_seconds(process: psutil.Process) -> float:
    """Seconds of processor that it has taken, the kernel's for it too."""
    times = process.cpu_times()
    return float(times.user + times.system)


def peak_memory() -> int:
    """The most bytes that this process held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def left_in(folder: Path) -> tuple[int, int]:
    """Bytes and number of the files in a folder and below."""
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return sum(sizes), len(sizes)
