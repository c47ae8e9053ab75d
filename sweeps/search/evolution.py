"""Optuna's CMA-ES over a study that is rebuilt from the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


def cma_es(seed: int) -> BaseSampler:
    """CMA-ES (Hansen 2016) whose distribution is what the complete trials, in their order, make of it.

    Optuna pickles the distribution into the trial that moved it, which no ledger has. Here it is moved anew
    for each proposal, by one generation of complete trials after the other, whoever proposed them: so it is
    a function of the study alone. It covers the numbers that all complete trials have; TPE proposes the
    choices, and the numbers that hang on them.
    """
    from optuna import samplers
    from optuna._transform import _SearchSpaceTransform

    class CmaEs(samplers.CmaEsSampler):
        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            self._asked = study, search_space
            return super().sample_relative(study, trial, search_space)

        def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
            study, space = self._asked
            transform = _SearchSpaceTransform(space, transform_0_1=True)
            optimizer = self._init_optimizer(transform, study.direction)
            size = optimizer.population_size
            for start in range(0, len(completed_trials) - size + 1, size):
                generation = completed_trials[start : start + size]
                optimizer.tell(
                    [(transform.transform(each.params), -(each.value or 0.0)) for each in generation]
                )
            return optimizer

    return CmaEs(
        seed=seed,
        independent_sampler=samplers.TPESampler(seed=seed),
        warn_independent_sampling=False,
    )
