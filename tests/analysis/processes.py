"""What other processes do in the tests of crash safety: `python -m tests.analysis.processes ROLE RESULTS`."""

from __future__ import annotations

import builtins
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from analysis.store import Writer, files
from analysis.store.provenance import commit
from analysis.store.union import unite
from tests.analysis.ledgers import ending, evaluation, predictions, run_json
from tests.analysis.mortal import MortalFile

RUNS = [run_json(seed=seed) for seed in range(2)]
MANY = [run_json(seed=seed) for seed in range(30)]
KILLED = 9


def story(results: Path, driver: str) -> None:
    """A sweep of two runs, one of which is lost once, from declaration to tables. Can be told again."""
    with Writer(results, driver) as writer:
        writer.declare({"sweep": "story"}, [{"run": run, "point": {"seed": run["seed"]}} for run in RUNS])
        texts = {"first": ["x"], "second": [None], "label": [1.0]}
        writer.examples("data1", {"id": ["a"], "task": ["sst"], "split": ["dev"], **texts})
        for run in RUNS:
            train(writer, run)
        writer.compact()


def train(writer: Writer, run: dict[str, Any]) -> bool:
    """Trains a run unless it has ended; those of odd seeds are lost once on the way."""
    run_id, claim = run["run_id"], writer.begin(run, "story")
    if claim.attempt is None:
        return False
    writer.evaluation(run_id, claim.attempt, evaluation(10))
    writer.checkpoint(run_id, claim.attempt, 10, b"state at 10")
    attempt: int | None = claim.attempt
    if run["seed"] % 2:
        writer.release(run_id, claim.attempt, "lost")
        attempt = writer.begin(run, "story").attempt
        assert writer.load_checkpoint(run_id) == (10, b"state at 10")
    assert attempt is not None
    writer.evaluation(run_id, attempt, evaluation(20))
    writer.end(run_id, attempt, ending(step=20), predictions(), b"weights of " + run_id.encode())
    return True


def union(results: Path, driver: str) -> None:
    """Takes the folder `source` beside it in."""
    with Writer(results, driver) as writer:
        unite(writer, results.parent / "source")


def crash_unions(results: Path) -> None:
    """Tells a folder's story once, and takes it in again and again, as `crash_everywhere`."""
    story(results / "source", "teller")
    crash_everywhere(results, union)


def crash_everywhere(results: Path, told: Callable[[Path, str], None] = story) -> None:
    """Tells the story again and again, each time in a process that dies at a later moment.

    The moments are all calls that write, rename, sync or delete: in the middle of each (half of what is
    to be written is), and after it. Leaves a folder for each moment.
    """
    commit()  # git, and the modules that pyarrow loads late, are asked for once
    pa.array([None])
    for number in itertools.count(1):
        deaths = 0
        for when in ("during", "after"):
            child = os.fork()
            if child == 0:
                die_at(number, when)
                told(results / f"{number}-{when}", "mortal")
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) in (0, KILLED)
            deaths += os.waitstatus_to_exitcode(status) == KILLED
        if not deaths:
            return


def die_at(number: int, when: str) -> None:
    """From now on the process dies at its `number`th call that changes a file."""
    calls = itertools.count(1)

    def mortal(real: Callable[..., Any], half: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            here = next(calls) == number
            if here and when == "during":
                half(*arguments)
                os._exit(KILLED)
            result = real(*arguments, **options)
            if here:
                os._exit(KILLED)
            return result

        return call

    write, nothing = os.write, lambda *_: None
    os.write = mortal(write, lambda file, data: write(file, data[: len(data) // 2]))
    os.fsync = mortal(nothing, nothing)  # a kill takes nothing from the kernel
    for name in ("replace", "unlink", "ftruncate"):
        setattr(os, name, mortal(getattr(os, name), nothing))

    def opened(path: Path, mode: str) -> MortalFile:
        return MortalFile(builtins.open(path, mode, buffering=0), mortal, lambda data: data[: len(data) // 2])

    files.open = opened  # type: ignore[attr-defined]


def hold(results: Path) -> None:
    """Claims a run, stores what it has, says so, and waits to be killed."""
    writer = Writer(results, "victim")
    claim = writer.begin(RUNS[0])
    assert claim.attempt == 1
    writer.evaluation("c1-0", 1, evaluation(10))
    writer.checkpoint("c1-0", 1, 10, b"of the victim")
    say("holding")
    sys.stdin.read()


def race(results: Path) -> None:
    """At a word, trains whatever of many runs it can claim; prints each that it has ended."""
    with Writer(results) as writer:
        say("ready")
        sys.stdin.readline()
        for run in MANY:
            if train(writer, run):
                say(run["run_id"])


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


ROLES = {"crash": crash_everywhere, "crash-union": crash_unions, "hold": hold, "race": race}

if __name__ == "__main__":
    ROLES[sys.argv[1]](Path(sys.argv[2]))
