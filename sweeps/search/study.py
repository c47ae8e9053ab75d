"""Optuna's study as a pure function of the ledger: what every comparable run has shown, and what comes next.

A told trial cannot be reopened, and FAIL does not steer a sampler: so the study is built anew whenever the
ledger changes, and every run enters it in the state from which the chosen sampler learns.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import is_not
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from analysis.ranking import value
from analysis.store.state import RunState, State
from mtbert.configuration import parse
from mtbert.run import METHOD_VERSION, digest
from mtbert.schema import ConfigError, constrained
from sweeps.search.evolution import cma_es
from sweeps.search.lessons import UNKNOWN, Lesson, told_worst
from sweeps.search.points import point_of
from sweeps.search.space import Point, Space, distributions, suggest, told
from sweeps.search.terms import PLAIN, Terms

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

    from sweeps.search.settled import Settled

Answer = TypeVar("Answer")
SamplerName = Literal["kriging", "tpe", "gp", "cma_es", "quasi_random", "random", "nsga2"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
LEARNS_FROM_PRUNED = ("kriging", "tpe")
"""The others read complete trials alone: stopped and diverged runs are told to them as the worst."""
READS_CONSTRAINTS = ("kriging", "tpe", "gp", "nsga2")
"""To the others a point that breaks a constraint is told as the worst."""
WEIGHS: tuple[SamplerName, ...] = ("kriging", "tpe", "gp", "quasi_random", "random", "nsga2")
"""Samplers that take a second objective."""
POPULATION = 20
"""Of a generation of NSGA-II: Optuna's 50 is more than many a search's budget."""
ASKED_AGAIN = 200
CHANCES = 1000
"""After so many proposals of no use, of the sampler's and then of chance, the space counts as exhausted."""


@dataclass(frozen=True)
class Sampler:
    """Kriging, or Optuna's sampler of that name; seeded, so that one ledger gives one proposal.

    Raises:
        ConfigError: an unknown name.
    """

    name: SamplerName = "kriging"
    seed: int = constrained(0, at_least=0)

    def __post_init__(self) -> None:
        if self.name not in SAMPLERS:
            raise ConfigError(f"sampler: expected one of {', '.join(SAMPLERS)}, got {self.name!r}")

    def made(self, space: Space, trials: int) -> BaseSampler:
        """The sampler that proposes points of a space after so many trials."""
        from optuna import samplers

        seed = int(digest([self.name, self.seed, trials])[:8], 16)
        if self.name == "kriging":
            from sweeps.search.kriging import Kriging

            return Kriging(space, seed)
        if self.name == "tpe":
            return samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        if self.name == "gp":
            return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        if self.name == "cma_es":
            return cma_es(seed)
        if self.name == "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
        if self.name == "random":
            return samplers.RandomSampler(seed=seed)
        return _quasi_random(self.seed, seed)


def _quasi_random(sequence: int, independent: int) -> BaseSampler:
    """Sobol's sequence, scrambled: its place in it, which Optuna keeps in the study, counts the trials."""
    from optuna import samplers

    class QuasiRandom(samplers.QMCSampler):
        def _find_sample_id(self, study: Study, *_: Any) -> int:
            return len(study.get_trials(deepcopy=False)) - 1

    return QuasiRandom(
        scramble=True,
        seed=sequence,
        independent_sampler=samplers.RandomSampler(seed=independent),
        warn_independent_sampling=False,
    )


