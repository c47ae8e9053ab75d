"""Joining the Ray that runs, or starting one of our own, quietly and without leftovers.

Ray reads its switches when it is imported, so nothing here imports it before they are set.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sweeps.placement import Machine, free_memory, usable_cores

ROOT = Path(__file__).resolve().parent.parent
ANSWER_SECONDS = 2.0
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or a warning about the devices of zero-GPU workers
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer one greets and takes leave even when silent
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^A worker died or was killed",  # it is told as a run that was lost
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a late call after the end would start another Ray
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # with Tune's own, Ctrl-C looks like an end
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}


class SessionError(ValueError):
    """No Ray to be had: says which was asked for, and the way out."""


@dataclass(frozen=True)
class Session:
    """A Ray that this process is connected to.

    Attributes:
        own: whether it was started here, and ends here.
        folder: for Tune's few files; removed at the end.
        shared: within it, for what the workers on this machine share.
    """

    address: str
    own: bool
    folder: Path

    @property
    def shared(self) -> Path:
        return self.folder / "shared"

    def machines(self) -> list[Machine]:
        """What the living nodes offer; of a Ray of our own, what is free on this machine."""
        import ray

        alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray
        machines = [_machine(node["Resources"], node["NodeID"]) for node in alive]
        if self.own:
            return [Machine(float(usable_cores()), sum(each.gpus for each in machines), free_memory())]
        return [each for each in machines if each.cores >= 1]


def _machine(resources: Mapping[str, float], node: str) -> Machine:
    cores, gpus, memory = (float(resources.get(name, 0)) for name in ("CPU", "GPU", "memory"))
    return Machine(cores, gpus, memory, node)


def running_ray(asked: str | None, environment: Mapping[str, str]) -> str | None:
    """The address of the Ray to join, or None where one is to be started.

    What was asked for comes first, then RAY_ADDRESS, then the address that `ray start` leaves on this
    machine, if it answers: a stale file is common.

    Raises:
        SessionError: the address that was asked for does not answer.
    """
    for address, source in ((asked, "--address"), (environment.get("RAY_ADDRESS"), "RAY_ADDRESS")):
        if not address:
            continue
        if address == "local":
            return None
        if address != "auto":
            if not answers(address):
                raise SessionError(
                    f"{source}: no Ray answers at {address!r} within {ANSWER_SECONDS:g} s; expected the "
                    "host:port that `ray start` printed, or local to start one here"
                )
            return address
    temporary = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    left = Path(temporary) / "ray" / "ray_current_cluster"
    written = left.read_text(encoding="utf-8").strip() if left.is_file() else ""
    return written if written and answers(written) else None


def answers(address: str) -> bool:
    """Whether something listens at a `host:port`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return False
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False


@cache
def _token() -> str:
    """The same in all sessions of this process: Ray reads it once."""
    return secrets.token_hex(32)


@contextmanager
def session(address: str | None) -> Iterator[Session]:
    """A connection to the Ray at `address`, or to one that lives as long as the block.

    To be used in the main thread. The environment is put back at the end.

    Raises:
        SessionError: there is no place for its files, or Ray would not start, or not let us in.
    """
    folder = _folder(os.environ.get("RAY_TMPDIR", "/tmp"))
    before = dict(os.environ)
    own = address is None
    os.environ.update(QUIET)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    if own:  # Ray asks for a token by default: one of our own, instead of one in the user's home
        os.environ["RAY_AUTH_TOKEN"] = _token()
        os.environ.pop("RAY_ADDRESS", None)
        os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's 15 they get no turn on a busy machine
    try:
        (folder / "shared").mkdir()
        with _interrupts_wait():
            _connect(address, folder)
        yield Session(address or "local", own, folder)
    finally:
        with _interrupts_wait():
            _disconnect(folder)
        os.environ.clear()
        os.environ.update(before)


def _folder(parent: str) -> Path:
    """A new folder for this session; what is missing above it is made, as Ray does it."""
    try:
        os.makedirs(parent, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="mtbert-", dir=parent))
    except OSError as error:
        raise SessionError(
            f"RAY_TMPDIR: no folder can be made in {parent!r} ({error.strerror}); expected one to write to"
        ) from error


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Lets a Ctrl-C take effect when the block is done: Ray, interrupted as it starts, ends in a crash."""
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if seen:
        raise KeyboardInterrupt


def _connect(address: str | None, folder: Path) -> None:
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\.")
    for name in ("ray", "ray.tune"):  # what matters comes back as an exception, and is told in a line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        if address is None:
            ray.init(
                "local",
                num_cpus=usable_cores(),
                include_dashboard=False,
                _temp_dir=str(folder),
                **quiet,
            )
        else:
            path = {"PYTHONPATH": os.environ["PYTHONPATH"]}
            ray.init(address, runtime_env={"env_vars": path}, **quiet)
    except (Exception, SystemExit) as error:
        where = f"at {address}" if address else "on this machine"
        raise SessionError(f"Ray {where} would not have us: {type(error).__name__}: {error}") from error


def _disconnect(folder: Path) -> None:
    """Ends the connection, and a Ray of our own; its last processes may still write for a moment."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
