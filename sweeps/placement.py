"""How many runs train at once: what fits the cores, the memory and the GPUs of every machine."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB = 2**30
MEMORY_SHARE = 0.85
"""Of the memory that is free at the start; the rest is left to Ray, the driver and the machine's owner."""


@dataclass(frozen=True)
class Machine:
    """What a machine offers: cores, GPUs, and bytes of memory; `node` is Ray's name for it."""

    cores: float
    gpus: float
    memory: float
    node: str = ""


@dataclass(frozen=True)
class Needs:
    """What one trial takes. `memory` is an estimate in bytes, or 0 where nothing is known."""

    cores: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0

    @property
    def bundle(self) -> dict[str, float]:
        """What Ray is to set aside for it."""
        return {"CPU": self.cores} | ({"GPU": self.gpus} if self.gpus else {})


@dataclass(frozen=True)
class Placement:
    """How many trials at once, and why no more, in words."""

    slots: int
    needs: Needs
    reason: str


class PlacementError(ValueError):
    """No machine can hold even one run."""


def place(machines: Sequence[Machine], needs: Needs, at_most: int | None = None) -> Placement:
    """As many trials as fit the machines, or fewer if so asked.

    Raises:
        PlacementError: not even one fits; says what one needs and what there is.
    """
    machines = suited(machines, needs)
    slots = room(machines, needs)
    if slots < 1:
        raise PlacementError(
            f"no machine can hold a run: one takes {_spoken(needs.cores, needs.gpus, needs.memory)}, "
            f"and there is {_largest(machines)}. {_way_out(needs)}"
        )
    cores, gpus = sum(each.cores for each in machines), sum(each.gpus for each in machines)
    memory = sum(each.memory for each in machines)
    have = _spoken(cores, gpus, memory) + (f" on {len(machines)} machines" if len(machines) > 1 else "")
    each = _spoken(needs.cores, needs.gpus, needs.memory)
    asked = at_most is not None and at_most < slots
    slots = min(slots, at_most or slots)
    reason = f"{have}; a trial takes {each}" + (f"; at most {at_most} asked for" if asked else "")
    return Placement(slots, needs, reason)


def this_machine(gpus: float | None = None) -> Machine:
    """Cores and memory that this process may use, its container's limits included.

    Args:
        gpus: how many there are; counted from the driver's device files where null.
    """
    return Machine(float(usable_cores()), float(_gpu_count() if gpus is None else gpus), free_memory())


def usable_cores() -> int:
    """Cores of this process's affinity and its control group's quota; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _control_group("cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        cores = min(cores, max(1, math.floor(int(quota[0]) / int(quota[1]))))
    return max(1, cores)


def free_memory() -> float:
    """Bytes that are free on this machine, or below its control group's limit."""
    free = float(psutil.virtual_memory().available)
    limit, used = _control_group("memory.max"), _control_group("memory.current")
    if limit.isdigit() and used.isdigit():
        free = min(free, float(int(limit) - int(used)))
    return free


def _control_group(name: str) -> str:
    """A limit of the container, as text; empty where there is none (macOS, an older kernel)."""
    path = Path("/sys/fs/cgroup") / name
    return path.read_text(encoding="ascii").strip() if path.is_file() else ""


def _gpu_count() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def room(machines: Sequence[Machine], needs: Needs, promised: Sequence[Machine] = ()) -> int:
    """How many trials these machines hold, on those that are suited."""
    return sum(fits(machine, needs) for machine in suited(machines, needs, promised))


def suited(machines: Sequence[Machine], needs: Needs, promised: Sequence[Machine] = ()) -> list[Machine]:
    """The machines that trials are put on.

    Those on CPUs leave machines with GPUs alone where others hold them, of these or of the promised ones.
    """
    others = [machine for machine in machines if not machine.gpus]
    enough = any(fits(machine, needs) for machine in (*others, *promised) if not machine.gpus)
    return others if enough and not needs.gpus else list(machines)


def fits(machine: Machine, needs: Needs) -> int:
    """How many trials one machine holds."""
    found = [math.floor(machine.cores / needs.cores)]
    if needs.gpus:
        # Ray splits a GPU, but never spreads one trial's fraction over two
        share = 1 if needs.gpus >= 1 else math.floor(1 / needs.gpus + 1e-9)
        found.append(math.floor(machine.gpus / needs.gpus) if needs.gpus >= 1 else int(machine.gpus) * share)
    elif needs.memory and math.isfinite(
        machine.memory
    ):  # a run on a GPU keeps its weights and activations there
        found.append(math.floor(machine.memory * MEMORY_SHARE / needs.memory))
    return max(0, min(found))


def _spoken(cores: float, gpus: float, memory: float) -> str:
    parts = [f"{cores:g} core{'s' if cores != 1 else ''}"]
    if gpus:
        parts.append(f"{gpus:g} GPU{'s' if gpus > 1 else ''}")
    if 0 < memory < math.inf:
        parts.append(f"{memory / GIB:.1f} GiB")
    return ", ".join(parts)


def _largest(machines: Sequence[Machine]) -> str:
    if not machines:
        return "none"
    best = max(machines, key=lambda each: (each.gpus, each.memory, each.cores))
    return _spoken(best.cores, best.gpus, best.memory)


def _way_out(needs: Needs) -> str:
    if needs.gpus:
        return "Give --gpus-per-run a smaller fraction, or 0 to train on the CPU"
    return "Free some memory, or choose a smaller model, batch_size or max_length"
