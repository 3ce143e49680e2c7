"""The study: which architectures are scored, in what order, and what is kept of them.

Accuracy is maximised and FLOPs are minimised, and so is a vulnerability factor if the settings name one. Proposals
over a limit are refused before anything is evaluated, and an architecture that was scored already, under any isomorphic
form, is answered from memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from optuna.trial import FrozenTrial, Trial

from ftnas.cost import Cost
from ftnas.errors import RunError
from ftnas.search.candidates import Candidate, Score
from ftnas.search.journal import MARK, JsonLines
from ftnas.search.ledger import First, Ledger, Order, Proposal, fingerprint
from ftnas.search.order import write_order
from ftnas.search.samplers import KeyedSampler, horizon
from ftnas.search.settings import ControllerSettings, Direction, shortfall
from ftnas.search.studies import open_study, quiet
from ftnas.space import Genotype, SearchSpace
from ftnas.stopping import check, finishing_steps
from ftnas.untrusted import understood

__all__ = ["ControllerSettings", "run_study", "shortfall"]

OBJECTIVES: Mapping[str, Direction] = {"accuracy": "maximize", "FLOPs": "minimize"}
VULNERABILITY: Mapping[str, Direction] = {"vulnerability": "minimize"}  # where the settings name a factor


class Sharing(Protocol):
    """Who scores what the study proposes, while it goes on proposing."""

    @property
    def workers(self) -> int:
        """How many score at once."""

    def want(self, genotype: Genotype) -> None:
        """Let a worker begin to score ``genotype``, unless one did."""


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
    sharing: Sharing | None = None,
    replay: Order | None = None,
) -> list[Candidate]:
    """Score ``settings.trials`` different architectures, or go on with the study in ``journal``.

    A study that was stopped, however hard, goes on with the very proposals that it would have made without the
    stop, and scores nothing again but what was being scored just then. ``shortfall`` tells if fewer were found.
    ``order.json`` beside the journal then holds what was proposed, for ``replay``.

    Args:
        evaluate: scores a genotype, or waits until a worker has; it must be a function of the genotype alone, or
            resuming is not exact.
        cost: the exact cost of a genotype, quickly.
        first: (source, genotype) of the first proposals; those over the limits are left out.
        journal: the study's file; NNI's controller writes ``proposals.jsonl`` beside it instead.
        on_trial: called after each trial, those of an earlier run included, with the trial's number and its
            candidate; ``None`` if it was refused or scored before.
        sharing: that workers score; without it ``evaluate`` is called for one proposal after another.
        replay: proposals to make first, instead of ``first`` and the controller's own.

    Returns:
        The distinct candidates, by first trial.

    Raises:
        RunError: the file is no study, or one of another space, seed or settings.
        SpaceError: not one proposal kept the limits.
    """
    ledger = Ledger(space, evaluate=evaluate, cost=cost, limits=settings.limits)
    identity = fingerprint(space, settings, first=first, seed=seed, replay=replay)
    queue = ledger.allowed_first(first)
    order: Order
    if settings.controller == "nni-evolution":
        from ftnas.search.nni_evolution import run_evolution

        if replay is not None:
            raise RunError("--replay: needs the controller optuna, got nni-evolution")
        file = journal.with_name("proposals.jsonl")
        run_evolution(ledger, settings, identity=identity, queue=queue, file=file, seed=seed, on_trial=on_trial)
        order = [(row["source"], row["choices"]) for row in JsonLines(file).rows[1:]]
    else:
        with quiet():
            study = _Study(ledger, settings, identity=identity, file=journal, seed=seed, sharing=sharing)
            order = study.run(queue if replay is None else replay, on_trial)
    ledger.demand_any()
    write_order(journal.with_name("order.json"), order)
    return ledger.candidates


@dataclass(frozen=True, slots=True)
class _Open:
    """A proposal that the sampler has not been told the result of; ``new`` if its score is waited for."""

    trial: Trial
    proposal: Proposal
    new: bool


class _Study:
    """An Optuna study whose trials are the proposals.

    Results are told in the order of the proposals, whatever the order in which they come, so what a sampler knows when
    it proposes does not depend on how long anything took.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: ControllerSettings,
        *,
        identity: Mapping[str, str | int | float | None],
        file: Path,
        seed: int,
        sharing: Sharing | None,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._sharing = sharing
        self._file = file
        self._queue: Order = ()
        self._objectives = OBJECTIVES if settings.vulnerability == "none" else {**OBJECTIVES, **VULNERABILITY}
        self._journal, self._study = open_study(file, identity, self._objectives)
        self._study.sampler = KeyedSampler(settings, ledger.space.decisions(), seed=seed)
        self._open: deque[_Open] = deque()
        self._told = 0

    def run(self, queue: Order, on_trial: Callable[[int, Candidate | None], None]) -> Order:
        """Replay the trials there are, then make new ones until the budget is used up; return all proposals."""
        self._queue = queue
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state.is_finished():
                with understood(self._file):
                    candidate = self._replay(trial)
                on_trial(trial.number, candidate)
                self._told += 1
            else:  # its score was on the way when the study was stopped
                self._add(Trial(self._study, trial._trial_id))
        # What other processes score is not lost with this one.
        with finishing_steps() if self._sharing is None else nullcontext():
            while self._open or self._may_propose():
                if not (self._open and not self._open[0].new) and self._may_propose():
                    self._add(self._ask(self._told + len(self._open)))
                else:
                    on_trial(self._told, self._close_first())
                    check(f"trial {self._told - 1}")
        trials = self._study.get_trials(deepcopy=False)
        return [(trial.user_attrs["source"], trial.params) for trial in trials]

    def _may_propose(self) -> bool:
        """Return whether another proposal is wanted, and may be made before more results are known."""
        settings, number = self._settings, self._told + len(self._open)
        waiting = sum(one.new for one in self._open)
        if len(self._ledger.candidates) + waiting >= settings.trials or number >= settings.max_proposals:
            return False
        if settings.in_flight is not None:
            return waiting < settings.in_flight
        if self._sharing is None:
            return not waiting
        exact = horizon(settings, self._told)
        return waiting < 2 * self._sharing.workers if exact is None else number < exact

    def _add(self, trial: Trial) -> None:
        """Note what was proposed, and let workers begin with it if its score is not known."""
        proposal = self._ledger.examine(trial.params)
        key = proposal.genotype.key
        waited_for = {one.proposal.genotype.key for one in self._open}
        new = proposal.allowed and not self._ledger.knows(key) and key not in waited_for
        self._open.append(_Open(trial, proposal, new))
        if new and self._sharing is not None:
            self._commit()  # before anyone sees it: whoever goes on after a kill knows what is being scored
            self._sharing.want(proposal.genotype)

    def _close_first(self) -> Candidate | None:
        first = self._open[0]
        candidate = self._judge(first.trial, first.proposal)
        self._open.popleft()
        self._told += 1
        self._commit()
        return candidate

    def _commit(self) -> None:
        self._study.set_user_attr(MARK, self._told)
        self._journal.commit()

    def _ask(self, number: int) -> Trial:
        source = "sampler"
        if number < len(self._queue):
            source, choices = self._queue[number]
            self._study.enqueue_trial(dict(choices))
        trial = self._study.ask()
        for decision in self._ledger.space.decisions():
            trial.suggest_categorical(decision.name, range(decision.options))
        # Asking for them is what enters a trial with fixed parameters into NSGA-II's population.
        _ = trial.relative_params
        trial.set_user_attr("source", source)
        return trial

    def _judge(self, trial: Trial, proposal: Proposal) -> Candidate | None:
        score: Score | None = None
        candidate: Candidate | None = None
        if proposal.allowed:  # first of all, since it may take long
            source = trial.user_attrs["source"]
            score, candidate = self._ledger.score(proposal, trial=trial.number, source=source)
        for name, overshoot in proposal.excess.items():
            trial.set_constraint(name, overshoot)
        if score is None:
            self._tell(trial, proposal, status="refused", qualities=self._worst())
            return None
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
