"""What a sampler is told of a point, and what stands for what is not known of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from optuna.trial import TrialState

    from sweeps.search.terms import Terms

UNKNOWN = math.inf
"""How far a point is from keeping a constraint whose value it never had."""


@dataclass(frozen=True)
class Lesson:
    """How a point stands in a study.

    Attributes:
        values: the objective's, and what it cost where that is weighed; none for the worst of all.
        excesses: by how much each constraint is broken; 0 or less where it is kept.
    """

    kind: Literal["complete", "cut", "running"]
    values: tuple[float, ...] = ()
    excesses: Mapping[str, float] = field(default_factory=dict)

    @property
    def trial_state(self) -> TrialState:
        """As Optuna has it."""
        from optuna.trial import TrialState

        states = {
            "complete": TrialState.COMPLETE,
            "cut": TrialState.PRUNED,
            "running": TrialState.RUNNING,
        }
        return states[self.kind]


def told_worst(lessons: Sequence[Lesson], terms: Terms) -> list[Lesson]:
    """The lessons with the worst value of all, and the furthest excess, where they have none of their own.

    The lowest score and the highest cost; 0 and 1 where nothing is known yet.
    """
    known = [each.values for each in lessons if each.values]
    worst: tuple[float, ...] = (min((values[0] for values in known), default=0.0),)
    if terms.against:
        worst = (*worst, max((values[1] for values in known), default=1.0))
    furthest = {each.text: 1.0 for each in terms.constraints}
    for each in lessons:
        for text, excess in each.excesses.items():
            furthest[text] = max(furthest[text], excess) if excess < UNKNOWN else furthest[text]
    return [
        replace(
            each,
            values=each.values or worst,
            excesses={text: min(excess, furthest[text]) for text, excess in each.excesses.items()},
        )
        if each.kind == "complete"
        else each
        for each in lessons
    ]
