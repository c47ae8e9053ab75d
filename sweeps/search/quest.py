"""What a search wants, as a pure function of the ledger: points to try, then the best over more seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.store.state import State
from mtbert.configuration import Configuration
from mtbert.run import Run, digest
from mtbert.schema import ConfigError, plain
from sweeps.declare import DeclaredRun, Search
from sweeps.plan import Aims, reached
from sweeps.search.finalists import Finalist, candidates, chosen, front, winner
from sweeps.search.points import check_found_again, configuration_at
from sweeps.search.rungs import targets
from sweeps.search.space import Point, spoken
from sweeps.search.study import CHANCES, History, Sampler, expected, propose

if TYPE_CHECKING:
    from mtbert.counts import Counts


class Quest:
    """A search on data and base model of these fingerprints.

    `steps` says how long a run is, `count` what a configuration trains, where a constraint binds that, and
    `driver` who asks: what it was told to leave is not waited for. What is remembered here are runs already
    looked at, which the ledger never changes.

    Raises:
        ConfigError: a start point that a constraint forbids.
    """

    def __init__(
        self,
        search: Search,
        data: str,
        model: str,
        steps: Callable[[Run], int],
        count: Callable[[Configuration], Counts] | None = None,
        driver: str = "",
    ) -> None:
        self.search, self._data, self._model, self._steps = search, data, model, steps
        self._count, self._driver = count, driver
        self._history = History(search.space, search.base, data, model)
        self._counts: dict[str, Counts] = {}
        self._first = search.runs(data, model)
        for each in self._first:
            if not self.allows(each.point):
                raise ConfigError(f"start: a constraint forbids the point ({spoken(each.point)})")
        self._read: dict[str, DeclaredRun] = {}
        self._lengths: dict[str, int] = {}
        self._listed: tuple[State | None, list[DeclaredRun]] = (None, [])
        self._aims: tuple[State | None, bool, Aims] = (None, False, Aims({}))
        self._foreseen: tuple[list[Any], Mapping[str, float]] = ([], {})
        self.exhausted = False
        """Whether the sampler has come to nothing that the ledger lacks."""

    def listed(self, state: State) -> list[DeclaredRun]:
        """The search's runs so far: the start points', and what the ledger has of it, whoever drove it."""
        if state is not self._listed[0]:
            self._listed = state, self._looked_up(state)
        return self._listed[1]

    def _looked_up(self, state: State) -> list[DeclaredRun]:
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
        if state is not self._aims[0] or self.exhausted != self._aims[1]:
            self._aims = state, self.exhausted, self._aimed(state)
        return self._aims[2]

    def _aimed(self, state: State) -> Aims:
        listed = self.listed(state)
        lengths = self._full(listed)
        if self.search.rungs is None:
            return Aims(lengths)
        first = [each.run for each in listed if each.run.seed == 0]
        tried, foreseen = {run.run_id: lengths[run.run_id] for run in first}, self._expected(state)
        expected = {run.run_id: foreseen[run.config_id] for run in first if run.config_id in foreseen}
        aims = _aims(lengths, targets(self.search.rungs, tried, state, expected))
        if not self._tried_all(state, aims):
            return aims
        finalists = {each.config_id for each in self.finalists(state)}
        chosen = {each.run.run_id for each in listed if each.run.config_id in finalists}
        return _aims(lengths, {**aims.targets, **{run_id: lengths[run_id] for run_id in chosen}})

    def _full(self, listed: Sequence[DeclaredRun]) -> dict[str, int]:
        """The runs' full lengths."""
        for each in listed:
            if each.run.run_id not in self._lengths:
                self._lengths[each.run.run_id] = self._steps(each.run)
        return {each.run.run_id: self._lengths[each.run.run_id] for each in listed}

    def _compared(self, state: State) -> frozenset[int]:
        """The steps at which runs are compared."""
        rungs = self.search.rungs
        lengths = set(self._full(self.listed(state)).values()) if rungs else ()
        return frozenset(step for length in lengths if rungs for step in rungs.steps(length))

    def finalists(self, state: State) -> list[Finalist]:
        """The best points that keep the constraints, which are trained with more seeds at the end."""
        return self._chosen(self.ranked(state))

    def ranked(self, state: State) -> list[Finalist]:
        """All points that have a value, by their first seed: what it came to, or is expected to come to."""
        known = self._history.known(state)
        expected = None if self.search.rungs is None else self._expected(state)
        return candidates(known, self.search.objective, expected)

    def front(self, state: State) -> list[Finalist]:
        """Where a cost is weighed: the points that keep the constraints and are not beaten in both."""
        terms = self.search.terms
        return front([each for each in self.ranked(state) if terms.kept(each.first_run)], terms)

    def winner(self, state: State) -> Finalist | None:
        """Of the best at their ends the one with the highest mean over its seeds; None where there is none.

        While more is expected of points that were stopped, these are no finalists yet.
        """
        ended = [each for each in self.ranked(state) if each.values]
        return winner(self._chosen(ended), self.search.terms, self.search.seeds_at_end)

    def _chosen(self, ranked: Sequence[Finalist]) -> list[Finalist]:
        search = self.search
        return chosen(ranked, search.terms, search.space, search.top_k, self.allows)

    def allows(self, point: Point) -> bool:
        """Whether the constraints that are known before let the point be trained."""
        terms = self.search.terms
        if not terms.before:
            return True
        if self._count is None:
            raise ValueError("a constraint binds trainable parameters, and nothing counts them")
        configuration = configuration_at(self.search.base, point)
        key = digest(plain(configuration))
        if key not in self._counts:
            self._counts[key] = self._count(configuration)
        return terms.allows(self._counts[key])

    def sample(self, count: int) -> list[Run]:
        """Runs at random points of the space, or the start's: for what must be known before any is proposed.

        Raises:
            ConfigError: no point keeps the constraints; a point that cannot be, or is not found again.
        """
        forbidden = lambda point: not self.allows(point)  # noqa: E731 - as short as what it says
        points = propose(self.search.space, Sampler("random", 0), (), "", count, forbidden)
        if not points and not self._first:
            texts = ", ".join(each.text for each in self.search.terms.constraints if each.before)
            raise ConfigError(f"constraint {texts}: of {CHANCES} points of the space, none keeps it")
        return [self._new(point).run for point in points] or [each.run for each in self._first]

    def _proposed(self, state: State, count: int) -> list[DeclaredRun]:
        known = self._history.known(state)
        taken = {each.config_id for each in known} | {each.run.config_id for each in self.listed(state)}
        proposed = propose(
            self.search.space,
            self.search.sampler,
            known,
            self.search.objective,
            count,
            lambda point: self._config_id(point) in taken or not self.allows(point),
            self.search.terms,
            self._compared(state),
        )
        return [self._new(point) for point in proposed]

    def _new(self, point: Point) -> DeclaredRun:
        declared = self.search.run(point, 0, self._data, self._model)
        check_found_again(self.search.space, self.search.base, point, declared.run.configuration)
        return declared

    def _expected(self, state: State) -> Mapping[str, float]:
        """What the points are expected to come to, reckoned anew once the ledger knows more.

        By their first seeds alone, so that the further ones change nobody's place.
        """
        known = [each.first for each in self._history.known(state)]
        compared = self._compared(state)
        key = [(run.run_id, run.status, run.step) for each in known for run in each.runs]
        if key != self._foreseen[0]:
            search = self.search
            found = expected(search.space, search.sampler, known, search.objective, search.terms, compared)
            self._foreseen = (key, found)
        return self._foreseen[1]

    def _config_id(self, point: Point) -> str:
        return self.search.run(point, 0, self._data, self._model).run.config_id

    def all_tried(self, state: State) -> bool:
        """Whether every point has come as far as is wanted of it, so that the finalists are known."""
        return self._tried_all(state, self.aims(state))

    def _tried_all(self, state: State, aims: Aims) -> bool:
        """Whether every point of the budget has come as far as is wanted of it."""
        listed = self.listed(state)
        left_out = state.left_out(self._driver)
        full = self.exhausted or self.tried(state) >= self.search.budget.points
        return full and all(
            run_id in left_out or reached(state.runs.get(run_id), aims.targets[run_id])
            for run_id in (each.run.run_id for each in listed)
        )


def _aims(lengths: Mapping[str, int], wanted: Mapping[str, int]) -> Aims:
    """The targets with the full length where nothing else is wanted."""
    early = frozenset(run_id for run_id, step in wanted.items() if step < lengths[run_id])
    return Aims({**lengths, **wanted}, early)
