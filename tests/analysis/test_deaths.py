"""A writer that dies at any moment of any story, for instance with a half-written file: nothing is lost."""

from __future__ import annotations

import builtins
import itertools
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.store import State, Writer, compaction, files, read, weights_path
from analysis.store.compaction import current_stamp, prediction_files, table_stamp
from analysis.store.files import Layout
from analysis.store.records import decode
from analysis.store.replay import Replay
from analysis.store.weights import read_checkpoint
from tests.analysis.ledgers import ending, evaluation, predictions, run_json
from tests.analysis.mortal import MortalFile

RUNS = [run_json(seed=seed) for seed in range(2)]
ENDS = ("stop", "complete", "fail", "diverge", "give back")
ACTS = (*["evaluate"] * 2, *["checkpoint"] * 4, *["stop"] * 2, *ENDS)
Act = tuple[str, int]
acts = st.tuples(st.sampled_from(ACTS), st.integers(0, 1)) | st.sampled_from(
    [("declare", 0), ("compact", 0), ("hand over", 0), ("ask", 0), ("ask", 1)]
)


class KilledError(BaseException):
    """No cleaning up catches a SIGKILL: whatever is tried after it is this again, and does nothing."""


@dataclass
class Story:
    """Acts of one driver after the other, told to a folder."""

    results: Path
    drivers: int = 0
    steps: Counter[int] = field(default_factory=Counter)
    held: dict[int, int] = field(default_factory=dict)  # run → attempt
    lines: list[int] = field(default_factory=list)  # of the ledger, after each act

    def tell(self, told: list[Act]) -> None:
        writer = self._driver()
        for act, at in told:
            if act == "hand over":
                writer.close()
                self.held.clear()
                writer = self._driver()
            elif act == "declare":
                points = [{"run": run, "point": {"seed": run["seed"]}} for run in RUNS]
                writer.declare({"sweep": "story"}, points)
            elif act == "compact":
                writer.compact()
            elif act == "ask":
                writer.stop("run", RUNS[at]["run_id"], [f"driver{self.drivers}", "another"])
            else:
                self._train(writer, act, at)
            self.lines.append(len(lines_of(self.results)))
        writer.close()

    def _driver(self) -> Writer:
        self.drivers += 1
        return Writer(self.results, f"driver{self.drivers}")

    def _train(self, writer: Writer, act: str, at: int) -> None:
        """An act on a run, which is begun where nobody trains it; nothing on one that has ended for good."""
        run_id = RUNS[at]["run_id"]
        if at not in self.held:
            claim = writer.begin(RUNS[at], "story", retry_failed=True)
            if claim.attempt is None:
                return
            self.held[at] = claim.attempt
        attempt = self.held[at]
        if act == "evaluate":
            self.steps[at] += 1
            writer.evaluation(run_id, attempt, evaluation(self.steps[at]))
        elif act == "checkpoint":
            self.steps[at] += 1
            writer.checkpoint(run_id, attempt, self.steps[at], state_at(self.steps[at]))
        elif act == "give back":
            writer.release(run_id, attempt, "lost")
            del self.held[at]
        else:
            finish(writer, at, attempt, act, self.steps[at])
            del self.held[at]


def finish(writer: Writer, at: int, attempt: int, act: str, step: int) -> None:
    """An ending; only a completed run has predictions and weights."""
    status = {"stop": "stopped", "complete": "completed", "fail": "failed", "diverge": "diverged"}[act]
    whole = status == "completed"
    run_id = RUNS[at]["run_id"]
    weights = b"weights of " + run_id.encode() if whole else b""
    writer.end(run_id, attempt, ending(status, step), predictions() if whole else {}, weights)


def state_at(step: int) -> bytes:
    return b"state at %d, " % step * 50


def lines_of(results: Path) -> list[bytes]:
    """All whole lines of the ledger, in the order in which they were written."""
    texts = [path.read_bytes() for path in (results / "ledger" / "segments").glob("*")]
    whole = [text[: text.rfind(b"\n") + 1] for text in texts]
    found = [text.splitlines() for text in whole if text]
    return [line for lines in sorted(found, key=lambda each: json.loads(each[0])["time"]) for line in lines]


def state_of(lines: list[bytes]) -> State:
    replay = Replay()
    for line in lines:
        entry = decode(line)
        if not (isinstance(entry, dict) and entry["kind"] == "segment"):
            replay.add(entry)
    return replay.state()


