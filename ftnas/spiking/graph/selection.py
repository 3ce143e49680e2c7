"""Who lives on: fronts of accuracy, faulty accuracy and size, crowding, and tournaments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftnas.search.candidates import Score
from ftnas.search.pareto import hypervolume_2d
from ftnas.spiking.graph.genome import Genome

Objectives = NDArray[np.float64]

BEST_WINS = 0.9


@dataclass(frozen=True)
class Individual:
    """A net and its score on a study's chips."""

    genome: Genome
    score: Score

    @property
    def objectives(self) -> tuple[float, float, float]:
        """What is to be large: accuracy without faults, faulty accuracy, and the size taken negative."""
        return self.score.clean, self.score.faulty, -float(self.genome.size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {"genome": self.genome.to_dict(), **self.score.to_dict()}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Individual:
        """Read the form that ``to_dict`` writes."""
        return cls(Genome.from_dict(row["genome"]), Score.from_dict(row))


def ranks(objectives: Objectives) -> NDArray[np.int64]:
    """Return the front of each row of ``objectives`` ``[N, M]``, all to be large: 0 is dominated by none.

    Front k is what none dominates once the fronts before it are gone (Deb et al., 2002, NSGA-II).
    """
    one, other = objectives[:, None], objectives[None]
    dominates = np.asarray((one >= other).all(axis=2) & (one > other).any(axis=2))
    found = np.full(len(objectives), -1)
    rank = 0
    while (left := found < 0).any():
        found[left & ~dominates[left].any(axis=0)] = rank
        rank += 1
    return found


def crowding(objectives: Objectives) -> NDArray[np.float64]:
    """Return how far a row's neighbours in one front lie apart ``[N]``, summed over objectives in units of their range.

    The ends of each objective are infinitely far from others.
    """
    distance = np.zeros(len(objectives))
    for column in objectives.T:
        order = column.argsort(kind="stable")
        span = column[order[-1]] - column[order[0]]
        if span > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
        distance[order[[0, -1]]] = np.inf
    return distance


def by_dominance(individuals: Sequence[Individual]) -> list[Individual]:
    """Return ``individuals``, best first: by front, within it the least crowded first.

    Of several with the same objectives all but the first come last: else copies of one net would fill a population.
    """
    first: dict[tuple[float, ...], Individual] = {}
    for individual in individuals:
        first.setdefault(individual.objectives, individual)
    distinct = list(first.values())
    objectives = np.array([individual.objectives for individual in distinct])
    rank, apart = ranks(objectives), np.zeros(len(distinct))
    for front in np.unique(rank):
        apart[rank == front] = crowding(objectives[rank == front])
    order = sorted(range(len(distinct)), key=lambda i: (rank[i], -apart[i], distinct[i].genome.key))
    taken = {id(individual) for individual in distinct}
    return [*(distinct[i] for i in order), *(one for one in individuals if id(one) not in taken)]


def front_of(individuals: Sequence[Individual]) -> list[Individual]:
    """Return those that none dominates, smallest first, one for each combination of objectives."""
    first: dict[tuple[float, ...], Individual] = {}
    for individual in individuals:
        first.setdefault(individual.objectives, individual)
    distinct = list(first.values())
    best = ranks(np.array([individual.objectives for individual in distinct])) == 0
    kept = [individual for individual, good in zip(distinct, best, strict=True) if good]
    return sorted(kept, key=lambda one: (one.genome.size, -one.score.faulty, -one.score.clean))


def hypervolume(individuals: Sequence[Individual], *, largest: int) -> float:
    """Return the volume that ``individuals`` dominate, of accuracy 0 to 1, faulty accuracy 0 to 1 and size to 0.

    Args:
        individuals: of any sizes.
        largest: the size at which the volume ends; larger nets add nothing.
    """
    sizes = sorted({one.genome.size for one in individuals if one.genome.size < largest})
    volume = 0.0
    for size, following in zip(sizes, [*sizes, largest][1:], strict=True):
        points = [(one.score.clean, -one.score.faulty) for one in individuals if one.genome.size <= size]
        volume += hypervolume_2d(points, reference=(0.0, 0.0)) * (following - size)
    return volume


def draw_parent(ordered: Sequence[Individual], contestants: int, rng: Random) -> Individual:
    """Return the best of ``contestants`` random ones of ``ordered`` (best first), one time in ten another of them."""
    places = sorted(rng.randrange(len(ordered)) for _ in range(contestants))
    if rng.random() < BEST_WINS or contestants == 1:
        return ordered[places[0]]
    return ordered[rng.choice(places[1:])]
