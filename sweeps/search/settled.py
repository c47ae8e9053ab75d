"""A study of trials that are told and never written to: it takes them in as they are, without copies.

Optuna copies every trial that is added, with all that it holds, which at 1,000 trials is most of what a
proposal costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Settled(FrozenTrial):
    """A trial whose copies share what it holds; each has its own number in its own study."""

    @classmethod
    def of(cls, trial: FrozenTrial) -> Settled:
        """The trial as it stands."""
        settled = cls.__new__(cls)
        vars(settled).update(vars(trial))
        return settled

    def __deepcopy__(self, memo: dict[int, Any]) -> Settled:
        return Settled.of(self)


def settled_study(
    trials: Sequence[Settled], directions: Sequence[StudyDirection], sampler: BaseSampler
) -> optuna.Study:
    """A study in memory that has been told these trials, in their order."""
    storage = InMemoryStorage()
    name = "told"
    number = storage.create_new_study(directions, name)
    for trial in trials:
        storage.create_new_trial(number, trial)
    return optuna.load_study(study_name=name, storage=storage, sampler=sampler)
