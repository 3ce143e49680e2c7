"""The study: which architectures are scored, in what order, and what is kept of them.

Accuracy is maximised and FLOPs are minimised, and so is a vulnerability factor if the settings name one. Proposals
over a limit are refused before anything is evaluated, and an architecture that was scored already, under any isomorphic
form, is answered from memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages.journal import JournalStorage
from optuna.trial import FrozenTrial, Trial

from ftnas.cost import Cost
from ftnas.errors import RunError
from ftnas.search.candidates import Candidate, Score
from ftnas.search.journal import MARK, TrialJournal
from ftnas.search.ledger import First, Ledger, Proposal, demand_same, fingerprint
from ftnas.search.samplers import KeyedSampler
from ftnas.search.settings import ControllerSettings, shortfall
from ftnas.space import Genotype, SearchSpace

__all__ = ["ControllerSettings", "check_controller", "run_study", "shortfall"]

STUDY = "ftnas"
Direction = Literal["maximize", "minimize"]
OBJECTIVES: Mapping[str, Direction] = {"accuracy": "maximize", "FLOPs": "minimize"}
VULNERABILITY: Mapping[str, Direction] = {"vulnerability": "minimize"}  # where the settings name a factor


def check_controller(settings: ControllerSettings) -> None:
    """Raise an ``FtnasError``, before any work, if the controller needs a package that is not installed."""
    if settings.controller == "nni-evolution":
        import ftnas.search.nni_evolution  # noqa: F401


def run_study(
    space: SearchSpace,
    *,
    evaluate: Callable[[Genotype], Score],
    cost: Callable[[Genotype], Cost],
    settings: ControllerSettings,
    first: First,
    journal: Path,
    seed: int,
    on_trial: Callable[[int, Candidate | None], None],
) -> list[Candidate]:
    """Score ``settings.trials`` different architectures, or go on with the study in ``journal``.

    A study that was stopped, however hard, goes on with the very proposals that it would have made without the
    stop, and scores nothing again but what was being scored just then. ``shortfall`` tells if fewer were found.

    Args:
        evaluate: scores a genotype; it must be a function of the genotype alone, or resuming is not exact.
        cost: the exact cost of a genotype, quickly.
        first: (source, genotype) of the first proposals; those over the limits are left out.
        journal: the study's file; NNI's controller writes ``proposals.jsonl`` beside it instead.
        on_trial: called after each trial, those of an earlier run included, with the trial's number and its
            candidate; ``None`` if it was refused or scored before.

    Returns:
        The distinct candidates, by first trial.

    Raises:
        RunError: the file is no study, or one of another space, seed or settings.
        SpaceError: not one proposal kept the limits.
    """
    ledger = Ledger(space, evaluate=evaluate, cost=cost, limits=settings.limits)
    identity = fingerprint(space, settings, first=first, seed=seed)
    queue = ledger.allowed_first(first)
    if settings.controller == "nni-evolution":
        from ftnas.search.nni_evolution import run_evolution

        file = journal.with_name("proposals.jsonl")
        run_evolution(ledger, settings, identity=identity, queue=queue, file=file, seed=seed, on_trial=on_trial)
    else:
        with quiet():
            _Study(ledger, settings, identity=identity, queue=queue, file=journal, seed=seed).run(on_trial)
    ledger.demand_any()
    return ledger.candidates


class _Study:
    """An Optuna study whose trials are the proposals."""

    def __init__(
        self,
        ledger: Ledger,
        settings: ControllerSettings,
        *,
        identity: Mapping[str, str | int | float | None],
        queue: list[tuple[str, dict[str, int]]],
        file: Path,
        seed: int,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._queue = queue
        self._objectives = OBJECTIVES if settings.vulnerability == "none" else {**OBJECTIVES, **VULNERABILITY}
        self._journal, self._study = open_study(file, identity, self._objectives)
        self._study.sampler = KeyedSampler(settings, ledger.space.decisions(), seed=seed)

    def run(self, on_trial: Callable[[int, Candidate | None], None]) -> None:
        """Replay the trials there are, then make new ones until the budget is used up."""
        number = 0
        for trial in self._study.get_trials(deepcopy=False):
            on_trial(trial.number, self._replay(trial))
            number = trial.number + 1
        while len(self._ledger.candidates) < self._settings.trials and number < self._settings.max_proposals:
            candidate = self._judge(self._ask(number))
            number += 1
            self._study.set_user_attr(MARK, number)
            self._journal.commit()
            on_trial(number - 1, candidate)

    def _ask(self, number: int) -> Trial:
        source = "sampler"
        if number < len(self._queue):
            source, choices = self._queue[number]
            self._study.enqueue_trial(choices)
        trial = self._study.ask()
        for decision in self._ledger.space.decisions():
            trial.suggest_categorical(decision.name, range(decision.options))
        # Asking for them is what enters a trial with fixed parameters into NSGA-II's population.
        _ = trial.relative_params
        trial.set_user_attr("source", source)
        return trial

    def _judge(self, trial: Trial) -> Candidate | None:
        proposal = self._ledger.examine(trial.params)
        for name, overshoot in proposal.excess.items():
            trial.set_constraint(name, overshoot)
        if not proposal.allowed:
            self._tell(trial, proposal, status="refused", qualities=self._worst())
            return None
        source = trial.user_attrs["source"]
        score, candidate = self._ledger.score(proposal, trial=trial.number, source=source)
        for name, value in score.to_dict().items():
            trial.set_user_attr(name, value)
        status = "scored" if candidate else "scored before"
        self._tell(trial, proposal, status=status, qualities=self._qualities(score))
        return candidate

    def _tell(self, trial: Trial, proposal: Proposal, *, status: str, qualities: Mapping[str, float]) -> None:
        trial.set_user_attr("key", proposal.genotype.key)
        trial.set_user_attr("parameters", proposal.cost.parameters)
        trial.set_user_attr("status", status)
        values = {**qualities, "FLOPs": float(proposal.cost.flops)}
        self._study.tell(trial, [values[name] for name in self._objectives])

    def _qualities(self, score: Score) -> dict[str, float]:
        """Return what the study asks of a score, by the names of its objectives."""
        found = {"accuracy": self._settings.accuracy(score)}
        if "vulnerability" in self._objectives:
            if score.vulnerability is None:
                raise ValueError("a study that minimises vulnerability needs scores that hold it")
            found["vulnerability"] = score.vulnerability
        return found

    def _worst(self) -> dict[str, float]:
        """Bad enough for what is refused, yet on the scale of the others, which a Gaussian process needs."""
        found = [self._qualities(candidate.score) for candidate in self._ledger.candidates]
        return {
            "accuracy": min((one["accuracy"] for one in found), default=0.0),
            "vulnerability": max((one.get("vulnerability", 1.0) for one in found), default=1.0),
        }

    def _replay(self, trial: FrozenTrial) -> Candidate | None:
        if trial.user_attrs["status"] == "refused":
            return None
        recorded = Score.from_dict(trial.user_attrs)
        proposal = self._ledger.examine(trial.params)
        source = trial.user_attrs["source"]
        return self._ledger.score(proposal, trial=trial.number, source=source, recorded=recorded)[1]


def open_study(
    path: Path, identity: Mapping[str, str | int | float | None], objectives: Mapping[str, Direction]
) -> tuple[TrialJournal, optuna.Study]:
    """Return the study in ``path``, made if there is none, and its journal.

    Args:
        path: of the journal.
        identity: what decides on its trials; a study goes on only as itself.
        objectives: their names, and which way each is better.

    Raises:
        RunError: the file is no study, or one of another identity.
    """
    try:
        journal = TrialJournal(path)
        storage = JournalStorage(journal)
        names = optuna.get_all_study_names(storage)
    except OSError as error:
        raise RunError(f"{path}: cannot be opened ({error.strerror})") from None
    except Exception as error:
        raise RunError(f"{path}: is not a readable study journal ({type(error).__name__}: {error})") from None
    if names:
        study = optuna.load_study(study_name=names[0], storage=storage)
        demand_same(path, found=study.user_attrs.get("fingerprint"), ours=identity)
        return journal, study
    study = optuna.create_study(study_name=STUDY, storage=storage, directions=list(objectives.values()))
    study.set_metric_names(list(objectives))
    study.set_user_attr("fingerprint", dict(identity))
    study.set_user_attr(MARK, 0)
    journal.commit()
    return journal, study


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's own log and its remarks on experimental parts from the user."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