class Death:
    """Counts the calls that change a file, and strikes in the middle of one, a part of which is done."""

    def __init__(self, number: int | None, part: float) -> None:
        self._number, self._part = number, part
        self.calls = 0
        self.open: set[int] = set()

    def call(self, real: Callable[..., Any], partly: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if self._number is not None and self.calls >= self._number:
                if self.calls == self._number:
                    self.calls += 1
                    partly(*arguments)
                raise KilledError
            self.calls += 1
            return real(*arguments, **options)

        return counted

    def cut(self, data: Any) -> Any:
        return bytes(data)[: int(len(bytes(data)) * self._part)]

    def file(self, path: Path, mode: str) -> Any:
        return MortalFile(builtins.open(path, mode, buffering=0), self.call, self.cut)


@contextmanager
def mortal(death: Death) -> Iterator[None]:
    """Within it the process may die; what it held open is closed at the end, and its locks with it."""
    clock = itertools.count(1_700_000_000)
    with pytest.MonkeyPatch.context() as patch:
        write, opening, closing = os.write, os.open, os.close

        def opened(*arguments: Any, **options: Any) -> int:
            descriptor = opening(*arguments, **options)
            death.open.add(descriptor)
            return descriptor

        def closed(descriptor: int) -> None:
            death.open.discard(descriptor)
            closing(descriptor)

        patch.setattr(time, "time", lambda: float(next(clock)))
        patch.setattr(os, "open", opened)
        patch.setattr(os, "close", closed)
        patch.setattr(os, "fsync", lambda _: None)  # a kill takes nothing from the kernel
        patch.setattr(os, "write", death.call(write, lambda file, data: write(file, death.cut(data))))
        for name in ("replace", "unlink", "ftruncate"):
            real = getattr(os, name)
            partly = real if death._part > 0.5 else lambda *_: None
            patch.setattr(os, name, death.call(real, partly))
        for module in (files, compaction):
            patch.setattr(module, "open", death.file, raising=False)
        try:
            yield
        finally:
            for descriptor in death.open:
                closing(descriptor)


class Whole:
    """A story told to its end, and what is left of it when its teller dies on the way."""

    def __init__(self, place: Path, told: list[Act]) -> None:
        self._place, self._told = place, told
        self._story, life = Story(place / "whole"), Death(None, 0)
        with mortal(life):
            self._story.tell(told)
        self.calls = life.calls
        self._lines = lines_of(self._story.results)

    def check_cut(self, number: int, part: float) -> None:
        """Dies in the middle of that call."""
        cut = Story(self._place / f"cut{number}-{part}")
        with mortal(Death(number, part)), pytest.raises(KilledError):
            cut.tell(self._told)
        lines = lines_of(cut.results)
        assert lines == self._lines[: len(lines)]
        assert len(lines) >= (self._story.lines[len(cut.lines) - 1] if cut.lines else 0)
        check_left(cut.results, state_of(lines))
        check_gone_on(cut.results)
        shutil.rmtree(cut.results)


SEARCH: list[Act] = [
    *[("declare", 0), ("checkpoint", 0), ("checkpoint", 0), ("stop", 0), ("checkpoint", 1), ("ask", 1)],
    *[("compact", 0), ("checkpoint", 1), ("fail", 1), ("evaluate", 1), ("checkpoint", 1), ("ask", 0)],
    *[("hand over", 0), ("checkpoint", 0), ("give back", 0), ("checkpoint", 0), ("complete", 0)],
    ("compact", 0),
]
"""A run stopped at a rung, promoted, lost, and completed beside one that failed and is tried again.

Somebody has asked that either be left as it stands.
"""


@pytest.mark.slow
def test_a_search_that_dies_at_any_call_leaves_what_was_told_until_then(tmp_path: Path) -> None:
    whole = Whole(tmp_path, SEARCH)
    assert whole.calls > 60  # else the calls are not those that the writer makes
    for number in range(whole.calls):
        whole.check_cut(number, part=(number % 3) / 2)


moments = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=3, unique=True)


@settings(max_examples=20, deadline=None)
@given(told=st.lists(acts, min_size=3, max_size=20), moments=moments)
def test_so_does_a_death_at_any_moment_of_any_story(
    tmp_path_factory: pytest.TempPathFactory, told: list[Act], moments: list[tuple[float, float]]
) -> None:
    place = tmp_path_factory.mktemp("deaths")
    whole = Whole(place, told)
    for moment, part in moments:
        whole.check_cut(int(moment * (whole.calls - 1)), part)
    shutil.rmtree(place)


def check_left(results: Path, expected: State) -> None:
    """The folder says what its lines say, with its snapshot and without, and has what they name."""
    layout, state = Layout.of(results), read(results)
    assert state == expected
    if layout.snapshot.exists():
        hidden = layout.snapshot.rename(layout.snapshot.with_name("hidden"))
        assert read(results) == expected
        hidden.rename(layout.snapshot)
    for path in prediction_files(layout, state.runs.values()):
        assert pq.read_table(path).num_rows == 2
    for run in state.runs.values():
        if run.status == "completed":
            assert weights_path(results, run.run_id).read_bytes() == b"weights of " + run.run_id.encode()
        if run.checkpoint is not None and not run.final:
            assert read_checkpoint(layout, run.run_id, run.checkpoint) == state_at(run.checkpoint.step)
    for path in layout.tables.glob("[!.]*.parquet"):
        rows = pq.read_table(path).num_rows
        if path.name == "runs.parquet" and table_stamp(path) == current_stamp(layout):
            assert rows == len(state.runs)


def check_gone_on(results: Path) -> None:
    """Whoever comes next ends every run, once, and what had ended stays as it was."""
    before = read(results)
    with Writer(results, "heir") as heir:
        for at, run in enumerate(RUNS):
            claim = heir.begin(run, "story", retry_failed=True)
            known = before.runs.get(run["run_id"])
            final = known is not None and known.status in ("completed", "diverged")
            assert (claim.refused == "ended") == final
            if claim.attempt is not None:
                assert known is None or claim.attempt == known.attempt + 1
                finish(heir, at, claim.attempt, "complete", 100)
        heir.compact()
    after = read(results)
    for run_id, run in after.runs.items():
        earlier = before.runs.get(run_id)
        assert run.status in ("completed", "diverged")
        assert earlier is None or earlier.status not in ("completed", "diverged") or run == earlier
    final = Counter(
        record["run_id"]
        for record in map(json.loads, lines_of(results))
        if record["kind"] == "end" and record["record"]["status"] in ("completed", "diverged")
    )
    assert final == {run["run_id"]: 1 for run in RUNS}
    assert pq.read_table(results / "tables" / "runs.parquet").num_rows == len(RUNS)
    assert list(results.rglob("*.tmp")) == []
    assert list((results / "checkpoints").iterdir()) == []
