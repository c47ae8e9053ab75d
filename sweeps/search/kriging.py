"""Kriging as a sampler: a Gaussian process over the ranks of what is known says where to look next.

Ranks, because they are what every outcome has: how badly a run diverged says nothing. A run that was stopped
is ranked at each rung among those seen there (`fidelity.py`); how far a run had come is one more coordinate,
so that the length scale along it, learnt as all others are, says how much a rung tells of the end. Runs in
flight count as if they had come to what is expected of them (kriging believer, Ginsbourger et al. 2010), so
that eight workers are sent to eight places.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.special import ndtr

from sweeps.search.coding import Coding, Rows
from sweeps.search.fidelity import END, Seen, seen
from sweeps.search.space import Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

Values = NDArray[np.float64]
STARTUP = 8
"""Points that have come to something before a process is fitted; until then, far from all others."""
DRAWN, STARTS, CLIMBED, CLIMBS = 300, 3, 2, 3
"""Candidates drawn at random, varied from the best known, and then from the best candidates, so often."""
FITTED = 15
"""Steps of L-BFGS at most."""
REMEMBERED, TELLING = 1000, 300
"""Points that a process holds, and that its length scales are fitted to: of more, the latest and the best."""
JITTER = 1e-10


class Kriging(TPESampler):
    """Proposes the point of the greatest expected improvement in rank; with two objectives, TPE proposes."""

    def __init__(self, space: Space, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(seed=seed, multivariate=True, group=True)
        self._coding, self._random = Coding(space), np.random.default_rng(seed)
        self._processes: dict[tuple[int, ...], Process] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters, asked or not."""
        if len(study.directions) > 1:
            return super().infer_relative_search_space(study, trial)
        return self._coding.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point that no trial of the study has."""
        if len(study.directions) > 1:
            return super().sample_relative(study, trial, search_space)
        trials = [each for each in study.get_trials(deepcopy=False) if each.number != trial.number]
        ended = [each for each in trials if each.state != TrialState.RUNNING]
        flying = [each for each in trials if each.state == TrialState.RUNNING]
        known, open_ = (self._coding.read([each.params for each in some]) for some in (ended, flying))
        if len(ended) < STARTUP:
            return self._coding.told(self._far(np.concatenate([known, open_])))
        shown = seen(ended, study.direction)
        row = self._best(known, self._beside(known, open_), shown, tuple(each.number for each in ended))
        return self._coding.told(row)

    def _beside(self, known: Rows, open_: Rows) -> Rows:
        """What is open and not known, each once: where a space is exhausted, known points are asked again."""
        found = dict(zip(self._coding.keys(open_), open_, strict=True))
        for key in self._coding.keys(known):
            found.pop(key, None)
        return np.array([*found.values()]).reshape(-1, known.shape[1])

    def _far(self, taken: Rows) -> Rows:
        """Of some points at random, the one that is the furthest from those taken."""
        drawn = self._coding.drawn(self._random, DRAWN)
        if not len(taken):
            return drawn[:1].ravel()
        return np.asarray(drawn[self._coding.apart(drawn, taken).min(axis=1).argmax()])

    def _best(self, known: Rows, open_: Rows, shown: Seen, numbers: tuple[int, ...]) -> Rows:
        """Where the expected improvement is the greatest, among points drawn and climbed to."""
        if numbers not in self._processes:
            self._processes[numbers] = self._fitted(known, shown)
        process = self._processes[numbers]
        expected = process.mean(self._at_end(known, process))
        threshold = expected.max()
        if len(open_):
            process = process.believing(self._at_end(open_, process))
        taken = set(self._coding.keys(np.concatenate([known, open_])))

        def gains(rows: Rows) -> Values:
            found = process.log_improvement(self._at_end(rows, process), threshold)
            found[[key in taken for key in self._coding.keys(rows)]] = -np.inf
            return found

        starts = known[np.argsort(-expected, kind="stable")[:STARTS]]
        rows = self._coding.drawn(self._random, DRAWN)
        rows = np.concatenate([rows, self._coding.varied(self._random, starts)])
        gain = gains(rows)
        for _ in range(CLIMBS):
            top = np.argsort(-gain, kind="stable")[:CLIMBED]
            near = self._coding.varied(self._random, rows[top])
            rows, gain = np.concatenate([rows[top], near]), np.concatenate([gain[top], gains(near)])
        return np.asarray(rows[gain.argmax()])

    def expected(self, ended: Sequence[FrozenTrial]) -> Values:
        """What each is expected to come to at its end, as a normal score; none of them while they are few."""
        if len(ended) < STARTUP:
            return np.zeros(0)
        known = self._coding.read([each.params for each in ended])
        process = self._fitted(known, seen(ended, StudyDirection.MAXIMIZE))
        return process.mean(self._at_end(known, process))

    def _fitted(self, known: Rows, shown: Seen) -> Process:
        """The process over points, and over lengths where some were stopped."""
        features, axis = self._coding.features(known)[shown.trial], self._coding.axis
        if shown.length.min() < END:
            features = np.column_stack([features, shown.length])
            axis = np.append(axis, axis.max(initial=-1) + 1)
        held = foremost(shown, len(known), REMEMBERED)
        telling = foremost(shown, len(known), TELLING)[held]
        return Process.fitted(features[held], axis, shown.value[held], telling)

    def _at_end(self, rows: Rows, process: Process) -> Values:
        """The features of points that have come to their ends."""
        features = self._coding.features(rows)
        lengths = np.full((len(rows), process.points.shape[1] - features.shape[1]), END)
        return np.column_stack([features, lengths])


def foremost(shown: Seen, points: int, most: int) -> NDArray[np.bool_]:
    """The rows of so many points at most: half of them the latest, and the best of the others."""
    best = np.full(points, -np.inf)
    np.maximum.at(best, shown.trial, shown.value)
    best[points - min(most // 2, points) :] = np.inf
    chosen = np.zeros(points, dtype=bool)
    chosen[np.argsort(-best, kind="stable")[:most]] = True
    return np.asarray(chosen[shown.trial])


@dataclass(frozen=True)
class Process:
    """A Gaussian process of mean 0 and variance 1 with a Matérn-5/2 kernel, one length scale a parameter.

    Its length scales and its noise are the likeliest under the priors of Hvarfner et al. (2024), whose
    length scales grow with the number of parameters.

    Attributes:
        scale: of each feature, one over its parameter's length scale.
        noise: its variance.
        points: scaled features. # [points, features]
        values: what they came to. # [points]
    """

    scale: Values
    noise: float
    points: Values
    values: Values
    factor: Values  # lower, of the covariance
    weights: Values  # covariance⁻¹ values

    @classmethod
    def of(cls, scale: Values, noise: float, points: Values, values: Values) -> Process:
        """The process that has seen these points, already scaled."""
        covariance = _matern(cdist(points, points, "sqeuclidean"))[0]
        factor: Values = np.linalg.cholesky(covariance + (noise + JITTER) * np.eye(len(points))).astype(float)
        return cls(scale, noise, points, values, factor, cho_solve((factor, True), values))

    @classmethod
    def fitted(
        cls, features: Values, axis: NDArray[np.int64], values: Values, telling: NDArray[np.bool_]
    ) -> Process:
        """The process with the likeliest length scales and noise.

        Args:
            axis: each feature's parameter.
            telling: the points that they are to be the likeliest for.
        """
        count = int(axis.max(initial=-1)) + 1
        some = features[telling]
        apart = [squareform(pdist(some[:, axis == each], "sqeuclidean")).ravel() for each in range(count)]
        loss = _Loss(np.array(apart).reshape(count, -1), values[telling])
        bounds = [(-10.0, 8.0)] * count + [(-12.0, 1.0)]
        found = minimize(
            loss, loss.usual, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": FITTED}
        )
        weights = np.exp(found.x)
        scale = np.sqrt(weights[:count])[axis]
        return cls.of(scale, float(weights[count]), features * scale, values)

    def believing(self, features: Values) -> Process:
        """The process as if these points had come to what is expected of them."""
        points = np.concatenate([self.points, features * self.scale])
        values = np.concatenate([self.values, self.mean(features)])
        return self.of(self.scale, self.noise, points, values)

    def mean(self, features: Values) -> Values:
        """What is expected of the points."""
        return self._shared(features).T @ self.weights

    def log_improvement(self, features: Values, threshold: float) -> Values:
        """The logarithm of the expected improvement over the threshold (Ament et al. 2023)."""
        shared = self._shared(features)
        explained = (solve_triangular(self.factor, shared, lower=True) ** 2).sum(axis=0)
        deviation = np.sqrt(np.maximum(1 - explained, JITTER))
        z = (shared.T @ self.weights - threshold) / deviation
        near = np.maximum(z, -5.0)
        exact = np.log(np.exp(-near * near / 2) / np.sqrt(2 * np.pi) + near * ndtr(near))
        far = -z * z / 2 - np.log(2 * np.pi) / 2 - 2 * np.log(np.maximum(-z, 1.0))
        return np.asarray(np.where(z > -5, exact, far) + np.log(deviation))

    def _shared(self, features: Values) -> Values:  # [points, features' rows]
        return _matern(cdist(self.points, features * self.scale, "sqeuclidean"))[0]


class _Loss:
    """Minus the log posterior and its gradient, in the logs of 1 / length scale² and of the noise."""

    def __init__(self, apart: Values, values: Values) -> None:
        self._apart, self._values = apart, values  # [parameters, points²], [points]
        count = len(apart)
        mode = np.sqrt(2) + np.log(max(count, 1)) / 2 - 3  # of a log-normal of spread √3
        self.usual = np.append(np.full(count, -2 * mode), -4.0)
        self._spread = np.append(np.full(count, 2 * np.sqrt(3)), 1.0)

    def __call__(self, logs: Values) -> tuple[float, Values]:
        parameters, size = np.exp(logs), len(self._values)
        kernel, slope = _matern((parameters[:-1] @ self._apart).reshape(size, size))
        factor = np.linalg.cholesky(kernel + (parameters[-1] + JITTER) * np.eye(size))
        inverse = cho_solve((factor, True), np.eye(size))
        weights = inverse @ self._values
        pull = (inverse - np.outer(weights, weights)) / 2
        away = (logs - self.usual) / self._spread
        loss = self._values @ weights / 2 + np.log(np.diag(factor)).sum() + away @ away / 2
        slopes = np.append(self._apart @ (pull * slope).ravel(), np.trace(pull))
        return float(loss), parameters * slopes + away / self._spread


def _matern(squared: Values) -> tuple[Values, Values]:
    """Matérn 5/2 of squared distances, and its slope in them."""
    distance = np.sqrt(5 * squared)
    decay = np.exp(-distance)
    return (1 + distance + distance * distance / 3) * decay, -5 / 6 * (1 + distance) * decay
