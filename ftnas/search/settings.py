"""What a user chooses about the controller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from ftnas.configuration import Section
from ftnas.search.candidates import Candidate, Limits, Score

PROPOSALS_PER_TRIAL = 20
Direction = Literal["maximize", "minimize"]


class ControllerSettings(Section):
    """The controller and its budget.

    Attributes:
        trials: how many different architectures are scored; refused and repeated proposals do not count.
        population: of NSGA-II and of regularised evolution; ``None`` takes a tenth of the trials, 10 to 50
            (at 200 trials, 20 doubled the hypervolume of Optuna's fixed 50).
        objective: the accuracy to maximise: ``faulty``, or ``reward`` = (1 - a_r) clean + a_r faulty.
        faulty_share: a_r of the reward (arXiv 2003.10375: 0.5 for feature faults, 0.2 for weight faults).
        vulnerability: what Optuna's controller minimises besides FLOPs, by first-order analysis of the images that
            candidates are scored on: ``max_lvf``, the factor of the most vulnerable layer; ``mean_cvf``, the mean of
            all channels; ``expected``, the number of single flips that change the mean image's answer; or ``none``.
        in_flight: how many candidates may wait for their scores while more are proposed, with any number of workers;
            ``None`` is as many as leave the proposals of ``nsga2`` and ``random`` what they are with one worker, and
            for the other samplers two for each worker.
    """

    controller: Literal["optuna", "nni-evolution"] = "optuna"
    sampler: Literal["nsga2", "tpe", "gp", "random"] = "nsga2"
    trials: int = Field(default=100, ge=1)
    population: int | None = Field(default=None, ge=2)
    max_flops: int | None = Field(default=None, ge=1)
    max_parameters: int | None = Field(default=None, ge=1)
    objective: Literal["faulty", "reward"] = "faulty"
    faulty_share: float = Field(default=0.5, ge=0, le=1)
    vulnerability: Literal["none", "max_lvf", "mean_cvf", "expected"] = "none"
    in_flight: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.vulnerability != "none" and self.controller != "optuna":
            raise ValueError(f"vulnerability: {self.vulnerability} needs the controller optuna, got {self.controller}")
        if self.in_flight is not None and self.controller != "optuna":
            raise ValueError(f"in_flight: {self.in_flight} needs the controller optuna, got {self.controller}")
        return self

    @property
    def population_size(self) -> int:
        """The population, scaled to the budget unless it is given."""
        return self.population or min(max(self.trials // 10, 10), 50)

    @property
    def limits(self) -> Limits:
        """The cost limits."""
        return Limits(self.max_flops, self.max_parameters)

    @property
    def max_proposals(self) -> int:
        """How many proposals are made at most before a study gives up finding ``trials`` different ones."""
        return PROPOSALS_PER_TRIAL * self.trials

    def accuracy(self, score: Score) -> float:
        """Return the accuracy that the study maximises."""
        if self.objective == "faulty":
            return score.faulty
        return (1 - self.faulty_share) * score.clean + self.faulty_share * score.faulty


def check_controller(settings: ControllerSettings) -> None:
    """Raise an ``FtnasError``, before any work, if the controller needs a package that is not installed."""
    if settings.controller == "nni-evolution":
        import ftnas.search.nni_evolution  # noqa: F401


def shortfall(candidates: Sequence[Candidate], settings: ControllerSettings) -> str | None:
    """Return the warning for a study that ended early; ``None`` if it scored all it was to score."""
    if len(candidates) >= settings.trials:
        return None
    return (
        f"the study scored {len(candidates)} of {settings.trials} architectures: "
        f"{settings.max_proposals} proposals brought no more that are new and within {settings.limits}"
    )
