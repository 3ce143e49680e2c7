"""Evolution of spiking graphs: the same bits from the same seed, fronts that only grow, and nets that are worth it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from ftnas.pipeline.evolution import evolution_of
from ftnas.pipeline.evolution_config import GraphSearchConfig
from ftnas.search.candidates import Score
from ftnas.spiking.graph.encoding import Encoding
from ftnas.spiking.graph.evolution import Evolution, Generation, first_generation, next_generation
from ftnas.spiking.graph.genome import Genome, checked
from ftnas.spiking.graph.perturbation import parse_perturbation
from ftnas.spiking.graph.scoring import scores_of
from ftnas.spiking.graph.selection import front_of
from ftnas.spiking.graph.tasks import load_task

load = cache(load_task)
QUICK = {"population": 12, "generations": 5}
ACCURACY = {"accuracy": 1, "resilience": 0, "synapse": 0, "neuron": 0}


def config(**changes: Any) -> GraphSearchConfig:
    keys = {"family": "snn-graph", "name": "test", "task": "iris", "chips": 2, "evolution": QUICK}
    return GraphSearchConfig.model_validate(keys | changes)


def evolved(settings: GraphSearchConfig, generations: int | None = None) -> tuple[Evolution, Generation]:
    evolution = evolution_of(settings, load(settings.task, settings.encoding))
    now = first_generation(evolution)
    for _ in range(settings.evolution.generations if generations is None else generations):
        now = next_generation(evolution, now)
    return evolution, now


@pytest.mark.parametrize("method", ["nsga2", "scalar"])
@pytest.mark.parametrize("renew", [True, False])
def test_the_same_seed_gives_the_same_front_and_another_seed_another(method: str, renew: bool):
    changes = {"evolution": QUICK | {"method": method}, "renew_chips": renew}
    one, again, other = (evolved(config(seed=seed, **changes))[1] for seed in (1, 1, 2))
    assert one == again
    assert one.archive != other.archive


@pytest.mark.parametrize("method", ["nsga2", "scalar"])
def test_an_evolution_that_was_written_down_goes_on_as_if_it_had_not_been(method: str):
    settings = config(evolution=QUICK | {"method": method})
    evolution, half = evolved(settings, 2)
    again = Generation.from_dict(json.loads(json.dumps(half.to_dict())))
    for _ in range(3):
        again = next_generation(evolution, again)
    assert again == evolved(settings)[1]


def test_without_renewed_chips_the_hypervolume_never_falls_and_the_archive_is_a_front():
    _, last = evolved(config(renew_chips=False, evolution=QUICK | {"generations": 12}))
    volumes = [line["hypervolume"] for line in last.history]
    assert volumes == sorted(volumes) and volumes[-1] > volumes[0]
    assert list(last.archive) == front_of(last.archive)


def test_without_renewed_chips_the_fittest_by_one_number_never_gets_worse():
    _, last = evolved(config(renew_chips=False, evolution=QUICK | {"method": "scalar", "generations": 12}))
    fitness = [line["fitness"] for line in last.history]
    assert fitness == sorted(fitness) and fitness[-1] > fitness[0]


def test_every_net_that_an_evolution_keeps_is_valid():
    settings = config()
    _, last = evolved(settings)
    for one in (*last.population, *last.archive):
        checked(one.genome, settings.processor, "net")
    assert len(last.population) == settings.evolution.population


@pytest.mark.parametrize("renewed", [True, False])
def test_nets_that_live_on_are_scored_again_only_on_renewed_chips(renewed: bool):
    settings = config(renew_chips=renewed)
    asked: list[tuple[int, str]] = []

    def evaluate(genomes: Sequence[Genome], generation: int) -> list[Score]:
        asked.extend((generation, genome.key) for genome in genomes)
        return [Score(0.5, 0.5, ())] * len(genomes)

    evolution = Evolution(8, 3, settings.processor, settings.evolution, settings.fitness, evaluate, renewed, 0)
    before = first_generation(evolution)
    after = next_generation(evolution, before)
    parents = {one.genome.key for one in before.population}
    assert {key for generation, key in asked if generation == 1} & parents == (parents if renewed else set())
    assert len(after.population) == 12


def scored(winner: Genome, settings: GraphSearchConfig, faults: str) -> Score:
    return scores_of(
        [winner],
        processor=settings.processor,
        task=load(settings.task, Encoding()),
        faults=[parse_perturbation(faults)],
        chips=range(100),
        study="test",
        split="test",
    )[0]


@cache
def winner_of(method: str, seed: int, accuracy_only: bool = False) -> tuple[Genome, tuple[float, ...], float]:
    """Return the fittest net for wine, accuracy and accuracy under noise 0.2 on test samples, and its fitness."""
    changes: dict[str, Any] = {"fitness": ACCURACY} if accuracy_only else {}
    evolution = {"population": 80, "generations": 60, "method": method}
    settings = config(task="wine", chips=5, seed=seed, evolution=evolution, **changes)
    found, last = evolved(settings)
    best = max(last.population if method == "scalar" else last.archive, key=found.fitness_of)
    score = scored(best.genome, settings, "weights.gaussian:0.2")
    return best.genome, (score.clean, score.faulty), settings.fitness.of(score, best.genome.size, 0)


SEEDS = (0, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["scalar", "nsga2"])
def test_nets_evolved_for_all_three_are_smaller_and_more_resilient_than_those_for_accuracy(method: str):
    plain = [winner_of("scalar", seed, accuracy_only=True) for seed in SEEDS]
    ours = [winner_of(method, seed) for seed in SEEDS]
    synapses = [np.mean([len(net.synapses) for net, *_ in found]) for found in (ours, plain)]
    clean, faulty = (np.mean([[s[i] for _, s, _ in found] for found in (ours, plain)], axis=1) for i in (0, 1))
    assert synapses[0] <= 0.6 * synapses[1]
    assert faulty[0] >= faulty[1] + 0.03
    assert clean[0] >= clean[1] - 0.06


@pytest.mark.slow
def test_no_run_by_one_number_beats_the_front_by_a_margin():
    for seed in SEEDS:
        assert winner_of("nsga2", seed)[2] >= winner_of("scalar", seed)[2] - 0.05
