"""Whole wall-clock of a LoRA grid, here and under plain Ray Tune with transformers' Trainer and PEFT.

    python benchmarks/sweep_wall_clock.py --model FOLDER --data FOLDER

Each side is a command of its own, timed from start to end: `sweeps/lora_grid.py`, and `peer_sweep.py`, a
Ray Tune function trainable as the libraries' guides have it. Both read the same examples and train the
same configurations with the same batch size, rates, warm-up, dropout and evaluations on the same dev
examples, as many at once, with one thread each. Memory is the most that the process tree held, shared
pages counted once where the system tells (Linux). Scores are the last step's.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
import torch
import yaml

from analysis.store import read
from benchmarks.common import describe_machine, table
from mtbert.data.examples import Dataset
from mtbert.draws import generator
from mtbert.inputs import Inputs, parse_limit
from mtbert.run import Run
from mtbert.schema import plain
from mtbert.tasks import Task, score
from mtbert.weights import resolve
from sweeps.placement import usable_cores

FOLDER = Path(__file__).resolve().parent
WARMUP, DROPOUT = 0.1, 0.1
SAMPLE_SECONDS = 1.0
OF_TASK = ("name", "kind", "sentences", "classes", "low", "high", "metric", "score")
Scores = dict[tuple[int, float], list[float]]
"""A score for each seed, by rank and alpha."""


class Side(NamedTuple):
    """What a command cost, and what came of it."""

    name: str
    seconds: float
    memory: int
    scores: Scores


def export(dataset: Dataset, dev_limit: int, folder: Path) -> None:
    """The examples as files for both sides, dev cut to a fixed choice: tab-separated ones, and JSON lines."""
    declared = []
    for name, task in dataset.tasks.items():
        columns = ["first", "label"] if task.sentences == 1 else ["first", "second", "label"]
        files = {split: f"{name}-{split}.tsv" for split in ("train", "dev")}
        for split, file in files.items():
            examples = dataset.examples[name, split]
            if split == "dev" and dev_limit < len(examples):
                chosen = generator("benchmark", name).permutation(len(examples))[:dev_limit]
                examples = [examples[index] for index in sorted(chosen)]
            rows = [{column: getattr(example, column) for column in columns} for example in examples]
            with open(folder / file, "w", encoding="utf-8", newline="") as lines:
                writer = csv.DictWriter(lines, columns, delimiter="\t")
                writer.writeheader()
                writer.writerows(rows)
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / file).with_suffix(".jsonl").write_text(text, encoding="utf-8")
        own = {field: value for field, value in plain(task).items() if field in OF_TASK}
        declared.append({**own, "columns": {column: column for column in columns}, "files": files})
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": declared}), encoding="utf-8")


def configuration(arguments: argparse.Namespace) -> dict[str, Any]:
    """The base configuration of this project's side."""
    rates = {"adapters": arguments.rate, "heads": arguments.rate}
    return {
        "features": arguments.features,
        "low_rank": {"kind": "lora", "targets": arguments.targets.split(","), "dropout": 0.0},
        "training": {
            "steps": arguments.steps,
            "batch_size": arguments.batch,
            "schedule": {"kind": "proportional"},
            "learning_rate": rates,
            "warmup": WARMUP,
            "dropout": {"backbone": DROPOUT, "heads": DROPOUT},
        },
        "evaluation": {"every": arguments.every, "train_limit": 0, "keep": "last"},
    }


def run_here(arguments: argparse.Namespace, data: Path, precision: str, folder: Path) -> Side:
    """`sweeps/lora_grid.py`, as anybody would start it."""
    config, results = folder / "config.yaml", folder / "results"
    config.write_text(yaml.safe_dump(configuration(arguments)), encoding="utf-8")
    values = {
        "model": resolve(arguments.model),
        "data": data / "tasks.yaml",
        "results": results,
        "config": config,
        "ranks": arguments.ranks,
        "alphas": arguments.alphas,
        "seeds": arguments.seeds,
        "precision": precision,
        "max-concurrent": arguments.at_once,
        "gpus-per-run": 0,
        "address": "local",
    }
    flags = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    seconds, memory = timed([str(FOLDER.parent / "sweeps" / "lora_grid.py"), *flags], folder)
    scores: Scores = {}
    for state in read(results).runs.values():
        low_rank = Run.from_json(state.run).configuration.low_rank
        assert low_rank is not None
        found = (state.ended or {})["score"]
        scores.setdefault((low_rank.rank, low_rank.alpha), []).append(nan if found is None else found)
    return Side(f"sweeps/lora_grid.py, {precision}", seconds, memory, scores)


def run_peer(
    arguments: argparse.Namespace, data: Path, tasks: Mapping[str, Task], precision: str, folder: Path
) -> Side:
    """`benchmarks/peer_sweep.py`."""
    plan = {name: getattr(arguments, name) for name in ("features", "steps", "batch", "rate", "every")}
    plan |= {
        "model": str(resolve(arguments.model)),
        "data": str(data),
        "tasks": [{"name": task.name, "kind": task.kind, "outputs": task.outputs} for task in tasks.values()],
        "rank": [int(rank) for rank in arguments.ranks.split(",")],
        "alpha": [float(alpha) for alpha in arguments.alphas.split(",")],
        "seed": list(range(arguments.seeds)),
        "targets": arguments.targets.split(","),
        "precision": precision,
        "warmup": WARMUP,
        "dropout": DROPOUT,
        "at_once": arguments.at_once,
        "results": str(folder),
    }
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    seconds, memory = timed([str(FOLDER / "peer_sweep.py"), str(folder / "plan.json")], folder)
    scores: Scores = {}
    for found in json.loads((folder / "metrics.json").read_text(encoding="utf-8")):
        config, metrics = found["config"], found["metrics"]
        by_task = {name: metrics[f"eval_{name}_{task.metric}"] for name, task in tasks.items()}
        value = score(tasks, by_task)
        assert value is not None
        scores.setdefault((config["rank"], config["alpha"]), []).append(value)
    return Side(f"Ray Tune + Trainer + PEFT, {precision}", seconds, memory, scores)


