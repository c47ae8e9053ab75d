"""Learning curves of a grid of linear probes on the embedded demo, for replays of searches.

    python benchmarks/learning_curves.py

Trains every configuration of `AXES` over `BASE` once, with the trainer of every sweep and without Ray, and
writes a line for each as it ends to `curves/probes_demo.jsonl`: its point, its score at every evaluation (on
a few dev examples, a fixed choice; at the end on all of dev), and how it ended. What the file has already is
not trained again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from mtbert.configuration import parse, with_values
from mtbert.records import Ended, Evaluated
from mtbert.run import METHOD_VERSION, Run

FILE = Path(__file__).resolve().parent / "curves" / "probes_demo.jsonl"
STEPS, EVERY, PACK = 243, 9, 36
BASE: Mapping[str, Any] = {
    "low_rank": "none",
    "training": {"steps": STEPS, "dropout": {"backbone": 0.0}},
    "evaluation": {"every": EVERY, "dev_limit": 100, "train_limit": 0, "keep": "last"},
}
AXES: Mapping[str, Sequence[Any]] = {
    "features": ("pooler", "cls", "mean"),
    "training.learning_rate.heads": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    "training.batch_size": (4, 16),
    "training.warmup": (0.0, 0.4),
    "training.decay": ("linear", "constant"),
    "training.schedule.kind": ("proportional", "round_robin"),
}


class Curve(NamedTuple):
    """A recorded run: where it stands on the axes, its scores by step, and how it ended."""

    point: dict[str, Any]
    scores: dict[int, float | None]
    status: str


def points() -> Iterator[dict[str, Any]]:
    """The grid, its last axis varying fastest."""
    return (dict(zip(AXES, values, strict=True)) for values in product(*AXES.values()))


def load() -> list[Curve]:
    """What is recorded, in the order of the grid."""
    lines = FILE.read_text(encoding="utf-8").splitlines()[1:] if FILE.exists() else []
    curves = []
    for each in map(json.loads, lines):
        scores = {(at + 1) * EVERY: score for at, score in enumerate(each["scores"])}
        curves.append(Curve(each["point"], scores, each["status"]))
    order = [json.dumps(point) for point in points()]
    return sorted(curves, key=lambda each: order.index(json.dumps(each.point)))


def record() -> None:
    """Trains what the file lacks."""
    import torch

    from benchmarks.common import describe_machine
    from mtbert.bert import Backbone
    from mtbert.data.tokenise import tokenise
    from mtbert.inputs import Inputs
    from mtbert.trainer import Trainer
    from mtbert.weights import load_base

    torch.set_num_threads(1)
    base, dataset = load_base("demo"), Inputs().dataset()
    data = tokenise(dataset, base.tokenizer(), splits=("train", "dev"))
    if not FILE.exists():
        FILE.parent.mkdir(exist_ok=True)
        made = {"method_version": METHOD_VERSION, "data": dataset.fingerprint, "model": base.fingerprint}
        _append({**made, "machine": describe_machine(["torch"]), "base": BASE, "every": EVERY})
    done = [curve.point for curve in load()]
    left = [point for point in points() if point not in done]
    trainer = Trainer(partial(Backbone.from_arrays, base.config, base.arrays, device="cpu"), data)
    for start in range(0, len(left), PACK):
        runs = {}
        for point in left[start : start + PACK]:
            run = Run(parse(with_values(BASE, point)), 0, dataset.fingerprint, base.fingerprint)
            runs[run.run_id] = Curve(point, {}, "")
            trainer.admit(run, None)
        while trainer.members:
            for event in trainer.advance():
                if isinstance(event, Evaluated):
                    runs[event.run_id].scores[event.record["step"]] = event.record["score"]
                elif isinstance(event, Ended):
                    _append(_line(runs[event.run_id], event.record["status"]))
        print(f"{len(load())} of {len(done) + len(left)}", flush=True)


def _line(curve: Curve, status: str) -> dict[str, Any]:
    scores = [None if score is None else round(score, 4) for score in curve.scores.values()]
    return {"point": curve.point, "scores": scores, "status": status}


def _append(line: Mapping[str, Any]) -> None:
    with open(FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    record()
