"""Ray Tune as its guides have it, over trainables that do nothing: one side of scheduler_overhead.py.

    python benchmarks/peer_scheduler.py PLAN

PLAN is a JSON file: runs, evaluations, at_once, searcher (none or optuna), folder, and answer, a file to
which this process writes what it measured. The workers are reused, as this project's are.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any
from zlib import crc32

import ray
from ray import tune


class Idle(tune.Trainable):
    """Evaluated as often as asked, without training."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._evaluations = new_config["evaluations"]
        self._score = crc32(json.dumps(new_config).encode()) / 2**32
        return True

    def step(self) -> dict[str, Any]:
        return {"score": self._score, "done": self.iteration + 1 == self._evaluations}


def main() -> int:
    """Runs the trials and writes their ends, the seconds of it all, and this process's peak memory."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    space = {"rank": tune.randint(1, 65), "alpha": tune.loguniform(0.25, 8.0)}
    searcher = None
    if plan["searcher"] == "optuna":
        from ray.tune.search import ConcurrencyLimiter
        from ray.tune.search.optuna import OptunaSearch

        searcher = ConcurrencyLimiter(OptunaSearch(), max_concurrent=plan["at_once"])
    began = time.perf_counter()
    ray.init("local", num_cpus=plan["at_once"], include_dashboard=False, log_to_driver=False)
    results = tune.Tuner(
        Idle,
        param_space={**space, "evaluations": plan["evaluations"]},
        tune_config=tune.TuneConfig(
            metric="score", mode="max", num_samples=plan["runs"], search_alg=searcher, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            storage_path=plan["folder"],
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # there is nothing to store
        ),
    ).fit()
    if results.errors:
        raise SystemExit(f"{len(results.errors)} trials failed: {results.errors[0]}")
    ends = [result.metrics["timestamp"] for result in results if result.metrics is not None]
    ray.shutdown()
    found = {"seconds": time.perf_counter() - began, "ends": ends}
    unit = 1 if sys.platform == "darwin" else 1024
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    Path(plan["answer"]).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
