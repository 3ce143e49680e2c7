"""How spiking graphs are evolved, and what counts."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ftnas.configuration import Section
from ftnas.search.candidates import Score

Method = Literal["nsga2", "scalar"]


class FitnessSettings(Section):
    """One number for a net: accuracy A * ``accuracy`` + faulty accuracy R * ``resilience`` - synapses * ``synapse`` -
    hidden neurons * ``neuron``.
    """

    accuracy: float = Field(0.5, ge=0)
    resilience: float = Field(0.5, ge=0)
    synapse: float = Field(0.003, ge=0)
    neuron: float = Field(0.005, ge=0)

    @model_validator(mode="after")
    def _rewards_something(self) -> Self:
        if not self.accuracy + self.resilience:
            raise ValueError("accuracy, resilience: one of them must be above 0")
        return self

    def of(self, score: Score, synapses: int, neurons: int) -> float:
        """Return the fitness of a net with ``score``, so many synapses and so many hidden neurons."""
        good = self.accuracy * score.clean + self.resilience * score.faulty
        return good - self.synapse * synapses - self.neuron * neurons


class EvolutionSettings(Section):
    """How nets descend from nets.

    ``method``: ``scalar`` keeps the fittest by one number; ``nsga2`` keeps a front of accuracy, faulty accuracy and
    size, and uses the number to name a winner only. ``population`` and ``generations``: how many nets, how often.
    ``elite``: of ``scalar``, the fittest that live on. ``fresh_share``: of each generation's new nets that are random.
    ``tournament``: share of the population of which the best, one time in ten another, becomes a parent.
    ``crossover_rate`` and ``mutation_rate``: of the children that have two parents, and that change. ``mutations``: at
    most so many changes. ``start_synapses`` and ``start_neurons``: of a random net, at most.
    """

    method: Method = "nsga2"
    population: int = Field(80, ge=4)
    generations: int = Field(60, ge=1)
    elite: int = Field(4, ge=1)
    fresh_share: float = Field(0.05, ge=0, lt=1)
    tournament: float = Field(0.1, gt=0, le=1)
    crossover_rate: float = Field(0.5, ge=0, le=1)
    mutation_rate: float = Field(0.9, ge=0, le=1)
    mutations: int = Field(3, ge=1)
    start_synapses: int = Field(12, ge=1)
    start_neurons: int = Field(2, ge=0)

    @model_validator(mode="after")
    def _elite_leaves_room(self) -> Self:
        if self.elite >= self.population:
            raise ValueError(f"elite: at most population - 1 ({self.population - 1}), got {self.elite}")
        return self