@dataclass(frozen=True)
class Known:
    """A configuration of the space with all its begun runs: replicates are one point.

    `kept` holds the last answers of what is a function of the point, its runs, and a question.
    """

    point: Point
    runs: tuple[RunState, ...]
    kept: dict[str, tuple[Any, Any]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def config_id(self) -> str:
        return self.runs[0].config_id

    @property
    def broken(self) -> bool:
        """Whether some run came to nothing."""
        return any(run.status in ("diverged", "failed") for run in self.runs)

    @property
    def first(self) -> Known:
        """The point with the run of its lowest seed alone."""
        if len(self.runs) == 1:
            return self
        return self.once("first", None, lambda: Known(self.point, (min(self.runs, key=_seed),)))

    def once(self, name: str, question: Any, answer: Callable[[], Answer]) -> Answer:
        """The answer to a question, found again only where the last one was another."""
        if name not in self.kept or self.kept[name][0] != question:
            self.kept[name] = question, answer()
        found: Answer = self.kept[name][1]
        return found

    def outcome(self, objective: str) -> Outcome:
        """What a sampler may learn of it."""
        completed = [run for run in self.runs if run.status == "completed"]
        values = [value(run, objective) for run in completed]
        finite = [each for each in values if each is not None]
        if completed and not self.broken and len(finite) == len(values):
            return Outcome("complete", fmean(finite))
        if completed:
            return Outcome("worst")  # the score is undefined, or some replicates came to nothing
        if self.broken or all(run.status == "stopped" for run in self.runs):
            return Outcome("cut")
        return Outcome("running")


@dataclass(frozen=True)
class Outcome:
    """complete, with a value; worst: complete, but of no finite value; cut: stopped or diverged; running."""

    kind: Literal["complete", "worst", "cut", "running"]
    value: float | None = None


class History:
    """The points of a space that a results folder knows; each configuration is looked at once.

    Comparable are runs on the same data and base model, by the same method, whose configuration stands in
    the space and is as the base has it elsewhere; whoever trained them, in whichever sweep.
    """

    def __init__(self, space: Space, base: Mapping[str, Any], data: str, model: str) -> None:
        self._space, self._base = space, base
        self._same = {"data": data, "model": model, "method_version": METHOD_VERSION}
        self._points: dict[str, dict[str, Any] | None] = {}
        self._seen: dict[str, Known] = {}

    def known(self, state: State) -> list[Known]:
        """The points with a begun run, in the order of their first begin."""
        groups: dict[str, list[RunState]] = {}
        for run in state.runs.values():
            if run.attempt and self.point(run) is not None:
                groups.setdefault(run.config_id, []).append(run)
        found = [self._of(config_id, runs) for config_id, runs in groups.items()]
        return sorted(found, key=lambda each: _begun(each.runs[0]))

    def _of(self, config_id: str, runs: list[RunState]) -> Known:
        """The point of these runs: the same object while they are, which the ledger keeps where it can."""
        runs = sorted(runs, key=_begun)
        seen = self._seen.get(config_id)
        if seen is None or len(seen.runs) != len(runs) or any(map(is_not, seen.runs, runs)):
            seen = self._seen[config_id] = Known(self._points[config_id] or {}, tuple(runs))
        return seen

    def point(self, run: RunState) -> dict[str, Any] | None:
        """Where a run stands in the space; None where it is not comparable."""
        if run.config_id not in self._points:
            self._points[run.config_id] = self._read(run)
        return self._points[run.config_id]

    def _read(self, run: RunState) -> dict[str, Any] | None:
        if any(run.run.get(name) != expected for name, expected in self._same.items()):
            return None
        try:
            configuration = parse(run.run["configuration"])
        except ConfigError:  # written by a program that knew other fields
            return None
        return point_of(self._space, self._base, configuration)


def trials(
    space: Space,
    sampler: SamplerName,
    known: Sequence[Known],
    objective: str,
    terms: Terms = PLAIN,
    compared: frozenset[int] | None = None,
) -> list[Settled]:
    """The points as the sampler is to be told of them, in their order.

    Args:
        compared: the steps whose evaluations are told, beside those at the ends; all where None.
    """
    asked = (sampler, objective, terms, compared)
    lessons = [each.once("lesson", asked, partial(_lesson, each, *asked)) for each in known]
    complete = 0
    made = []
    for point, lesson in zip(known, told_worst(lessons, terms), strict=True):
        generation = complete // POPULATION if sampler == "nsga2" else None
        question = (space, lesson, sampler, compared, generation)
        made.append(point.once("trial", question, partial(_trial, point, *question)))
        complete += lesson.kind == "complete"
    return made


def _trial(
    known: Known,
    space: Space,
    lesson: Lesson,
    sampler: SamplerName,
    compared: frozenset[int] | None,
    generation: int | None,
) -> Settled:
    from optuna.samplers import NSGAIISampler
    from optuna.trial import create_trial

    from sweeps.search.settled import Settled

    attributes = {} if generation is None else {NSGAIISampler._get_generation_key(): generation}
    trial = create_trial(
        state=lesson.trial_state,
        values=lesson.values or None,
        params=told(space, known.point),
        distributions=distributions(space, known.point),
        intermediate_values={} if lesson.kind == "running" else _shown(sampler, known, compared),
        system_attrs=attributes,
        constraints=dict(lesson.excesses),
    )
    return Settled.of(trial)


def _lesson(
    known: Known, sampler: SamplerName, objective: str, terms: Terms, compared: frozenset[int] | None
) -> Lesson:
    outcome = known.outcome(objective)
    prunes = sampler in LEARNS_FROM_PRUNED and terms.against is None
    if outcome.kind == "running" and not (prunes and _shown(sampler, known, compared)):
        return Lesson("running")
    if outcome.kind in ("cut", "running") and prunes:
        return Lesson("cut")  # also while it goes on: an open trial counts as bad, and the best are open
    costs = [terms.cost(known.runs)] if terms.against else []
    found = [outcome.value, *costs]
    values = tuple(each for each in found if each is not None)
    excesses = terms.excesses(known.runs)
    if len(values) < len(found):  # of no finite value, or cut
        return Lesson("complete", (), dict.fromkeys(excesses, UNKNOWN))
    told_as_it_is = sampler in READS_CONSTRAINTS or all(each <= 0 for each in excesses.values())
    return Lesson("complete", values if told_as_it_is else (), excesses)


def _shown(sampler: SamplerName, known: Known, compared: frozenset[int] | None) -> dict[int, float]:
    """The mean of the replicates' scores by step, for a sampler that learns from such.

    Kriging learns what a rung says of the end: what broke has none that its rungs could speak of.
    """
    if sampler not in LEARNS_FROM_PRUNED or (sampler == "kriging" and known.broken):
        return {}
    by_step: dict[int, list[float]] = {}
    for run in known.runs:
        for step, score in run.scores:
            at_end = run.status == "completed" and step == run.step
            told_of = compared is None or step in compared or at_end
            if told_of and score is not None and math.isfinite(score):
                by_step.setdefault(step, []).append(score)
    return {step: fmean(scores) for step, scores in by_step.items()}


def propose(
    space: Space,
    sampler: Sampler,
    known: Sequence[Known],
    objective: str,
    count: int,
    taken: Callable[[Point], bool],
    terms: Terms = PLAIN,
    compared: frozenset[int] | None = None,
) -> list[dict[str, Any]]:
    """The next points, which nobody has taken yet; fewer than `count` where nothing new comes.

    A point that is taken stays open in this study, so that the sampler turns to others; where it has settled
    on what is taken, chance takes over.
    """
    told_trials = trials(space, sampler.name, known, objective, terms, compared)
    found: list[dict[str, Any]] = []
    for asked, times in ((sampler, ASKED_AGAIN), (Sampler("random", sampler.seed), CHANCES)):
        study = _study(space, asked, told_trials, terms)
        for _ in range(times):
            if len(found) == count:
                return found
            point = suggest(space, study.ask())
            if not taken(point) and point not in found:
                found.append(point)
    return found


def expected(
    space: Space,
    sampler: Sampler,
    known: Sequence[Known],
    objective: str,
    terms: Terms,
    compared: frozenset[int],
) -> dict[str, float]:
    """What each configuration is expected to come to at its end, on a scale of the sampler's own.

    Nothing where the sampler expects nothing: kriging alone has a model of that.
    """
    if sampler.name != "kriging":
        return {}
    from sweeps.search.kriging import Kriging

    told_trials = trials(space, sampler.name, known, objective, terms, compared)
    pairs = zip(known, told_trials, strict=True)
    begun = [(each.config_id, trial) for each, trial in pairs if trial.state.name != "RUNNING"]
    values = Kriging(space, sampler.seed).expected([trial for _, trial in begun])
    return {config_id: float(each) for (config_id, _), each in zip(begun, values, strict=False)}


def _study(space: Space, sampler: Sampler, told_trials: Sequence[Settled], terms: Terms) -> Study:
    import optuna
    from optuna.study import StudyDirection

    from sweeps.search.settled import settled_study

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = [StudyDirection.MAXIMIZE]
    if terms.against:
        directions.append(StudyDirection.MINIMIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return settled_study(told_trials, directions, sampler.made(space, len(told_trials)))


def _seed(run: RunState) -> int:
    return run.seed


def _begun(run: RunState) -> tuple[float, str]:
    return (float("inf") if run.begun is None else run.begun, run.run_id)