def timed(command: Sequence[str], folder: Path) -> tuple[float, int]:
    """Seconds of a Python command from start to end, and the most bytes that its process tree held."""
    log, peak = folder / "log", 0
    scratch = tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True)  # Ray wants a short name
    own = {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "RAY_TMPDIR": scratch.name}
    with scratch, open(log, "w", encoding="utf-8") as file:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command], stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **own}
        )
        while process.poll() is None:
            peak = max(peak, held_by(process.pid))
            try:
                process.wait(SAMPLE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        seconds = time.perf_counter() - began
    if process.returncode != 0:
        raise SystemExit(f"{log.read_text(encoding='utf-8')}\n{command[0]} ended with {process.returncode}")
    return seconds, peak


def held_by(pid: int) -> int:
    """Bytes that a process and all below it hold now; pages that several share count once on Linux."""
    total = 0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            memory = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has ended meanwhile
        total += getattr(memory, "pss", memory.rss)
    return total


def rows_of(sides: Sequence[Side], peer: Side) -> list[list[str]]:
    """A row for each side: its costs, and its scores over all runs and by configuration."""
    rows = []
    for side in sides:
        runs = [value for values in side.scores.values() for value in values]
        cells = [side.name, f"{side.seconds:.1f}", f"{peer.seconds / side.seconds:.2f}"]
        cells += [f"{side.memory / 1e6:,.0f}", spread(runs)]
        rows.append(cells + [spread(side.scores[point]) for point in sorted(peer.scores)])
    return rows


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    return f"{mean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else f"{mean(values):.4f}"


def warm_up() -> None:
    """Reads what both sides import from the disk once, so that neither pays for being the first."""
    imports = "import datasets, peft, ray.tune, torch, transformers"
    subprocess.run([sys.executable, "-c", imports], check=True)


def parser() -> argparse.ArgumentParser:
    """The flags and what they are where they are left out."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--model", default="demo", help="demo, a folder, or a name on the hub (%(default)s)")
    add("--data", default="demo", help="as sweeps/lora_grid.py takes it (%(default)s)")
    add("--limit", help="training examples of each task: a count, or sst=500,para=2000")
    add("--dev-limit", type=int, default=150, help="dev examples of each task (%(default)s)")
    add("--ranks", default="2,8", help="(%(default)s)")
    add("--alphas", default="8,16", help="(%(default)s)")
    add("--seeds", type=int, default=2, help="of each configuration (%(default)s)")
    add("--targets", default="query,value", choices=("query,value", "query,key,value", "all_linear"))
    add("--features", default="mean", choices=("mean", "pooler"))
    add("--steps", type=int, default=120, help="of each run (%(default)s)")
    add("--every", type=int, default=40, help="steps between evaluations (%(default)s)")
    add("--batch", type=int, default=16, help="(%(default)s)")
    add("--rate", type=float, default=1e-3, help="learning rate of adapters and heads (%(default)s)")
    add("--at-once", type=int, default=usable_cores(), help="runs at once (%(default)s)")
    add("--precisions", default="float32,bfloat16", help="of this project's sides (%(default)s)")
    add("--peer-precisions", default="float32", help="of the peer's; bfloat16 is autocast (%(default)s)")
    add("--results", help="an empty folder that keeps both sides' files and output (a temporary one)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    arguments = parser().parse_args(argv)
    if arguments.steps % arguments.every:
        parser().error("--every: expected a divisor of --steps, so that both sides evaluate the last step")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.results or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser().error(f"--results {folder}: expected an empty folder, or none")
        limit = {} if arguments.limit is None else parse_limit(arguments.limit)
        dataset = Inputs(data=arguments.data, limit=limit).dataset()
        export(dataset, arguments.dev_limit, folder)
        warm_up()
        here, peers = arguments.precisions.split(","), arguments.peer_precisions.split(",")
        wanted = [("here", precision) for precision in here] + [("peer", precision) for precision in peers]
        sides = []
        for side, precision in wanted:
            (own := folder / f"{side}-{precision}").mkdir()
            print(f"{side}, {precision}: running, see {own / 'log'}", file=sys.stderr)
            if side == "here":
                sides.append(run_here(arguments, folder, precision, own))
            else:
                sides.append(run_peer(arguments, folder, dataset.tasks, precision, own))
    peer = sides[len(here)]
    show(arguments, sides, peer)
    return 0


def show(arguments: argparse.Namespace, sides: Sequence[Side], peer: Side) -> None:
    """The table between what was run and where."""
    runs = sum(map(len, peer.scores.values()))
    print(
        f"{runs} LoRA runs on {arguments.targets} of {arguments.model}, {arguments.features} features, "
        f"{arguments.steps} steps of {arguments.batch}, dropout {DROPOUT}, evaluated every "
        f"{arguments.every} steps on at most {arguments.dev_limit} dev examples of each task, "
        f"{arguments.at_once} at once\n"
    )
    points = [f"rank {rank}, alpha {alpha:g}" for rank, alpha in sorted(peer.scores)]
    header = ["", "wall-clock, s", "times as fast", "peak memory, MB", f"dev score, {runs} runs", *points]
    print(table(header, rows_of(sides, peer)))
    print(f"\n{describe_machine(['torch', 'ray', 'transformers', 'peft', 'datasets'])}")


if __name__ == "__main__":
    sys.exit(main())
