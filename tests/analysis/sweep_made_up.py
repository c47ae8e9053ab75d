"""A whole sweep, made up: curves, predictions and texts of any tasks, without training anything."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.store import Writer
from tests.analysis.ledgers import ending, run_json

USUAL: Mapping[str, int | None] = {"sst": 5, "para": 2, "sts": None}
"""Classes by task; none for a regression from 0 to 5."""
HOSTILE = (
    "<script>alert('first')</script>",
    '"><img src=http://example.com/x onerror=alert(1)>',
    "costs $5 or $6, {{ 7 * 7 }} & more",
    "left \u202eto right, nul \x00, bell \x07",
    "日本語 and 🎬 " + "a long review of a film " * 40,
)
STEPS = (30, 60, 90, 120)


class Sweep:
    """Runs of a sweep and how each goes; `write` puts them into a results folder.

    Attributes:
        declaration: what the ledger keeps of it, beside its name and kind.
        points: by configuration id, value by axis; the score grows with the first axis's place.
        statuses: by run id, where it is not `completed`: any status, `waiting` and `running` too.
        gain: from one configuration to the next, in the score.
        scatter: of seeds.
    """

    def __init__(
        self,
        points: Mapping[str, Mapping[str, Any]],
        kind: str = "grid",
        seeds: int = 3,
        tasks: Mapping[str, int | None] = USUAL,
        statuses: Mapping[str, str] | None = None,
        gain: float = 0.02,
        scatter: float = 0.0005,
        dev: int = 40,
        predictions: bool = True,
        declaration: Mapping[str, Any] | None = None,
    ) -> None:
        self.points, self.kind, self.seeds, self.tasks = points, kind, seeds, tasks
        self.statuses, self.gain, self.scatter = statuses or {}, gain, scatter
        self.dev, self.predictions = dev, predictions
        self.declaration = declaration or {}

    def write(self, results: Path, name: str = "made-up") -> Path:
        """Stores the sweep; returns the folder."""
        runs = [
            (run_of(config_id, seed, point), point)
            for seed in range(self.seeds)
            for config_id, point in self.points.items()
        ]
        axes = {axis: values(self.points, axis) for axis in next(iter(self.points.values()), {})}
        base = {"axes": axes, "objective": "score", "base": {}, "seeds": self.seeds}
        with Writer(results) as writer:
            record = {"sweep": name, "kind": self.kind, **base, **self.declaration}
            writer.declare(record, [{"run": run, "point": point} for run, point in runs])
            writer.examples("data1", self._examples())
            for run, _ in runs:
                status = self.statuses.get(run["run_id"], "completed")
                if status != "waiting":
                    self._train(writer, run, status)
        return results

    def _train(self, writer: Writer, run: Mapping[str, Any], status: str) -> None:
        attempt = writer.begin(run).attempt
        if attempt is None:  # another sweep has trained it
            return
        reached = STEPS if status == "completed" else STEPS[:2]
        score = 0.0
        for step in reached:
            record = self._evaluation(run, step)
            score = record["score"]
            writer.evaluation(run["run_id"], attempt, record)
        if status == "running":
            return
        ended = status == "completed"
        metrics = {
            f"{task}.{metric}": value
            for split, task, metric, value in self._evaluation(run, reached[-1])["rows"]
            if split == "dev" and task
        }
        record = ending(
            status,
            step=reached[-1],
            score=score if ended else None,
            metrics=metrics if ended else {},
            trainable=1000 * (1 + list(self.points).index(run["config_id"])),
            total=1_000_000,
        )
        told = self._predictions(run) if ended and self.predictions else {}
        weights = b"weights" if ended else b""
        writer.end(run["run_id"], attempt, record, told, weights)

    def _score(self, run: Mapping[str, Any], step: int) -> float:
        place = list(self.points).index(run["config_id"])
        chance = np.random.default_rng([place, run["seed"]]).normal(0, self.scatter)
        return float(0.3 + (0.3 + place * self.gain + chance) * (step / STEPS[-1]) ** 0.5)

    def _evaluation(self, run: Mapping[str, Any], step: int) -> dict[str, Any]:
        score = self._score(run, step)
        rows: list[list[Any]] = [["dev", "", "score", score]]
        for task, classes in self.tasks.items():
            metric = "pearson" if classes is None else "accuracy"
            rows += [["dev", task, metric, score], ["train", task, metric, score + 0.001 * step]]
            rows += [["dev", task, "loss", 1 - score], ["train", task, "training_loss", 0.9 - score]]
        times = {"seconds_training": step / 10, "seconds_evaluation": step / 50, "tokens": 100 * step}
        return {"step": step, "epoch": step / 100, "rows": rows, "score": score, **times}

    def _predictions(self, run: Mapping[str, Any]) -> dict[str, list[Any]]:
        chance = np.random.default_rng([7, list(self.points).index(run["config_id"]), run["seed"]])
        found: dict[str, list[Any]] = {"task": [], "example_id": [], "prediction": [], "label": []}
        for task, classes in self.tasks.items():
            labels = labels_of(task, classes, self.dev)
            if classes is None:
                predicted = labels + chance.normal(0, 0.6, self.dev)
            else:
                wrong = chance.random(self.dev) < 0.3
                predicted = np.where(wrong, chance.integers(0, classes, self.dev), labels)
            found["task"] += [task] * self.dev
            found["example_id"] += [f"{task}-{at}" for at in range(self.dev)]
            found["prediction"] += predicted.astype(float).tolist()
            found["label"] += labels.astype(float).tolist()
        return found

    def _examples(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {
            name: [] for name in ("id", "task", "split", "first", "second", "label")
        }
        for task, classes in self.tasks.items():
            labels = labels_of(task, classes, self.dev)
            for at, label in zip(range(self.dev), labels, strict=True):
                second = HOSTILE[(at + 1) % len(HOSTILE)] if classes in (2, None) else None
                row = (f"{task}-{at}", task, "dev", HOSTILE[at % len(HOSTILE)], second, float(label))
                for name, value in zip(found, row, strict=True):
                    found[name].append(value)
        return found


def grid(axes: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """The points of every combination, by an id of their own."""
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return {f"c{at}": point for at, point in enumerate(points)}


def run_of(config_id: str, seed: int, point: Mapping[str, Any]) -> dict[str, Any]:
    """The run at a point, whose axes are its configuration's fields as far as they have a dot."""
    settings: dict[str, Any] = {"evaluation": {"every": 30, "dev_limit": 20}, "name": config_id}
    for axis, value in point.items():
        place, _, name = axis.rpartition(".")
        settings.setdefault(place, {})[name] = value
    inputs = {"model": "demo", "data": "demo", "limit": {}, "holdout": 0.0, "cfimdb": "leave"}
    return run_json(config_id, seed, **settings) | {"inputs": inputs}


def labels_of(task: str, classes: int | None, count: int) -> np.ndarray:
    """Labels of a task's dev, always the same."""
    chance = np.random.default_rng(len(task))
    return chance.uniform(0, 5, count).round(1) if classes is None else chance.integers(0, classes, count)


def values(points: Mapping[str, Mapping[str, Any]], axis: str) -> list[Any]:
    return list({str(point.get(axis)): point.get(axis) for point in points.values()}.values())
