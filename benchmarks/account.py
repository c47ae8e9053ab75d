"""What must hold of a results folder whatever befell it, counted: from ledger, files and witness."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.store.reader import Reader
from analysis.store.state import FINAL, RunState, State
from sweeps.declare import Search
from sweeps.search.study import History, trials


class Said(NamedTuple):
    """A line of the witness: what a worker did."""

    kind: str
    run_id: str
    step: int
    process: int
    time: float


@dataclass(frozen=True)
class Account:
    """A results folder at a moment.

    Attributes:
        ended: the ending of each run that has ended for good.
        stored: such endings in the ledger.
        stored_twice: endings of which the ledger has more than it should.
        points: how many points the study holds in each state; `wrong_points`: those that it holds twice, or
            in a state that is not their runs'.
        trained_again: times that a run was admitted by a worker after it had ended.
        repeated: steps made more than once; `unexcused`: those beyond what an attempt that did not end may
            repeat, which is the steps from one evaluation to the next.
        unreadable: Parquet files that do not open.
    """

    ended: Mapping[str, Mapping[str, Any]]
    stored: int
    stored_twice: int
    points: Mapping[str, int]
    wrong_points: int
    trained_again: int
    repeated: int
    unexcused: int
    unreadable: tuple[str, ...]

    def lost_since(self, earlier: Account) -> int:
        """How many runs had ended then, and have not, or otherwise, now."""
        return sum(self.ended.get(run_id) != ending for run_id, ending in earlier.ended.items())


class Auditor:
    """Follows a results folder in which one space is searched, and the witness beside it.

    Args:
        search: any search of the space, on data and base model of these fingerprints.
        every: steps from one evaluation, and checkpoint, to the next.
    """

    def __init__(
        self, results: Path, witness: Path, search: Search, data: str, model: str, every: int
    ) -> None:
        self._results, self._witness = results, Tail(witness)
        self._search, self._every = search, every
        self._reader = Reader(results)
        self._history = History(search.space, search.base, data, model)
        self._segments: dict[Path, Tail] = {}
        self._said: list[Said] = []
        self._endings: list[dict[str, Any]] = []
        self._begins: Counter[str] = Counter()
        self._opened: set[tuple[Path, int]] = set()

    def said(self) -> int:
        """How many lines the witness has by now."""
        self._said += map(parsed, self._witness.lines())
        return len(self._said)

    def short_of_memory(self) -> int:
        """How often a run was given back, or failed, for want of memory by now."""
        runs = self._reader.refresh().runs.values()
        failed = sum("out of memory" in str((run.ended or {}).get("error")) for run in runs)
        given_back = [run.run_id for run in runs for loss in run.losses if loss["reason"] == "memory"]
        return failed + len(given_back)

    def look(self) -> Account:
        """The account at this moment, while others may write."""
        self.said()  # first, so that what had ended by then is known below
        state = self._reader.refresh()
        self._read_segments()
        study, wrong = self._study(state)
        repeated = self._repeated()
        ends = Counter(each["run_id"] for each in self._endings)
        excused = {run_id: self._every * (self._begins[run_id] - ends[run_id]) for run_id in repeated}
        return Account(
            ended={run_id: run.ended or {} for run_id, run in state.runs.items() if run.final},
            stored=sum(each["record"]["status"] in FINAL for each in self._endings),
            stored_twice=self._stored_twice(),
            points=study,
            wrong_points=wrong,
            trained_again=self._trained_again(),
            repeated=repeated.total(),
            unexcused=sum(max(0, count - excused[run_id]) for run_id, count in repeated.items()),
            unreadable=tuple(self._unreadable()),
        )

    def _read_segments(self) -> None:
        """Begins and endings as the segments have them, read without the ledger's own reader."""
        for path in sorted((self._results / "ledger" / "segments").glob("*.jsonl")):
            for line in self._segments.setdefault(path, Tail(path)).lines():
                record = json.loads(line)
                if record["kind"] == "end":
                    self._endings.append(record)
                self._begins[record.get("run_id", "")] += record["kind"] == "begin"

    def _stored_twice(self) -> int:
        """A run ends for good once, and is stopped once at a step."""
        final = Counter(each["run_id"] for each in self._endings if each["record"]["status"] in FINAL)
        stopped = Counter(
            (each["run_id"], each["record"]["step"])
            for each in self._endings
            if each["record"]["status"] == "stopped"
        )
        return sum(count - 1 for count in [*final.values(), *stopped.values()])

    def _trained_again(self) -> int:
        over = {each["run_id"]: each["time"] for each in self._endings if each["record"]["status"] in FINAL}
        return sum(
            said.kind == "admit" and said.time > over.get(said.run_id, float("inf")) for said in self._said
        )

    def _repeated(self) -> Counter[str]:
        """Steps made more than once, by run."""
        steps = Counter((said.run_id, said.step) for said in self._said if said.kind == "step")
        extra: Counter[str] = Counter()
        for (run_id, _), count in steps.items():
            extra[run_id] += count - 1
        return +extra

    def _study(self, state: State) -> tuple[Counter[str], int]:
        """Points of the study by state, and how many are there twice or in another state than their runs'."""
        known = self._history.known(state)
        told = trials(self._search.space, self._search.sampler.name, known, self._search.objective)
        wrong = len(told) - len({json.dumps(trial.params, sort_keys=True) for trial in told})
        by_configuration: dict[str, list[RunState]] = {}
        for run in state.runs.values():
            if run.attempt:
                by_configuration.setdefault(run.config_id, []).append(run)
        wrong += abs(len(by_configuration) - len(told))
        for point, trial in zip(known, told, strict=True):
            wrong += trial.state.name != state_of(by_configuration[point.config_id])
        return Counter(trial.state.name for trial in told), wrong

    def _unreadable(self) -> Iterable[str]:
        """The Parquet files that pyarrow or DuckDB refuses; each version of a file is opened once."""
        for path in sorted(self._results.rglob("[!.]*.parquet")):
            version = (path, path.stat().st_mtime_ns)
            if version in self._opened:
                continue
            try:
                rows = pq.read_table(path).num_rows
                (found,) = duckdb.execute(f"select count(*) from read_parquet('{path}')").fetchall()
            except (pa.ArrowInvalid, duckdb.Error) as error:
                yield f"{path}: {error}"
                continue
            if found != (rows,):
                yield f"{path}: {rows} rows to pyarrow, {found[0]} to DuckDB"
            self._opened.add(version)


def state_of(runs: Sequence[RunState]) -> str:
    """The state of a point in a study of TPE's by its runs: one that has shown a score is no open one."""
    statuses = {run.status for run in runs}
    if "completed" in statuses:
        return "COMPLETE"
    shown = any(score is not None for run in runs for _, score in run.scores)
    cut = statuses & {"diverged", "failed"} or statuses == {"stopped"}
    return "PRUNED" if shown or cut else "RUNNING"


class Tail:
    """The whole lines of a file that others add to, each handed out once."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def lines(self) -> list[bytes]:
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.splitlines()


def parsed(line: bytes) -> Said:
    kind, run_id, step, process, moment = line.decode().split()
    return Said(kind, run_id, int(step), int(process), float(moment))
