"""A trainer and material that train nothing, to test the sweep's machinery by itself, fast and exactly."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from mtbert.configuration import Configuration
from mtbert.memory import GpuMemory
from mtbert.records import Ended, Evaluated, Returned
from mtbert.run import Run, digest
from sweeps.publish import Workload

SIZES = {"sst": 64, "para": 64, "sts": 64}


@dataclass
class Member:
    run: Run
    step: int
    total: int


@dataclass
class FakeTrainer:
    """Counts steps. What befalls a run is chosen by its LoRA rank, in `parcel["fate"]`.

    Fates: `raise` in the trainer, `die` with the process, `memory`, `diverge`, `write` into the shared
    weights. Each strikes at half of the run's steps; `die once` and `memory once` spare a second attempt.
    While the file `parcel["hold"]` is there, nobody makes a step. What each sees of its GPU's memory, if it
    has one, is `parcel["gpu"]`.
    """

    parcel: Mapping[str, Any]
    runs: dict[str, Member] = field(default_factory=dict)

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(self.runs)

    def admit(self, run: Run, checkpoint: bytes | None) -> None:
        step = 0 if checkpoint is None else json.loads(checkpoint)["step"]
        self.runs[run.run_id] = Member(run, step, run.configuration.training.steps or 1)
        self._witness("admit", run.run_id, step)

    def remove(self, run_id: str) -> None:
        del self.runs[run_id]

    def step_of(self, run_id: str) -> int:
        return self.runs[run_id].step

    def memory(self) -> GpuMemory | None:
        return GpuMemory(*self.parcel["gpu"]) if self.parcel["gpu"] else None

    def checkpoint(self, run_id: str) -> bytes:
        return json.dumps({"step": self.runs[run_id].step}).encode()

    def advance(self, seconds: float) -> Sequence[Evaluated | Ended | Returned]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(self.parcel["seconds_per_step"])
            if self.parcel["hold"] and os.path.exists(self.parcel["hold"]):
                continue
            events = [event for member in list(self.runs.values()) for event in self._step(member)]
            if events:
                return events
        return []

    def _step(self, member: Member) -> list[Evaluated | Ended | Returned]:
        member.step += 1
        run_id = member.run.run_id
        self._witness("step", run_id, member.step)
        if member.step == max(1, member.total // 2) and self._strikes(member):
            return [self._ended(member, "diverged")]
        every = member.run.configuration.evaluation.every or member.total
        events: list[Evaluated | Ended | Returned] = []
        if member.step % every == 0 or member.step == member.total:
            events.append(Evaluated(run_id, self._evaluation(member)))
        if member.step == member.total:
            events.append(self._ended(member, "completed"))
        return events

    def _strikes(self, member: Member) -> bool:
        """Carries out the run's fate; returns whether it is to end as diverged."""
        low_rank = member.run.configuration.low_rank
        fate = self.parcel["fate"].get(str(low_rank.rank if low_rank else 0), "")
        spared = fate.endswith("once") and self._seen(member)
        if fate == "raise":
            raise RuntimeError("a bug in one configuration")
        if fate.startswith("die") and not spared:
            os._exit(1)
        if fate.startswith("memory") and not spared:
            raise MemoryError("no room for this run")
        if fate == "write":
            import torch  # numpy knows that the map is not to be written to, torch does not

            torch.from_numpy(self.parcel["weights"]["layer"]).add_(1)
        return fate == "diverge"

    def _seen(self, member: Member) -> bool:
        with open(self.parcel["witness"], encoding="utf-8") as file:
            return sum(line.startswith(f"step {member.run.run_id} {member.step} ") for line in file) > 1

    def _evaluation(self, member: Member) -> dict[str, Any]:
        score = fake_score(member.run, member.step)
        return {
            "step": member.step,
            "epoch": 0,
            "rows": [["dev", "", "score", score], ["train", "sst", "loss", 1.0 / member.step]],
            "score": score,
            "seconds_training": member.step * 0.01,
            "seconds_evaluation": 0.0,
            "tokens": member.step * 100,
        }

    def _ended(self, member: Member, status: str) -> Ended:
        run_id = member.run.run_id
        del self.runs[run_id]
        score = fake_score(member.run, member.step) if status == "completed" else None
        record = {
            "status": status,
            "error": None,
            "step": member.step,
            "kept_step": member.step,
            "score": score,
            "metrics": {} if score is None else {"sst.accuracy": score},
            "trainable": 10,
            "total": 100,
            "tokens": member.step * 100,
            "seconds_training": member.step * 0.01,
            "seconds_evaluation": 0.0,
            "seconds_startup": 0.0,
            "peak_memory": 1,
            "device": "cpu",
            "host": "here",
            "versions": {},
        }
        predictions = {
            "task": ["sst", "sst"],
            "example_id": ["a", "b"],
            "prediction": [float(member.run.seed), float(self.parcel["weights"]["layer"].sum())],
            "label": [0.0, 1.0],
        }
        return Ended(run_id, record, predictions, b"weights")

    def _witness(self, kind: str, run_id: str, step: int) -> None:
        line = f"{kind} {run_id} {step} {os.getpid()} {time.time()}\n"
        descriptor = os.open(self.parcel["witness"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)


def fake_score(run: Run, step: int) -> float:
    """A score that any process computes alike; it grows with the step."""
    return 0.5 + int(digest([run.run_id])[:4], 16) / 2**18 + step / 10_000


def make_trainer(parcel: dict[str, Any]) -> FakeTrainer:
    """What a worker calls; checks on the way that the weights are mapped and not its own."""
    weights = parcel["weights"]["layer"]
    assert not weights.flags.owndata, "copied instead of mapped"
    assert not weights.flags.writeable, "open to writing"
    if parcel["fate"].get("trainer"):
        raise OSError("no such device")
    return FakeTrainer(parcel)


class FakeMaterial:
    """Neither model nor data."""

    model, data, sizes = "model0", "data0", SIZES
    notices = ("1 row without a label was skipped",)
    trainer = staticmethod(make_trainer)
    inputs: Mapping[str, Any] = {"model": "fake"}

    def __init__(
        self,
        witness: str,
        seconds_per_step: float,
        fate: Mapping[str, str],
        hold: str = "",
        gpu: Sequence[int] | None = None,
    ) -> None:
        self.witness, self.seconds_per_step = witness, seconds_per_step
        self.fate, self.hold, self.gpu = dict(fate), hold, gpu

    def count(self, configuration: Configuration) -> Any:
        rank = configuration.low_rank.rank if configuration.low_rank else 0
        return SimpleNamespace(trainable=10 * rank, total=1000 + 10 * rank)

    def metrics(self, _: Configuration) -> tuple[str, ...]:
        return ("sst.accuracy",)

    def workload(self, _: Configuration) -> Workload:
        return Workload(linear=1000, tokens_per_step=100, tokens_per_evaluation=100, width=64, layers=2)

    def truncation(self, _: Configuration) -> str | None:
        return None

    def parcel(self, device: str) -> dict[str, Any]:
        return {
            "weights": {"layer": np.ones(300_000, dtype=np.float32)},
            "device": device,
            "witness": self.witness,
            "seconds_per_step": self.seconds_per_step,
            "fate": self.fate,
            "hold": self.hold,
            "gpu": self.gpu,
        }

    def examples(self) -> dict[str, list[Any]]:
        return {
            "id": ["a", "b"],
            "task": ["sst", "sst"],
            "split": ["dev", "dev"],
            "first": ["good", "bad"],
            "second": [None, None],
            "label": [0.0, 1.0],
        }


def main(argv: Sequence[str]) -> int:
    """A sweep's command over fake material: RESULTS and a JSON of what differs from the defaults."""
    from rich.console import Console

    from mtbert.schema import build
    from sweeps.declare import Grid, Search
    from sweeps.exits import reported
    from sweeps.launch import Launch
    from sweeps.search.budget import Budget
    from sweeps.search.launch import SearchLaunch
    from sweeps.search.rungs import Rungs
    from sweeps.search.space import parse_space
    from sweeps.settings import Settings

    results, given = argv[0], json.loads(argv[1]) if len(argv) > 1 else {}
    console = Console(highlight=False, width=120)
    steps = given.pop("steps", 4)
    base = {
        "low_rank": {"kind": "lora"},
        "training": {"steps": steps},
        "evaluation": {"every": given.pop("every", 2)},
    }
    axes = {"low_rank.rank": given.pop("ranks", [1, 2])}
    name, seeds, search = given.pop("name", "fake"), given.pop("seeds", 2), given.pop("search", None)
    sweep = Grid(name, base, axes, seeds)
    material = FakeMaterial(
        given.pop("witness", os.path.join(results, "witness")),
        given.pop("seconds_per_step", 0.001),
        given.pop("fate", {}),
        given.pop("hold", ""),
        given.pop("gpu", None),
    )
    command = "the same command"
    settings = Settings(results, command, **given)
    if search is not None:
        search["space"] = parse_space(search["space"])
        search["budget"] = build(Budget, search["budget"], "budget")
        search["rungs"] = Rungs(**search["rungs"]) if "rungs" in search else None
        sought = Search(name, base, seeds_at_end=seeds, **search)
        return reported(lambda: SearchLaunch(sought, material, settings, console).run(), command, console)
    return reported(lambda: Launch(sweep, material, settings, console).run(), command, console)


if __name__ == "__main__":
    from tests.sweeps import fake  # so that workers find the functions by this module's name

    sys.exit(fake.main(sys.argv[1:]))
