"""NNI's regularised evolution over a space of ours. The only module that imports NNI; import it lazily.

The strategy draws from a random state of its own and from nothing else, so a study is resumed by replay: the same
strategy proposes the same architectures again, and those on file are answered from the file.
"""
# mypy: disable-error-code="misc"

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ftnas.errors import FtnasError, RunError
from ftnas.runtime import key_seed
from ftnas.search.candidates import Candidate, Score
from ftnas.search.journal import JsonLines
from ftnas.search.ledger import Ledger, demand_same
from ftnas.search.settings import ControllerSettings

try:
    import nni

    # Without this, importing nni.nas asks for pytorch-lightning.
    nni.set_default_framework("none")
    from nni.mutable import Categorical, MutableDict, SampleValidationError
    from nni.nas.execution import ExecutionEngine
    from nni.nas.execution.event import FinalMetricEvent, TrainingEndEvent
    from nni.nas.space import ExecutableModelSpace, ModelStatus
    from nni.nas.strategy import RegularizedEvolution
    from nni.nas.strategy.evolution import Individual
except ImportError as error:
    raise FtnasError(
        f'controller nni-evolution needs NNI, which cannot be imported ({error}): pip install "ftnas[nni]"'
    ) from None

MUTATION = 0.05
"""Of each decision; at least one decision in the mean."""

TOURNAMENT = 3
"""A parent is the best of a third of the population."""


def run_evolution(
    ledger: Ledger,
    settings: ControllerSettings,
    *,
    identity: Mapping[str, str | int | float | None],
    queue: list[tuple[str, dict[str, int]]],
    file: Path,
    seed: int,
    on_trial: Callable[[int, Candidate | None], None],
) -> None:
    """Fill ``ledger`` with the candidates that regularised evolution finds; ``run_study`` has the arguments.

    Only accuracy is maximised; FLOPs and parameters count by their limits. Over-limit samples are drawn again by
    the strategy and are no proposals.

    Raises:
        RunError: ``file`` belongs to another study or to another version of NNI.
    """
    proposals = _Proposals(ledger, settings, file=file, identity=identity, on_trial=on_trial)
    numpy_seed = key_seed(seed, "evolution") % 2**32
    with _quiet():
        strategy = RegularizedEvolution(
            population_size=settings.population_size,
            sample_size=-(-settings.population_size // TOURNAMENT),
            mutation_prob=max(MUTATION, 1 / len(ledger.space.decisions())),
            seed=numpy_seed,
        )
        strategy.initialize(_Space(ledger), _Engine(proposals))
        strategy.load_state_dict(_state_after(queue, proposals, numpy_seed))
        strategy.run()


class _Proposals:
    """Answers proposals: from the file as far as it goes, then by scoring them and adding them to the file."""

    def __init__(
        self,
        ledger: Ledger,
        settings: ControllerSettings,
        *,
        file: Path,
        identity: Mapping[str, str | int | float | None],
        on_trial: Callable[[int, Candidate | None], None],
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._on_trial = on_trial
        self._count = 0
        self._lines = JsonLines(file)
        if self._lines.rows:
            demand_same(file, found=self._lines.rows[0].get("fingerprint"), ours=identity)
        else:
            self._lines.append({"fingerprint": dict(identity)})
        self._recorded = self._lines.rows[1:]

    @property
    def wanted(self) -> bool:
        """Whether there is budget for another proposal."""
        enough = len(self._ledger.candidates) >= self._settings.trials
        return not enough and self._count < self._settings.max_proposals

    def accuracy(self, choices: Mapping[str, int], *, source: str) -> float:
        """Return the accuracy to maximise of the next proposal."""
        number = self._count
        recorded = self._recorded_score(number, choices)
        proposal = self._ledger.examine(choices)
        score, candidate = self._ledger.score(proposal, trial=number, source=source, recorded=recorded)
        if recorded is None:
            row = {"trial": number, "source": source, "choices": dict(choices)}
            self._lines.append(row | score.to_dict())
        self._count += 1
        self._on_trial(number, candidate)
        return self._settings.accuracy(score)

    def _recorded_score(self, number: int, choices: Mapping[str, int]) -> Score | None:
        """Return the score on file of that proposal; ``None`` past the end of the file."""
        if number >= len(self._recorded):
            return None
        row = self._recorded[number]
        if row.get("choices") != dict(choices):
            raise RunError(
                f"{self._lines.path}: proposal {number} is not the one that NNI {nni.__version__} makes; "
                "choose another run folder"
            )
        try:
            return Score.from_dict(row)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self._lines.path}: proposal {number} has no valid score ({error})") from None


class _Space(ExecutableModelSpace):
    """The space as NNI sees it: named categorical decisions, and the cost limits as a rule of validity."""

    def __init__(self, ledger: Ledger, sample: Mapping[str, int] | None = None) -> None:
        super().__init__(ModelStatus.Initialized if sample is None else ModelStatus.Frozen)
        self.evaluator = None
        self.sample = sample
        self._ledger = ledger
        options = {decision.name: list(range(decision.options)) for decision in ledger.space.decisions()}
        self._decisions = MutableDict({name: Categorical(o, label=name) for name, o in options.items()})

    def freeze(self, sample: dict[str, int]) -> _Space:
        """Return the one architecture that ``sample`` stands for."""
        self.validate(sample)
        return _Space(self._ledger, dict(sample))

    def check_contains(self, sample: dict[str, int]) -> SampleValidationError | None:
        """Return what is wrong with ``sample``; ``None`` if it is of the space and within the limits."""
        problem = self._decisions.check_contains(sample)
        if problem is None and not self._ledger.examine(sample).allowed:
            return SampleValidationError("over the cost limits")
        return problem

    def leaf_mutables(self, is_leaf: Callable[[Any], bool]) -> Iterator[Any]:
        """Yield the decisions."""
        yield from self._decisions.leaf_mutables(is_leaf)


class _Engine(ExecutionEngine):
    """Scores a submitted architecture at once, in this process; holds on to none of them."""

    def __init__(self, proposals: _Proposals) -> None:
        super().__init__()
        self._proposals = proposals

    def submit_models(self, *models: _Space) -> None:
        """Score each of ``models`` and tell the strategy."""
        for model in models:
            accuracy = self._proposals.accuracy(model.sample or {}, source="sampler")
            self.dispatch_model_event(FinalMetricEvent(model, accuracy))
            self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))

    def list_models(self, status: ModelStatus | None = None) -> list[_Space]:
        """Return the architectures under way: none, ever."""
        return []

    def idle_worker_available(self) -> bool:
        """Return whether an architecture can be scored now."""
        return True

    def budget_available(self) -> bool:
        """Return whether another architecture is wanted."""
        return self._proposals.wanted


def _state_after(queue: list[tuple[str, dict[str, int]]], proposals: _Proposals, seed: int) -> dict[str, Any]:
    """Score the first architectures and return the state of a strategy that found them itself."""
    population = []
    for source, choices in queue:
        if proposals.wanted:
            population.append(Individual(choices, proposals.accuracy(choices, source=source)))
    return {
        "population": population,
        "individual_counter": len(population),
        "random_state": np.random.RandomState(seed).get_state(),
        "dedup_history": [frozenset(individual.x.items()) for individual in population],
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNI, which prints every sample, from the user's terminal."""
    logger = logging.getLogger("nni")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
