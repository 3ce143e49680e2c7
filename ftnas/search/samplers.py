"""Optuna's samplers, made anew for every trial so that nothing of them has to be saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from ftnas.runtime import key_seed
from ftnas.search.settings import ControllerSettings
from ftnas.space import Decision

Builder = Callable[[int, int, bool], BaseSampler]
"""(population, seed, whether other trials wait for their scores) -> sampler"""

SAMPLERS: Mapping[str, Builder] = {
    "nsga2": lambda population, seed, _: NSGAIISampler(population_size=population, seed=seed),
    # Univariate TPE costs ten times as much. The liar keeps proposals away from those that wait for their scores.
    "tpe": lambda _, seed, others: TPESampler(multivariate=True, constant_liar=others, seed=seed),
    "gp": lambda _, seed, others: GPSampler(seed=seed),
    "random": lambda _, seed, others: RandomSampler(seed=seed),
}


RANDOM_AHEAD = 256
"""How many random proposals may wait for their scores: none depends on any, but each stands on the task board."""


def horizon(settings: ControllerSettings, told: int) -> int | None:
    """Return the first trial whose proposal could depend on scores other than those of the first ``told`` trials.

    Trials before it may be proposed at once, and are what they would have been one after another. NSGA-II draws a
    generation from the ones before it; ``None`` where each trial depends on the last.
    """
    if settings.sampler == "nsga2":
        return (told // settings.population_size + 1) * settings.population_size
    return told + RANDOM_AHEAD if settings.sampler == "random" else None


class KeyedSampler(BaseSampler):
    """The chosen sampler, whose proposals are a function of seed, trial number and the trials before.

    Each trial has a sampler of its own with a seed of its own. What a sampler otherwise carries from trial to trial
    is a cache: NSGA-II's generations are in the study, a Gaussian process is fitted from its prior again.
    """

    def __init__(self, settings: ControllerSettings, decisions: Sequence[Decision], *, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        self._inner: BaseSampler = RandomSampler()
        self._distributions: dict[str, BaseDistribution] = {
            d.name: CategoricalDistribution(range(d.options)) for d in decisions if d.options > 1
        }

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of ``trial``."""
        # NumPy's RandomState takes 32 bits.
        seed = key_seed(self._seed, "sampler", trial.number) % 2**32
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self._inner = SAMPLERS[self._settings.sampler](self._settings.population_size, seed, len(running) > 1)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all decisions: no trial lacks one, and comparing all trials takes 20 ms at the 200th."""
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the decisions that are made together; none of them in a sampler's first, random trials."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a decision that is made by itself."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Let the trial's sampler note the result."""
        self._inner.after_trial(study, trial, state, values)
