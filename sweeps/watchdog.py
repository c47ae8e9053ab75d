"""Whether Ray still answers; where it does not, ends this process with a word on how to go on.

A call of Ray's may block for ever when the GCS or this node's raylet is gone, and Ray ends the process after
a minute without a word. Hence a thread of our own, and `os._exit`: nothing else gets past a blocked call.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps.exits import LOST_RAY

LOOK_SECONDS = 2.0
REFUSALS_ALLOWED = 2
"""A port where nobody listens refuses at once, on a busy machine too. After 13 s Ray may end the process."""
SILENCE_ALLOWED = 50.0
"""Seconds without an answer, as looks add up: none counts for more than it may take, however long this
process was stopped in the midst of it."""
CONNECT_SECONDS = 2.0
"""How long a look waits for a door that is mute; some networks say sooner that nobody is there."""

Door = tuple[str, int]
"""Host and port of something that must listen while Ray lives."""


@dataclass
class Vigil:
    """What was seen so far of the doors, by name, and of a question that only a living Ray answers.

    `answer` says whether this node lives, or null while there is no answer yet; it does not block.
    """

    doors: Mapping[str, Door]
    answer: Callable[[], bool | None]
    refusals: int = 0
    silence: float = 0.0

    def look(self) -> str | None:
        """One look; why Ray counts as gone, or null while it does not."""
        began = time.monotonic()
        knocked = {name: knock(door) for name, door in self.doors.items()}
        took = LOOK_SECONDS + min(time.monotonic() - began, CONNECT_SECONDS * len(self.doors))
        refused = [name for name, state in knocked.items() if state == "refused"]
        mute = [name for name, state in knocked.items() if state == "silent"]
        answer = self.answer()
        if answer is False:
            return "Ray has given this node up"
        self.refusals = self.refusals + 1 if refused else 0
        self.silence = 0.0 if answer and not mute else self.silence + took
        if self.refusals >= REFUSALS_ALLOWED:
            return f"Ray has died: nobody listens where its {self._spelt(refused)} was"
        if self.silence >= SILENCE_ALLOWED:
            return f"Ray has not answered for {self.silence:.0f} s: its {self._spelt(mute or self.doors)}"
        return None

    def _spelt(self, names: Iterable[str]) -> str:
        return " and ".join(f"{name} ({':'.join(map(str, self.doors[name]))})" for name in names)


def knock(door: Door) -> str:
    """What a connection to the door meets: open, refused, or silent."""
    try:
        with socket.create_connection(door, timeout=CONNECT_SECONDS):
            return "open"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "silent"


class Question:
    """Asks in a thread that may block for ever, one question at a time."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._answer: bool | None = True  # as the session has just begun
        self._thread: threading.Thread | None = None

    def __call__(self) -> bool | None:
        """The answer to what was asked last, once it has come; asks anew unless it is being awaited."""
        if self._thread is not None and self._thread.is_alive():
            return None
        answer, self._answer = self._answer, None
        self._thread = threading.Thread(target=self._wait, name="question to Ray", daemon=True)
        self._thread.start()
        return answer

    def close(self) -> None:
        """Waits a moment for the last answer, so that nobody asks a Ray that is being left."""
        if self._thread is not None:
            self._thread.join(LOOK_SECONDS)

    def _wait(self) -> None:
        with suppress(Exception):  # an error is no answer: enough of these are a silence
            self._answer = self._ask()


@contextmanager
def watched(command: str, folder: Path, console: Console) -> Iterator[None]:
    """Ends this process with LOST_RAY when the Ray that it is connected to goes away meanwhile.

    Args:
        command: what to type to go on.
        folder: the session's, removed at the end.
    """
    question = Question(_node_lives)
    vigil = Vigil(_doors(), question)
    over = threading.Event()

    def keep() -> None:
        while not over.wait(LOOK_SECONDS):
            gone = vigil.look()
            if gone is not None and not over.is_set():
                _leave(gone, command, folder, console)

    thread = threading.Thread(target=keep, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        question.close()


def _doors() -> dict[str, Door]:
    """Where the GCS and this node's raylet listen."""
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    here = _this_node()
    raylet = (here["NodeManagerAddress"], int(here["NodeManagerPort"]))
    return {"GCS": (host.strip("[]"), int(port)), "raylet": raylet}


def _node_lives() -> bool:
    return bool(_this_node()["Alive"])


def _this_node() -> dict[str, Any]:
    import ray

    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray
    return next(node for node in nodes if node["NodeID"] == here)


def _leave(gone: str, command: str, folder: Path, console: Console) -> None:
    console.show_cursor()
    sys.stderr.write(f"error: {gone}. What has ended is kept; to go on:\n  {command}\n")
    sys.stderr.flush()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(LOST_RAY)
