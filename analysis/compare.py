"""What differs between configurations, and what each difference did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.ranking import check_metric, deviation, ended_runs, mean, objective, value
from analysis.store.errors import StoreError
from analysis.store.records import canonical
from analysis.store.spread import differing, identity
from analysis.store.state import RunState, State

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Effect:
    """One value of one field that differs.

    Attributes:
        along: the fields that change with it, everywhere: what each did cannot be told.
        value: null where the configurations have no such field (a probe has no rank).
        configurations, runs: that have this value, and a result.
        mean, std: over these runs, whatever else differs between them.
        against: the value that this one is compared with, the one before it; null for the first.
        pairs: pairs of runs, one with each value, of one seed and alike in all else.
        difference, spread: mean and sample standard deviation of this run minus that, over the pairs.
        better: in how many pairs this run's value is the higher.
    """

    field: str
    along: tuple[str, ...]
    value: Any
    configurations: int
    runs: int
    mean: float | None
    std: float | None
    against: Any
    pairs: int
    difference: float | None
    spread: float | None
    better: int


@dataclass(frozen=True)
class _Result:
    config_id: str
    seed: int
    fields: Fields
    value: float


def compared(
    state: State, sweep: str | None = None, by: str | None = None, configurations: Sequence[str] = ()
) -> list[Effect]:
    """The values of each field that differs, the fields with the largest paired differences first.

    Args:
        sweep, by: as for `ranked`.
        configurations: beginnings of the ids to compare; all for none.

    Raises:
        StoreError: as for `ranked`; an id that is unknown or not of one configuration alone.
    """
    runs = ended_runs(state, sweep)
    by = by or objective(state, sweep)
    check_metric(runs, by)
    chosen = _chosen(runs, configurations)
    results = [
        _Result(run.config_id, run.seed, identity(run.run, run.settings), found)
        for run in runs
        if run.config_id in chosen and (found := value(run, by)) is not None
    ]
    names = differing({result.config_id: result.fields for result in results}.values())
    effects = [_effects(together, names, results) for together in _together(names, results)]

    def weight(group: list[Effect]) -> float:
        return -max((abs(each.difference) for each in group if each.difference is not None), default=0.0)

    return [effect for group in sorted(effects, key=weight) for effect in group]


def _together(names: Sequence[str], results: Sequence[_Result]) -> list[list[str]]:
    """The fields in sets that split the runs in the same way."""
    sets: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        numbers: dict[str, int] = {}
        texts = [canonical(result.fields.get(name)) for result in results]
        split = tuple(numbers.setdefault(text, len(numbers)) for text in texts)
        sets.setdefault(split, []).append(name)
    return list(sets.values())


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


def _effects(together: Sequence[str], names: Sequence[str], results: Sequence[_Result]) -> list[Effect]:
    """A field's values, each against the one before it: the absent first, then as numbers or letters go."""
    groups: dict[str, list[_Result]] = {}
    for result in results:
        groups.setdefault(canonical(result.fields.get(together[0])), []).append(result)
    ordered = sorted(groups.values(), key=lambda group: _order(group[0].fields.get(together[0])))
    before = [None, *ordered]
    return [_effect(together, names, group, base) for group, base in zip(ordered, before, strict=False)]


def _effect(
    together: Sequence[str], names: Sequence[str], group: list[_Result], base: list[_Result] | None
) -> Effect:
    field, *along = together
    values = [result.value for result in group]
    differences = [] if base is None else _paired(together, names, group, base)
    return Effect(
        field=field,
        along=tuple(along),
        value=group[0].fields.get(field),
        configurations=len({result.config_id for result in group}),
        runs=len(group),
        mean=mean(values),
        std=deviation(values),
        against=None if base is None else base[0].fields.get(field),
        pairs=len(differences),
        difference=mean(differences),
        spread=deviation(differences),
        better=sum(difference > 0 for difference in differences),
    )


def _paired(
    together: Sequence[str], names: Sequence[str], group: list[_Result], base: list[_Result]
) -> list[float]:
    """This value minus the other, for each two runs of one seed that are alike but for these fields.

    Where one side lacks the field, so it lacks what comes with it: fields of the same place that it has
    none of are left aside (a probe is alike to every LoRA in all but its LoRA).
    """
    ignored = {*together, *_comes_with(together[0], names, group, base)}
    rest = [other for other in names if other not in ignored]

    def key(result: _Result) -> tuple[int, str]:
        return result.seed, canonical([result.fields.get(other) for other in rest])

    others: dict[tuple[int, str], list[float]] = {}
    for result in base:
        others.setdefault(key(result), []).append(result.value)
    return [result.value - other for result in group for other in others.get(key(result), ())]


def _comes_with(name: str, names: Sequence[str], group: list[_Result], base: list[_Result]) -> set[str]:
    """The fields of the same place that all runs of the side without the field lack."""
    lacking = next((side for side in (base, group) if side[0].fields.get(name) is None), None)
    if lacking is None:
        return set()
    place = name.split(".")[0] + "."
    return {
        other
        for other in names
        if other.startswith(place) and all(result.fields.get(other) is None for result in lacking)
    }


def _order(each: Any) -> tuple[int, float, str]:
    if each is None:
        return 0, 0.0, ""
    if isinstance(each, (int, float)):
        return 1, float(each), ""
    return 2, 0.0, str(each)
