"""A sweep as an Optuna study, for optuna-dashboard and whatever else reads one: made from the ledger.

Each point of the sweep is one trial, its replicates by their mean. The samplers' own study is another
(`sweeps/search/study.py`): it tells what was stopped in the state from which a sampler learns, this one as a
person expects to see it.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from analysis.ranking import cost, value
from analysis.store import RunState, State, StoreError, driver_alive
from analysis.store.files import whole_name

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

MADE_FROM = "made from the results in"
"""The attribute of a study that this program has written, and may replace."""


def store_study(results: str | Path, state: State, sweep: str, storage: str) -> Counter[str]:
    """Writes the sweep's study into a storage of Optuna's, in place of the one it has of it.

    Args:
        storage: `sqlite:///study.db`, or whatever URL Optuna takes.

    Returns:
        How many trials there are by their state.

    Raises:
        StoreError: no such sweep, a storage that cannot be, or a study of this name that is somebody's own.
    """
    import optuna

    held = {run.driver for run in state.runs_of(sweep) if run.driver is not None}
    trials = trials_of(state, sweep, {driver for driver in held if driver_alive(results, driver)})
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    opened = _opened(storage)
    if sweep in optuna.get_all_study_names(opened):
        if MADE_FROM not in optuna.load_study(study_name=sweep, storage=opened).user_attrs:
            raise StoreError(
                f"--storage {storage}: has a study {sweep!r} that was not made from a ledger; give another"
            )
        optuna.delete_study(study_name=sweep, storage=opened)
    declared = state.sweep(sweep)
    against = declared.declaration.get("against")
    directions: list[Literal["maximize", "minimize"]] = ["maximize"]
    if against:
        directions.append("minimize")
    study = optuna.create_study(study_name=sweep, storage=opened, directions=directions)
    study.set_user_attr(MADE_FROM, whole_name(results))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([str(declared.objective or "score"), *([against] if against else [])])
    study.add_trials(trials)
    return Counter(trial.state.name.lower() for trial in trials)


def _opened(storage: str) -> BaseStorage:
    """Optuna's storage at this URL; each database has errors of its own for one that cannot be."""
    import optuna

    try:
        return optuna.storages.get_storage(storage)
    except Exception as error:
        said = str(error).splitlines()[0]
        raise StoreError(f"--storage {storage}: expected a URL such as sqlite:///study.db; {said}") from error


def trials_of(state: State, sweep: str, living: Collection[str]) -> list[FrozenTrial]:
    """The points of a sweep as trials, in the order of their first begin.

    Args:
        living: the drivers that live; what another holds is not running.
    """
    declared = state.sweep(sweep)
    groups: dict[str, list[RunState]] = {}
    for run in state.runs_of(sweep):
        groups.setdefault(run.config_id, []).append(run)
    points = [dict(declared.points[runs[0].run_id]) for runs in groups.values()]
    known = distributions(declared.declaration.get("axes") or {}, points)
    objective, against = str(declared.objective or "score"), declared.declaration.get("against")
    return [
        _trial(point, known, runs, objective, against, living)
        for point, runs in zip(points, groups.values(), strict=True)
    ]


def distribution(parameter: Mapping[str, Any], told: Callable[[Any], Any]) -> BaseDistribution:
    """A declared parameter as Optuna has it: `choices`, or `low` and `high` with `log` or `step`.

    Args:
        told: how a choice is told, which Optuna wants to be text, a number, a truth value or null.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.get("choices") is not None:
        return CategoricalDistribution([told(choice) for choice in parameter["choices"]])
    low, high, step = parameter["low"], parameter["high"], parameter.get("step")
    log = bool(parameter.get("log"))
    if all(isinstance(each, int) for each in (low, high, step) if each is not None):
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(float(low), float(high), log=log, step=step)


def curve(runs: Iterable[RunState]) -> dict[int, float]:
    """The mean of the replicates' scores by step, where there are any."""
    by_step: dict[int, list[float]] = {}
    for run in runs:
        for step, score in run.scores:
            if score is not None:
                by_step.setdefault(step, []).append(score)
    return {step: fmean(scores) for step, scores in by_step.items()}


