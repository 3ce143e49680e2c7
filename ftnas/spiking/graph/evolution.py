"""Evolution of spiking graphs, generation by generation; a generation is a function of the one before and its number.

So an evolution that was cut off goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from ftnas.files import read_json
from ftnas.runtime import key_seed
from ftnas.search.candidates import Score
from ftnas.spiking.graph.genome import Genome, Processor, checked
from ftnas.spiking.graph.operators import crossover, mutate, random_genome
from ftnas.spiking.graph.selection import Individual, by_dominance, draw_parent, front_of, hypervolume
from ftnas.spiking.graph.settings import EvolutionSettings, FitnessSettings
from ftnas.untrusted import understood

Evaluate = Callable[[Sequence[Genome], int], Sequence[Score]]
"""(nets, generation) -> their scores on the chips of that generation"""


@dataclass(frozen=True)
class Evolution:
    """What an evolution needs to know.

    Attributes:
        inputs: of each net.
        outputs: of each net.
        processor: that the nets run on.
        settings: how nets descend from nets.
        fitness: what counts.
        evaluate: scores nets.
        renewed: whether every generation has chips of its own, so that scores of earlier ones do not hold.
        seed: of all that is drawn.
    """

    inputs: int
    outputs: int
    processor: Processor
    settings: EvolutionSettings
    fitness: FitnessSettings
    evaluate: Evaluate
    renewed: bool
    seed: int

    @property
    def largest(self) -> int:
        """The size at which a hypervolume ends: every input to every output, and all hidden neurons."""
        return self.inputs * self.outputs + self.processor.hidden_max

    def fitness_of(self, individual: Individual) -> float:
        """Return the one number that is made of scores and size."""
        genome = individual.genome
        return self.fitness.of(individual.score, len(genome.synapses), len(genome.hidden))


@dataclass(frozen=True)
class Generation:
    """Where an evolution stands.

    Attributes:
        number: counted from 0.
        population: best first.
        archive: the front, smallest first: of ``nsga2`` of all nets so far (where chips are renewed, of those that were
            on it before and of this generation's), of ``scalar`` of this generation's.
        history: a line of numbers for each generation so far.
    """

    number: int
    population: tuple[Individual, ...]
    archive: tuple[Individual, ...]
    history: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "number": self.number,
            "population": [individual.to_dict() for individual in self.population],
            "archive": [individual.to_dict() for individual in self.archive],
            "history": [dict(line) for line in self.history],
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Generation:
        """Read the form that ``to_dict`` writes."""
        population, archive = (
            tuple(Individual.from_dict(one) for one in row[name]) for name in ("population", "archive")
        )
        return cls(row["number"], population, archive, tuple(row["history"]))


def read_generation(path: Path, processor: Processor) -> Generation:
    """Read the generation in ``path``, whose nets are for ``processor``.

    Raises:
        RunError: the file is damaged.
        SpikingError: a net in it is impossible.
    """
    with understood(path):
        found = Generation.from_dict(read_json(path))
        if type(found.number) is not int or found.number < 0 or not found.population:
            raise ValueError(f"number {found.number!r} with {len(found.population)} nets")
        for one in (*found.population, *found.archive):
            checked(one.genome, processor, str(path))
        return found


def first_generation(evolution: Evolution) -> Generation:
    """Return a generation of random nets."""
    genomes = [_fresh(evolution, _rng(evolution, 0, place)) for place in range(evolution.settings.population)]
    scored = _scored(evolution, genomes, 0)
    return _generation(evolution, 0, _ordered(evolution, scored), scored, ())


def next_generation(evolution: Evolution, before: Generation) -> Generation:
    """Return the generation that follows ``before``."""
    number, settings = before.number + 1, evolution.settings
    keep = settings.population if settings.method == "nsga2" else settings.elite
    new = settings.population if settings.method == "nsga2" else settings.population - settings.elite
    children = [_child(evolution, before.population, _rng(evolution, number, place)) for place in range(new)]
    # One number has no front to keep: what is on it by chance of the population is only shown.
    parents, archive = before.population[:keep], before.archive if settings.method == "nsga2" else ()
    if evolution.renewed:
        again = _scored(evolution, [one.genome for one in (*parents, *archive)], number)
        parents, archive = tuple(again[: len(parents)]), tuple(again[len(parents) :])
    born = _scored(evolution, _distinct(children, parents) if settings.method == "nsga2" else children, number)
    population = _ordered(evolution, [*parents, *born])[: settings.population]
    return _generation(evolution, number, population, [*archive, *parents, *born], before.history)


def _generation(
    evolution: Evolution,
    number: int,
    population: Sequence[Individual],
    known: Sequence[Individual],
    history: tuple[Mapping[str, Any], ...],
) -> Generation:
    archive = front_of(known)
    fittest = max(population, key=evolution.fitness_of)
    line = {
        "generation": number,
        "fitness": evolution.fitness_of(fittest),
        "mean_fitness": fmean(map(evolution.fitness_of, population)),
        "clean": fittest.score.clean,
        "faulty": fittest.score.faulty,
        "size": fittest.genome.size,
        "front": len(archive),
        "hypervolume": hypervolume(archive, largest=evolution.largest),
    }
    return Generation(number, tuple(population), tuple(archive), (*history, line))


def _ordered(evolution: Evolution, individuals: Sequence[Individual]) -> list[Individual]:
    """Return ``individuals``, best first."""
    if evolution.settings.method == "nsga2":
        return by_dominance(individuals)
    # Ties are broken by a name that says nothing, not by size: size is to count as much as the fitness says.
    return sorted(individuals, key=lambda one: (-evolution.fitness_of(one), one.genome.key))


def _child(evolution: Evolution, population: Sequence[Individual], rng: Random) -> Genome:
    settings = evolution.settings
    if rng.random() < settings.fresh_share:
        return _fresh(evolution, rng)
    contestants = max(2, round(settings.tournament * len(population)))
    child = draw_parent(population, contestants, rng).genome
    if rng.random() < settings.crossover_rate:
        child = crossover(child, draw_parent(population, contestants, rng).genome, rng)
    if rng.random() < settings.mutation_rate:
        times = rng.randint(1, settings.mutations)
        child = mutate(child, times=times, processor=evolution.processor, rng=rng)
    return child


def _fresh(evolution: Evolution, rng: Random) -> Genome:
    settings = evolution.settings
    return random_genome(
        evolution.inputs,
        evolution.outputs,
        hidden=rng.randint(0, settings.start_neurons),
        synapses=rng.randint(1, settings.start_synapses),
        processor=evolution.processor,
        rng=rng,
    )


def _distinct(children: Sequence[Genome], parents: Sequence[Individual]) -> list[Genome]:
    """Return the children that are like no parent and no other child."""
    known = {one.genome.key for one in parents}
    return [child for key, child in {child.key: child for child in children}.items() if key not in known]


def _scored(evolution: Evolution, genomes: Sequence[Genome], generation: int) -> list[Individual]:
    scores = evolution.evaluate(genomes, generation)
    return [Individual(genome, score) for genome, score in zip(genomes, scores, strict=True)]


def _rng(evolution: Evolution, generation: int, place: int) -> Random:
    return Random(key_seed("spiking evolution", evolution.seed, generation, place))
