"""A study over plain choices with any number of objectives: for nets that have no cells.

As in ``controller``, a killed study goes on with the very proposals that it would have made, and what was proposed
before is answered from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ftnas.configuration import Section
from ftnas.search.settings import PROPOSALS_PER_TRIAL, ControllerSettings, Direction
from ftnas.space import Decision

Choices = Mapping[str, int]


class ChoiceStudySettings(Section):
    """The sampler and its budget: ``trials`` different candidates, in NSGA-II's ``population`` (see ``search``)."""

    sampler: Literal["nsga2", "tpe", "gp", "random"] = "nsga2"
    trials: int = Field(40, ge=1)
    population: int | None = Field(None, ge=2)

    @property
    def controller(self) -> ControllerSettings:
        """The same as the settings of a controller."""
        return ControllerSettings(sampler=self.sampler, trials=self.trials, population=self.population)


@dataclass(frozen=True, slots=True)
class Found:
    """A scored candidate: the trial that proposed it first, its choices, and plain data with all that is known."""

    trial: int
    choices: Choices
    outcome: Mapping[str, Any]


def run_choice_study(
    decisions: Sequence[Decision],
    *,
    evaluate: Callable[[Choices], Mapping[str, Any]],
    key: Callable[[Choices], str],
    objectives: Mapping[str, Direction],
    settings: ChoiceStudySettings,
    journal: Path,
    seed: int,
    identity: Mapping[str, str | int | float | None],
    on_trial: Callable[[Found | None], None],
) -> list[Found]:
    """Score ``settings.trials`` different candidates, or as many as there are, or go on with the study in ``journal``.

    Args:
        decisions: what is chosen.
        evaluate: the outcome of a candidate as plain data, with a number for each objective; a function of the choices.
        key: what candidates that come to the same have in common.
        objectives: keys of the outcome, and which way each is better.
        settings: of the sampler.
        journal: the study's file.
        seed: of the proposals.
        identity: what decides on proposals and outcomes besides; a study goes on only as itself.
        on_trial: called after each trial with a new candidate, or ``None`` where it was known.

    Raises:
        RunError: the file is no study, or one of another identity.
    """
    # Here, so that who only reads settings does not wait for Optuna.
    from ftnas.search.journal import MARK
    from ftnas.search.samplers import KeyedSampler
    from ftnas.search.studies import open_study, quiet

    names = list(objectives)
    whole = {**identity, "seed": seed, "sampler": settings.sampler, "objectives": " ".join(names)}
    if settings.sampler == "nsga2":
        whole["population"] = settings.controller.population_size
    found: dict[str, Found] = {}
    with quiet():
        file, study = open_study(journal, whole, objectives)
        study.sampler = KeyedSampler(settings.controller, decisions, seed=seed)
        number = 0
        for trial in study.get_trials(deepcopy=False):
            on_trial(_note(found, key(trial.params), trial.number, trial.params, trial.user_attrs["outcome"]))
            number = trial.number + 1
        while len(found) < settings.trials and number < PROPOSALS_PER_TRIAL * settings.trials:
            new = study.ask()
            for decision in decisions:
                new.suggest_categorical(decision.name, range(decision.options))
            known = found.get(key(new.params))
            outcome = dict(evaluate(new.params) if known is None else known.outcome)
            new.set_user_attr("outcome", outcome)
            study.tell(new, [float(outcome[name]) for name in names])
            number += 1
            study.set_user_attr(MARK, number)
            file.commit()
            on_trial(_note(found, key(new.params), new.number, new.params, outcome))
    return list(found.values())


def _note(found: dict[str, Found], key: str, trial: int, choices: Choices, outcome: Mapping[str, Any]) -> Found | None:
    if key in found:
        return None
    found[key] = Found(trial, dict(choices), outcome)
    return found[key]
