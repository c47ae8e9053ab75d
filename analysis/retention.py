"""Which runs keep their weights when room is made."""

from __future__ import annotations

from collections.abc import Collection

from analysis.constraints import ranked_within
from analysis.ranking import objective, value
from analysis.store.errors import StoreError
from analysis.store.state import State


def kept_runs(state: State, best: int | None, labels: Collection[str]) -> set[str]:
    """The runs to be kept: of the best configurations all that have a value, and whatever is tagged.

    Args:
        best: how many configurations of each sweep, by its own objective and within its constraints, and of
            the runs of no sweep, by their score.
        labels: tags, of runs or of their sweeps.

    Raises:
        StoreError: nothing would be kept by it, or nobody has such a tag.
    """
    if best is None and not labels:
        raise StoreError("prune: expected --keep-best N, --keep-tag TAG or both, got neither")
    known = {label for each in state.labels.values() for label in each}
    for label in labels:
        if label not in known:
            raise StoreError(
                f"--keep-tag {label}: no run has it; known are {', '.join(sorted(known)) or 'none'}"
            )
    kept = {run_id for run_id, tags in state.labels.items() if set(tags) & set(labels)}
    for narrowed, sweep in (*((state, name) for name in state.sweeps), (_alone(state), None)):
        by = objective(narrowed, sweep)
        if best is not None and any(value(run, by) is not None for run in narrowed.runs_of(sweep)):
            kept.update(run_id for row in ranked_within(narrowed, sweep)[:best] for run_id in row.run_ids)
    return kept


def _alone(state: State) -> State:
    """The runs that belong to no sweep."""
    swept = {run_id for sweep in state.sweeps.values() for run_id in sweep.points}
    return State({run_id: run for run_id, run in state.runs.items() if run_id not in swept})
