"""A search to be struck: its trainer only counts steps, and some configurations have faults of their own.

    python -m benchmarks.faulty RESULTS WITNESS NAME

Workers write what they do to the witness, a file outside the results: a line `admit` or `step`, run, step,
process and seconds since 1970. Workers import this module, so that it imports no more than they have at hand.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))


from benchmarks.fake import IdleMaterial
from mtbert.records import Ended, Evaluated, Returned
from mtbert.run import Run, digest

if TYPE_CHECKING:
    from sweeps.declare import Search
    from sweeps.trainable import Trainer

Event = Evaluated | Ended | Returned
STEPS, EVERY, STEP_SECONDS = 18, 2, 0.1
POINTS, TOP_K, SEEDS_AT_END = 24, 2, 2
FATES = ("diverge", "raise", "memory", "memory once", "die once")
FATAL_STEP = 3
"""After the first rung, so that some of what is struck has a checkpoint to go on from."""
ONE_IN = 25
"""So many configurations have each of the fates."""
NO_COSTS: Mapping[str, Any] = {"seconds_training": 0.0, "seconds_evaluation": 0.0, "tokens": 0}


def fate_of(run: Run) -> str:
    """What befalls a run at its fatal step, by its configuration; mostly nothing."""
    number = int(digest([run.config_id, "fate"])[:6], 16) % ONE_IN
    return FATES[number] if number < len(FATES) else ""


def score_of(run: Run, step: int) -> float:
    """A score that any process computes alike; it grows with the step."""
    return 0.5 + int(digest([run.run_id])[:4], 16) / 2**18 + step / 10_000


@dataclass
class Member:
    """A run in training, and where it stands."""

    run: Run
    step: int


class CountingTrainer:
    """Counts steps, one for each member in turn, and says so to the witness."""

    def __init__(self, witness: str) -> None:
        self._witness = witness
        self._runs: dict[str, Member] = {}

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(self._runs)

    def admit(self, run: Run, checkpoint: bytes | None) -> None:
        step = 0
        if checkpoint is not None:
            stored = json.loads(checkpoint)
            assert stored["run_id"] == run.run_id, f"the checkpoint of {stored['run_id']}"
            step = stored["step"]
        self._runs[run.run_id] = Member(run, step)
        self._say("admit", run.run_id, step)

    def remove(self, run_id: str) -> None:
        del self._runs[run_id]

    def step_of(self, run_id: str) -> int:
        return self._runs[run_id].step

    def checkpoint(self, run_id: str) -> bytes:
        return json.dumps({"run_id": run_id, "step": self._runs[run_id].step}).encode()

    def memory(self) -> None:
        """There is no GPU that it could take memory of."""

    def advance(self, seconds: float) -> Sequence[Event]:
        """Steps until a member has something to say."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(STEP_SECONDS)
            events = [event for member in list(self._runs.values()) for event in self._step(member)]
            if events:
                return events
        return []

    def _step(self, member: Member) -> list[Event]:
        member.step += 1
        run_id = member.run.run_id
        self._say("step", run_id, member.step)
        if member.step == FATAL_STEP and self._strikes(member):
            return [self._ended(member, "diverged")]
        events: list[Event] = []
        if member.step % EVERY == 0:
            score = score_of(member.run, member.step)
            rows = [["dev", "", "score", score]]
            record = {"step": member.step, "epoch": 0.0, "rows": rows, "score": score, **NO_COSTS}
            events.append(Evaluated(run_id, record))
        if member.step == STEPS:
            events.append(self._ended(member, "completed"))
        return events

    def _strikes(self, member: Member) -> bool:
        """Carries out the run's fate; returns whether it is to end as diverged."""
        fate = fate_of(member.run)
        if fate.endswith("once") and self._was_here(member):
            return False
        if fate == "raise":
            raise RuntimeError("a bug in one configuration")
        if fate == "die once":
            os._exit(1)
        if fate.startswith("memory"):
            raise MemoryError("no room for this run")
        return fate == "diverge"

    def _was_here(self, member: Member) -> bool:
        said = f"step {member.run.run_id} {member.step} "
        with open(self._witness, encoding="utf-8") as file:
            return sum(line.startswith(said) for line in file) > 1

    def _ended(self, member: Member, status: str) -> Ended:
        run_id, step = member.run.run_id, member.step
        del self._runs[run_id]
        score = score_of(member.run, step) if status == "completed" else None
        record: dict[str, Any] = {"status": status, "error": None, "step": step, "kept_step": step}
        record |= {"score": score, "metrics": {}, "trainable": 0, "total": 0, **NO_COSTS}
        record |= {"seconds_startup": 0.0, "peak_memory": 0, "device": "cpu", "host": "", "versions": {}}
        told: dict[str, list[Any]] = {
            "task": ["none"],
            "example_id": ["a"],
            "prediction": [0.0],
            "label": [1.0],
        }
        return Ended(run_id, record, told, b"weights of " + run_id.encode())

    def _say(self, kind: str, run_id: str, step: int) -> None:
        """A line in one write, which no other process's can tear."""
        line = f"{kind} {run_id} {step} {os.getpid()} {time.time()}\n"
        descriptor = os.open(self._witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, line.encode())
        os.close(descriptor)


def make_counting_trainer(parcel: dict[str, Any]) -> Trainer:
    """What a worker calls."""
    return CountingTrainer(parcel["witness"])


class CountingMaterial(IdleMaterial):
    """What a sweep is given that trains nothing, and whose workers tell a witness."""

    model, data = "counting", "counting"
    sizes: Mapping[str, int] = MappingProxyType({"none": 1})

    def __init__(self, witness: str) -> None:
        super().__init__()
        self._witness = witness

    @property
    def trainer(self) -> Callable[[Any], Trainer]:
        return make_counting_trainer

    def parcel(self, device: str) -> dict[str, Any]:
        return {**super().parcel(device), "witness": self._witness}

    def examples(self) -> dict[str, list[Any]]:
        example = {"id": "a", "task": "none", "split": "dev", "first": "good", "second": None, "label": 1.0}
        return {name: [value] for name, value in example.items()}


def search_of(name: str) -> Search:
    """The search of that name: the same space each time, so that one learns from those before it."""
    from sweeps.declare import Search
    from sweeps.search.budget import Budget
    from sweeps.search.rungs import Rungs
    from sweeps.search.space import parse_space

    base = {"low_rank": {"kind": "lora"}, "training": {"steps": STEPS}, "evaluation": {"every": EVERY}}
    space = {
        "low_rank.rank": {"low": 1, "high": 64},
        "low_rank.alpha": {"low": 0.25, "high": 8, "log": True},
        "training.warmup": {"choices": [0.1, 0.2]},
    }
    return Search(
        name=name,
        base=base,
        space=parse_space(space),
        budget=Budget(points=POINTS),
        rungs=Rungs(grace=EVERY, reduction=3),
        top_k=TOP_K,
        seeds_at_end=SEEDS_AT_END,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The search's command, as `sweeps/auto_search.py` is one."""
    from rich.console import Console

    from sweeps.exits import reported
    from sweeps.search.launch import SearchLaunch
    from sweeps.settings import Settings

    results, witness, name = sys.argv[1:] if argv is None else argv
    console = Console(highlight=False, width=120)
    settings = Settings(results, command="the same command", address="local")
    material = CountingMaterial(witness)
    launch = lambda: SearchLaunch(search_of(name), material, settings, console).run()  # noqa: E731 - passed on
    return reported(launch, settings.command, console)


if __name__ == "__main__":
    sys.exit(main())
