"""What each value of each field did, and which pairs of fields do not merely add up.

Of grids, lists and ablations, by least squares over single runs (`least_squares.py`), with what a seed does
to all configurations alike taken off: so differences are paired by seeds, and the noise is pooled over all
configurations. One of a list or an ablation that scatters more than the others is judged by its own spread:
theirs would tell it apart by its noise. P values count within their family, all differences or all joint
effects (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import fdtrc

from analysis.factors import Factor, Result, factors_of_fields, factors_of_points
from analysis.least_squares import Fit, Model, indicators, level_row, noise_of
from analysis.ranking import check_metric, ended_runs, mean, objective, seconds, value
from analysis.stats import Estimate, Noise, holm, paired_difference
from analysis.store.errors import StoreError
from analysis.store.spread import identity
from analysis.store.state import RunState, State

SCATTERS = 0.2
"""A spread that chance makes as large less often than so counts as larger: too often rather than not."""


@dataclass(frozen=True)
class Effect:
    """One value of one field that differs.

    Attributes:
        along: the fields that change with it, everywhere: what each did cannot be told.
        value: null where the configurations have no such field (a probe has no rank).
        against: the value that this one is compared with; null for the first.
        configurations, runs: that have this value, and a result.
        without: ended runs that have it, and no result.
        mean: of the outcome, every other field at its average; null where that cannot be told.
        trainable, seconds: means over the runs.
        difference: of this value and the other; null where it cannot be told from other fields' effects. Its
            error is not a number where nothing shows the noise.
        own_spread: whether the difference is judged by the spread of its own pairs of runs.
        p: of no difference, as it counts among all differences.
    """

    field: str
    along: tuple[str, ...]
    value: Any
    against: Any
    configurations: int
    runs: int
    without: int
    mean: float | None
    trainable: float | None
    seconds: float | None
    difference: Estimate | None
    own_spread: bool = False
    p: float | None = None


@dataclass(frozen=True)
class Joint:
    """By how much a step of one field does more beside a step of another: what adding up would leave out."""

    fields: tuple[str, str]
    steps: tuple[tuple[Any, Any], tuple[Any, Any]]
    difference: Estimate
    p: float | None = None


@dataclass(frozen=True)
class Effects:
    """What differs between runs, and what it did.

    Attributes:
        kind: of the sweep; null for all runs.
        axes: the values of each field, those of the field that did the most first.
        noise: of single runs; null where nothing shows it.
        replicated: whether the noise is of seeds; else it is what the effects leave, joint ones included.
        seeds: that the runs have.
    """

    by: str
    kind: str | None
    axes: tuple[tuple[Effect, ...], ...]
    joint: tuple[Joint, ...]
    noise: Noise | None
    replicated: bool
    seeds: int


def effects_of(
    state: State, sweep: str | None = None, by: str | None = None, configurations: Sequence[str] = ()
) -> Effects:
    """The effects over the ended runs.

    Args:
        sweep, by: as for `ranked`.
        configurations: beginnings of the ids to compare; all for none.

    Raises:
        StoreError: as for `ranked`; a search; an id that is unknown or not of one configuration alone; none
            of the runs has a value.
    """
    kind = None if sweep is None else state.sweep(sweep).kind
    if kind == "search":
        raise StoreError(
            f"{sweep!r} is a search, whose points share too few values: `importance` says which axes matter, "
            "and sweeps/ablation.py --around it what each part of its winner brings"
        )
    runs = ended_runs(state, sweep)
    by = by or objective(state, sweep)
    check_metric(runs, by)
    chosen = _chosen(runs, configurations)
    runs = [run for run in runs if run.config_id in chosen]
    results = [_result(run, found) for run in runs if (found := value(run, by)) is not None]
    if not results:
        raise StoreError(f"none of these runs has a {by}: there is nothing to compare")
    named = kind in ("ablation", "list")
    if sweep is not None and named:
        factors = factors_of_points(state.sweep(sweep), results)
    else:
        factors = factors_of_fields(results)
    without = [run.run_id for run in runs if value(run, by) is None]
    return fitted(by, kind, factors, results, _lost(state, sweep, without) if named else {}, named)


def fitted(
    by: str,
    kind: str | None,
    factors: Sequence[Factor],
    results: Sequence[Result],
    lost: dict[str, int],
    named: bool,
) -> Effects:
    """The effects of factors over results.

    Args:
        lost: ended runs without a result, by the name that they have in the sweep.
        named: whether every value is compared with the first, or with the one before it.
    """
    values = np.array([result.value for result in results])
    seeds = sorted({result.seed for result in results})
    model = Model.of(factors, [seeds.index(result.seed) for result in results], len(seeds), values)
    labels = indicators([result.config_id for result in results])
    noise, replicated = noise_of(np.hstack([labels, model.seeds]), model.fit, values)
    axes = [
        tuple(_effect(model, at, level, results, noise, lost, named) for level in range(len(factor.levels)))
        for at, factor in enumerate(factors)
    ]
    axes = _corrected(axes)
    joint = _joint(model, values, noise if replicated else None) if not named else []
    if not named:
        axes.sort(key=_weight)
    return Effects(by, kind, tuple(axes), tuple(joint), noise, replicated, len(seeds))


def _effect(
    model: Model,
    at: int,
    level: int,
    results: Sequence[Result],
    noise: Noise | None,
    lost: dict[str, int],
    named: bool,
) -> Effect:
    factor = model.factors[at]
    other = None if level == 0 else 0 if named else level - 1
    contrast = None if other is None else model.row(at, level) - model.row(at, other)
    group = [result for result, each in zip(results, factor.of, strict=True) if each == level]
    difference = None if contrast is None else model.fit.estimate(contrast, noise)
    own = None
    if named and difference is not None:
        base = [result for result, each in zip(results, factor.of, strict=True) if each == 0]
        own = _of_own_pairs(group, base, difference)
    return Effect(
        field=factor.field,
        along=factor.along,
        value=factor.levels[level],
        against=None if other is None else factor.levels[other],
        configurations=len({result.config_id for result in group}),
        runs=len(group),
        without=lost.get(str(factor.levels[level]), 0),
        mean=model.mean(at, level),
        trainable=mean([result.trainable for result in group]),
        seconds=mean([result.seconds for result in group]),
        difference=own or difference,
        own_spread=own is not None,
    )


def _of_own_pairs(group: Sequence[Result], base: Sequence[Result], pooled: Estimate) -> Estimate | None:
    """The difference by the spread of its own pairs, where the pooled noise does not account for that."""
    own = paired_difference(
        {result.seed: result.value for result in group}, {result.seed: result.value for result in base}
    )
    if own is None or not pooled.error > 0:
        return None
    larger = fdtrc(own.freedom, pooled.freedom, (own.error / pooled.error) ** 2) < SCATTERS
    return own if larger else None


def _joint(model: Model, values: np.ndarray, noise: Noise | None) -> list[Joint]:
    """The joint effects of the pairs of factors of which every combination of values was seen.

    Args:
        noise: of replicates; where there are none, each pair's is what its own model leaves.
    """
    found: list[Joint] = []
    for one, other in combinations(range(len(model.factors)), 2):
        first, second = model.factors[one], model.factors[other]
        seen = {pair for pair in zip(first.of, second.of, strict=True) if None not in pair}
        if len(seen) < len(first.levels) * len(second.levels):
            continue
        blocks = model.blocks[one], model.blocks[other]
        products = (blocks[0][:, :, None] * blocks[1][:, None, :]).reshape(len(values), -1)
        fit = Fit.of(np.hstack([model.fit.design, products]), values)
        before = np.zeros(model.fit.design.shape[1])
        for at in range(1, len(first.levels)):
            for beside in range(1, len(second.levels)):
                row = np.kron(_step(at, first), _step(beside, second))
                difference = fit.estimate(np.concatenate([before, row]), noise or fit.noise)
                if difference is not None:
                    steps = first.levels[at - 1 : at + 1], second.levels[beside - 1 : beside + 1]
                    found.append(Joint((first.field, second.field), steps, difference))
    counted = _counted([each.difference for each in found])
    found = [replace(each, p=p) for each, p in zip(found, counted, strict=True)]
    return sorted(found, key=lambda each: -abs(each.difference.value))


def _step(level: int, factor: Factor) -> np.ndarray:
    step: np.ndarray = level_row(level, len(factor.levels)) - level_row(level - 1, len(factor.levels))
    return step


def _corrected(axes: Sequence[tuple[Effect, ...]]) -> list[tuple[Effect, ...]]:
    """The effects with their p values as they count among all of them."""
    counted = iter(_counted([each.difference for axis in axes for each in axis]))
    return [tuple(replace(each, p=next(counted)) for each in axis) for axis in axes]


def _counted(differences: Sequence[Estimate | None]) -> list[float | None]:
    p_values = [None if each is None else each.p for each in differences]
    counted = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(counted) for p in p_values]


def _weight(axis: Sequence[Effect]) -> float:
    return -max((abs(each.difference.value) for each in axis if each.difference is not None), default=0.0)


def _result(run: RunState, found: float) -> Result:
    fields = identity(run.run, run.settings)
    return Result(run.run_id, run.config_id, run.seed, fields, found, value(run, "trainable"), seconds(run))


def _lost(state: State, sweep: str | None, run_ids: Iterable[str]) -> dict[str, int]:
    """How many of these runs there are by the name that they have in a sweep of names."""
    counts: dict[str, int] = {}
    for run_id in run_ids:
        for name in {} if sweep is None else state.sweep(sweep).points[run_id].values():
            counts[str(name)] = counts.get(str(name), 0) + 1
    return counts


def _chosen(runs: Iterable[RunState], wanted: Sequence[str]) -> set[str]:
    known = {run.config_id for run in runs}
    chosen = set()
    for text in wanted:
        found = sorted(config_id for config_id in known if config_id.startswith(text))
        if len(found) != 1:
            shown = ", ".join(found or sorted(known)[:5])
            raise StoreError(
                f"expected the beginning of one configuration's id, got {text!r}, which fits {len(found)}; "
                f"{'these are' if found else 'known are'} {shown}"
            )
        chosen.add(found[0])
    return chosen or known
