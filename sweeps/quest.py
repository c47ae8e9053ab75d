"""What a search wants, as a pure function of the ledger: points to try, then the best over more seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

from analysis.ranking import value
from analysis.store.state import RunState, State
from mtbert.run import Run, digest
from sweeps.declare import DeclaredRun, Search
from sweeps.plan import Aims, reached
from sweeps.rungs import targets
from sweeps.space import Point
from sweeps.study import History, Known, Sampler, propose


@dataclass(frozen=True)
class Finalist:
    """One of the best points: its values over the seeds that were trained to their ends, by seed.

    `first` is what its first seed came to, at `step`, which is infinite for the end.
    """

    point: Point
    config_id: str
    values: dict[int, float]
    first: float
    step: float

    @property
    def mean(self) -> float:
        return fmean(self.values.values())


class Quest:
    """A search on data and base model of these fingerprints.

    `steps` says how long a run is. What is remembered here are runs already looked at, which the ledger
    never changes.
    """

    def __init__(self, search: Search, data: str, model: str, steps: Callable[[Run], int]) -> None:
        self.search, self._data, self._model, self._steps = search, data, model, steps
        self._history = History(search.space, search.base, data, model)
        self._first = search.runs(data, model)
        self._read: dict[str, DeclaredRun] = {}
        self._lengths: dict[str, int] = {}
        self.exhausted = False
        """Whether the sampler has come to nothing that the ledger lacks."""

    def listed(self, state: State) -> list[DeclaredRun]:
        """The search's runs so far: the start points', and what the ledger has of it, whoever drove it."""
        found = {each.run.run_id: each for each in self._first}
        sweep = state.sweeps.get(self.search.name)
        for run_id in sweep.points if sweep else ():
            run = state.runs.get(run_id)
            point = None if run is None else self._history.point(run)
            if run is None or point is None:  # of the same name, with another base or other data
                continue
            if run_id not in self._read:
                self._read[run_id] = DeclaredRun(Run.from_json(run.run), point)
            found.setdefault(run_id, self._read[run_id])
        return list(found.values())

    def tried(self, state: State) -> int:
        """How many points the search has tried, or is trying."""
        return sum(each.run.seed == 0 for each in self.listed(state))

    def more(self, state: State, count: int) -> list[DeclaredRun]:
        """Runs beside those listed: new points within the budget; once all have ended, the finalists'."""
        left = self.search.budget.points - self.tried(state)
        if left > 0 and not self.exhausted:
            found = self._proposed(state, min(left, count))
            self.exhausted = not found
            if found:
                return found
        if not self._tried_all(state, self.aims(state)):
            return []
        seeds = range(self.search.seeds_at_end)
        wanted = [
            self.search.run(each.point, seed, self._data, self._model)
            for seed in seeds
            for each in self.finalists(state)
        ]
        known = {each.run.run_id for each in self.listed(state)}
        return [each for each in wanted if each.run.run_id not in known]

    def aims(self, state: State) -> Aims:
        """The step wanted of each run: the rungs say it of the points, and finalists go to their ends."""
        listed = self.listed(state)
        for each in listed:
            if each.run.run_id not in self._lengths:
                self._lengths[each.run.run_id] = self._steps(each.run)
        lengths = {each.run.run_id: self._lengths[each.run.run_id] for each in listed}
        if self.search.rungs is None:
            return Aims(lengths)
        tried = {each.run.run_id: lengths[each.run.run_id] for each in listed if each.run.seed == 0}
        aims = _aims(lengths, targets(self.search.rungs, tried, state))
        if not self._tried_all(state, aims):
            return aims
        finalists = {each.config_id for each in self.finalists(state)}
        chosen = {each.run.run_id for each in listed if each.run.config_id in finalists}
        return _aims(lengths, {**aims.targets, **{run_id: lengths[run_id] for run_id in chosen}})

    def finalists(self, state: State) -> list[Finalist]:
        """The best points, by the value of their first seed, at most one for what is compared.

        Those that were trained to their ends come before those that were stopped, the furthest first.
        The first seed's alone, so that what the others bring changes nobody's place among them. Once all
        have theirs, the best is the one with the highest mean.
        """
        ranked = sorted(
            (each for known in self._history.known(state) if (each := self._finalist(known)) is not None),
            key=lambda each: (-each.step, -each.first, each.config_id),
        )
        best: dict[str, Finalist] = {}
        for each in ranked:
            best.setdefault(digest(self.search.space.compared(each.point)), each)
        return list(best.values())[: self.search.top_k]

    def winner(self, state: State) -> Finalist | None:
        """The finalist with the highest mean over its seeds; None before anything was completed."""
        seeds = range(self.search.seeds_at_end)
        some = [each for each in self.finalists(state) if each.values]
        full = [each for each in some if all(seed in each.values for seed in seeds)]
        return max(full or some, key=lambda each: each.mean, default=None)

    def sample(self, count: int) -> list[Run]:
        """Runs at random points of the space: for what must be known before any is proposed."""
        points = propose(self.search.space, Sampler("random", 0), (), "", count, lambda _: False)
        return [self.search.run(point, 0, self._data, self._model).run for point in points]

    def _proposed(self, state: State, count: int) -> list[DeclaredRun]:
        known = self._history.known(state)
        taken = {each.config_id for each in known} | {each.run.config_id for each in self.listed(state)}
        proposed = propose(
            self.search.space,
            self.search.sampler,
            known,
            self.search.objective,
            count,
            lambda point: self._config_id(point) in taken,
        )
        return [self.search.run(point, 0, self._data, self._model) for point in proposed]

    def _config_id(self, point: Point) -> str:
        return self.search.run(point, 0, self._data, self._model).run.config_id

    def all_tried(self, state: State) -> bool:
        """Whether every point has come as far as is wanted of it, so that the finalists are known."""
        return self._tried_all(state, self.aims(state))

    def _tried_all(self, state: State, aims: Aims) -> bool:
        """Whether every point of the budget has come as far as is wanted of it."""
        listed = self.listed(state)
        tried = sum(each.run.seed == 0 for each in listed)
        full = self.exhausted or tried >= self.search.budget.points
        return full and all(
            reached(state.runs.get(run_id), aims.targets[run_id])
            for run_id in (each.run.run_id for each in listed)
        )

    def _finalist(self, known: Known) -> Finalist | None:
        values = {run.seed: value(run, self.search.objective) for run in known.runs}
        present = {seed: each for seed, each in values.items() if each is not None}
        if present:
            return Finalist(known.point, known.config_id, present, present[min(present)], float("inf"))
        if self.search.rungs is None:
            return None
        shown = [(step, score) for run in known.runs for step, score in _held(run)]
        if not shown:
            return None
        step, score = max(shown)
        return Finalist(known.point, known.config_id, {}, score, step)


def _held(run: RunState) -> list[tuple[int, float]]:
    """Step and score at each evaluation of a run that may go on."""
    return [] if run.final else [(step, score) for step, score in run.scores if score is not None]


def _aims(lengths: Mapping[str, int], wanted: Mapping[str, int]) -> Aims:
    """The targets with the full length where nothing else is wanted."""
    early = frozenset(run_id for run_id, step in wanted.items() if step < lengths[run_id])
    return Aims({**lengths, **wanted}, early)