def _trial(
    point: Mapping[str, Any],
    known: Mapping[str, BaseDistribution],
    runs: Sequence[RunState],
    objective: str,
    against: str | None,
    living: Collection[str],
) -> FrozenTrial:
    from optuna.trial import create_trial

    values = _values(runs, objective, against)
    state = _state(runs, bool(values), living)
    made = create_trial(
        state=state,
        values=[fmean(each) for each in zip(*values, strict=True)] or None,
        params={name: shown(each) for name, each in point.items()},
        distributions={name: known[name] for name in point},
        intermediate_values=curve(runs) if objective == "score" and against is None else {},
        user_attrs=_attributes(runs, living),
    )
    begun = [run.begun for run in runs if run.begun is not None]
    made.datetime_start = datetime.fromtimestamp(min(begun)) if begun else None
    if state.is_finished():
        made.datetime_complete = datetime.fromtimestamp(max(run.ending.time for run in runs if run.ending))
    return made


def _values(runs: Sequence[RunState], objective: str, against: str | None) -> list[list[float]]:
    """Of each completed run the objective, and what it is weighed against, where all is known."""
    found = ([value(run, objective), *([cost(run, against)] if against else [])] for run in runs)
    return [[each for each in one if each is not None] for one in found if None not in one]


def _state(runs: Sequence[RunState], valued: bool, living: Collection[str]) -> TrialState:
    """Complete where any replicate has a value, failed where no other came to anything."""
    from optuna.trial import TrialState

    statuses = {_status(run, living) for run in runs}
    if valued:
        return TrialState.COMPLETE
    if "running" in statuses:
        return TrialState.RUNNING
    if statuses & {"stopped", "diverged"}:
        return TrialState.PRUNED
    return TrialState.FAIL if statuses <= {"failed", "completed"} else TrialState.WAITING


def _status(run: RunState, living: Collection[str]) -> str:
    if run.status == "running" and run.driver not in living:
        return "interrupted"
    return run.status or "waiting"


def _attributes(runs: Sequence[RunState], living: Collection[str]) -> dict[str, Any]:
    ended = next((run.ended for run in runs if run.ended and run.ended.get("trainable") is not None), None)
    return {
        "config_id": runs[0].config_id,
        "run_ids": [run.run_id for run in runs],
        "status": {run.run_id: _status(run, living) for run in runs},
        "seconds": round(sum(run.seconds for run in runs), 3),
        "trainable": None if ended is None else ended["trainable"],
    }


def distributions(
    axes: Mapping[str, Any], points: Sequence[Mapping[str, Any]]
) -> dict[str, BaseDistribution]:
    """Each axis as declared, and wide enough for points of an earlier declaration of the same name."""
    seen: dict[str, list[Any]] = {}
    for point in points:
        for name, each in point.items():
            seen.setdefault(name, []).append(each)
    return {name: distribution(_widened(axes.get(name, []), values), shown) for name, values in seen.items()}


def _widened(axis: Any, values: Sequence[Any]) -> dict[str, Any]:
    numbers = [each for each in values if isinstance(each, (int, float)) and not isinstance(each, bool)]
    if isinstance(axis, Mapping) and axis.get("choices") is None and len(numbers) == len(values):
        known = distribution(axis, shown)
        if all(known._contains(known.to_internal_repr(each)) for each in numbers):
            return dict(axis)
        low, high = min(axis["low"], *numbers), max(axis["high"], *numbers)
        if not all(float(each).is_integer() for each in numbers):
            low, high = float(low), float(high)
        return {"low": low, "high": high, "log": bool(axis.get("log")) and low > 0}
    declared = axis.get("choices") or () if isinstance(axis, Mapping) else axis
    return {"choices": list({_text(each): each for each in (*declared, *values)}.values())}


def shown(choice: Any) -> Any:
    """A choice as Optuna takes it and a person reads it."""
    return choice if choice is None or isinstance(choice, (bool, int, float, str)) else _text(choice)


def _text(choice: Any) -> str:
    return json.dumps(choice, sort_keys=True, ensure_ascii=False)
